"""Gives every hostile file to visreg, each in a process of its own, and tells what came of it, as lines of JSON.

``python hostile_run.py FOLDER WHAT`` is a process, forked from for each file once all is imported, since an audit hook
cannot be taken off.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import hostile
import torch
from tiny import tiny_config

from visreg.build import build_runner
from visreg.checkpoint import load, save
from visreg.cli import main
from visreg.errors import VisregError

MEMORY = 2 << 30  # bytes that a process may have beyond what it begins with, so that this machine survives
SECONDS = 60
LIBRARIES = tuple({str(Path(module.__file__).parents[1]) for module in (torch, os, contextlib)})
PACKAGES = ("torch", "torchvision", "visreg", "numpy", "rich", "attr", "encodings", "hostile", "mpl_toolkits")
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.putenv", "os.chmod",
    "os.chown", "os.startfile", "subprocess.", "socket.", "pty.", "ctypes.", "pickle.", "marshal.loads", "webbrowser.",
    "urllib.", "shutil.", "code.__new__", "function.__new__", "sys.set", "signal.", "builtins.breakpoint", "cpython.run",
    "ftplib.", "http.", "smtplib.", "sqlite3.", "tempfile.mkstemp", "syslog.",
)  # fmt: skip
WRITES = {
    "open": 1, "os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.link": 2, "os.symlink": 2,
    "os.truncate": 1, "os.utime": 1,
}  # fmt: skip


class Watch:
    """Notes every event of Python's that a file of data has no business to cause."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and not self.is_harmless(event, arguments):
            self.on = False
            self.seen.append(f"{event} {str(arguments)[:200]}")
            self.on = True

    def is_harmless(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "import":
            return arguments[0] in sys.modules or arguments[0].partition(".")[0] in PACKAGES
        if event == "exec":
            return str(getattr(arguments[0], "co_filename", "")).startswith(LIBRARIES)
        if event in WRITES:
            if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return True
            return all(self.is_inside(path) for path in arguments[: WRITES[event]])
        return not event.startswith(FORBIDDEN)

    def is_inside(self, path: Any) -> bool:
        if isinstance(path, int) or path == os.devnull:
            return True
        return os.path.realpath(os.fsdecode(path)).startswith(f"{self.folder}/")


class Entrances:
    """The ways in which a file of others comes in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hooks = [{"type": name} for name in ("EMA", "MetricsLog", "Checkpoint")]
        hooks.append({"type": "EarlyStopping", "monitor": "accuracy", "patience": 3})
        schedule = {"type": "StepLR", "step_size": 2}
        self.config = tiny_config(hooks=hooks, schedule=schedule, run={"work_dir": str(folder / "work"), "epochs": 2})
        (folder / "config.json").write_text(json.dumps(self.config))

    def load(self, path: Path) -> None:
        load(path)

    def test(self, path: Path) -> None:
        main(["test", str(path), "--out", str(self.folder / "work" / "test.json")])

    def resume(self, path: Path) -> None:
        main(["train", str(self.folder / "config.json"), "--resume", str(path)])

    def override(self, path: Path) -> None:
        main(["train", str(self.folder / "config.json"), "--resume", str(path), "--resume-override"])

    def config_file(self, path: Path) -> None:
        main(["train", str(path)])

    def good(self) -> dict[str, Any]:
        """Return the state of a run after its first epoch."""
        runner = build_runner({**self.config, "run": {**self.config["run"], "epochs": 1}})
        runner.train()
        state = runner.state_dict()
        runner = build_runner(self.config)
        state["config"] = json.dumps(self.config)
        state["train"]["total_steps"] = runner.total_steps
        return state


def tried(way: Callable[[Path], None], path: Path, watch: Watch) -> dict[str, Any]:
    """Return what came of a file: the exit code, what was printed, and what was noted."""
    code, trace, text = 0, "", io.StringIO()
    before = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        watch.on = True
        try:
            way(path)
        except SystemExit as error:
            code = error.code
        except VisregError as error:
            code = error.exit_code
            print(error, file=text)
        except BaseException:
            code, trace = 1, traceback.format_exc()[-1500:]
        watch.on = False
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    events, watch.seen = watch.seen, []
    printed = text.getvalue()
    return {"way": way.__name__, "code": code, "trace": trace, "events": events, "seconds": seconds,
            "printed": printed[-600:], "length": len(printed)}  # fmt: skip


def forked(name: str, path: Path, ways: list[Callable[[Path], None]], watch: Watch) -> Iterator[dict[str, Any]]:
    """Try a file in a process of its own, and yield what came of it."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        for way in ways:
            os.write(writing, (json.dumps(tried(way, path, watch)) + "\n").encode())
        os._exit(0)
    os.close(writing)
    begin = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    with os.fdopen(reading) as lines:
        found = [json.loads(line) for line in lines]
    _, status, usage = os.wait4(process, 0)
    if status:
        found.append({"way": "?", "code": status, "trace": f"died: {status}", "events": [], "seconds": 0,
                      "printed": "", "length": 0})  # fmt: skip
    for result in found:
        yield {"name": name, **result, "memory": usage.ru_maxrss * 1024 - begin}


def files(what: str, entrances: Entrances, marker: str) -> Iterator[tuple[str, bytes, list[Callable[[Path], None]]]]:
    state = entrances.good()
    to_use = [entrances.test, entrances.resume]
    evil = str(entrances.folder / "evil.py")
    if what == "pickles":
        for name, data in hostile.pickles(marker):
            yield name, data, [entrances.load, entrances.test]
        for name, data in list(hostile.pickles(marker))[::12]:  # which is all one to it: `load` comes first
            yield name, data, [entrances.resume]
    elif what == "states":
        for name, changed in hostile.states(state):
            save(changed, entrances.folder / "made.pt")
            yield name, (entrances.folder / "made.pt").read_bytes(), to_use
    elif what == "embedded":
        for name, text in hostile.configs(entrances.config, marker, evil):
            save({**state, "config": text}, entrances.folder / "made.pt")
            yield name, (entrances.folder / "made.pt").read_bytes(), to_use
    elif what == "configs":
        for name, text in hostile.configs(entrances.config, marker, evil):
            yield name, text.encode("utf-8", "surrogatepass"), [entrances.config_file]


def run(folder: Path, what: str) -> None:
    torch.set_num_threads(1)
    (folder / "work").mkdir()
    os.chdir(folder)
    marker = str(folder / "executed")
    (folder / "evil.py").write_text(f"open({marker!r}, 'w').close()\n")
    entrances = Entrances(folder)
    good = folder / "good.pt"
    save(entrances.good(), good)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for way in (entrances.test, entrances.resume):  # so that all is imported
            with contextlib.suppress(SystemExit):
                way(good)
    watch = Watch(folder)
    path = folder / ("hostile.json" if what == "configs" else "hostile.pt")
    for name, data, ways in [("nothing hostile", good.read_bytes(), [entrances.test, entrances.resume])] * (
        what != "configs"
    ) + [*files(what, entrances, marker)]:
        path.write_bytes(data)
        for result in forked(name, path, ways, watch):
            result["executed"] = Path(marker).exists()
            Path(marker).unlink(missing_ok=True)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve(), sys.argv[2])
