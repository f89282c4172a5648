"""Gives hostile files to visreg, and tells what came of each, as lines of JSON.

``python hostile_run.py FOLDER '{"pickles": 1}'`` imports all there is, forks processes that take some files each, and
watches them with an audit hook, which nothing can take off.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hostile
import torch
from tiny import tiny_config

from visreg.build import build_runner
from visreg.checkpoint import load, save
from visreg.cli import main
from visreg.errors import VisregError

MEMORY = 2 << 30  # bytes that a process may have beyond what it begins with, so that this machine survives
SECONDS = 300
GROUP = 25  # files that share a process
Ways = list[Callable[[Path], None]]
LIBRARIES = tuple({str(Path(module.__file__).parents[1]) for module in (torch, os, contextlib)})
PACKAGES = ("torch", "torchvision", "visreg", "numpy", "rich", "attr", "encodings", "hostile", "mpl_toolkits")
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.putenv", "os.chmod",
    "os.chown", "os.startfile", "subprocess.", "socket.__new__", "socket.connect", "socket.bind",
    "socket.getaddrinfo", "socket.sendto", "pty.", "ctypes.", "pickle.", "webbrowser.",
    "urllib.", "shutil.", "code.__new__", "function.__new__", "sys.set", "signal.", "builtins.breakpoint",
    "cpython.run",
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


def resident(kind: str) -> int:
    """Return how many bytes this process has in memory, ``VmRSS``, or had at most, ``VmHWM``."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{kind}:")[2].split()[0]) * 1024


def tried(way: Callable[[Path], None], path: Path, watch: Watch, marker: Path) -> dict[str, Any]:
    """Return what came of a file: the exit code, what was printed, and what was noted."""
    code, trace, text = 0, "", io.StringIO()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # begin VmHWM anew
    before, memory = resource.getrusage(resource.RUSAGE_SELF), resident("VmRSS")
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
    executed = marker.exists()
    marker.unlink(missing_ok=True)
    printed = text.getvalue()
    return {"way": way.__name__, "code": code, "trace": trace, "events": events, "executed": executed,
            "seconds": seconds, "memory": resident("VmHWM") - memory, "length": len(printed),
            "printed": printed[-600:]}  # fmt: skip


def forked(what: str, group: Sequence[tuple[str, bytes, Ways]], path: Path, watch: Watch, marker: Path) -> None:
    """Try some files in a process of their own, and print what came of each."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        if status:
            print(
                json.dumps({"kind": what, "name": f"one of {[name for name, *_ in group]}", "died": status}), flush=True
            )
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for name, data, ways in group:
        path.write_bytes(data)
        for way in ways:
            print(json.dumps({"kind": what, "name": name, **tried(way, path, watch, marker)}), flush=True)
    os._exit(0)


def files(what: str, entrances: Entrances, marker: str) -> Iterator[tuple[str, bytes, Ways]]:
    """Yield each hostile file of a kind, and the ways that it is to go."""
    to_use = [entrances.test, entrances.resume]
    state = entrances.good() if what != "configs" else {}
    evil = str(entrances.folder / "evil.py")
    if what == "pickles":
        for number, (name, data) in enumerate(hostile.pickles(marker)):  # `load` comes first in all of them
            yield name, data, [entrances.load, entrances.test] if number % 20 else [entrances.load, *to_use]
    elif what == "states":
        for name, changed in hostile.states(state):
            yield name, hostile.written(changed), [*to_use, entrances.override]
    elif what == "embedded":
        for name, text in hostile.configs(entrances.config, marker, evil):
            yield name, hostile.written({**state, "config": text}), to_use
    elif what == "configs":
        for name, text in hostile.configs(entrances.config, marker, evil):
            yield name, text.encode("utf-8", "surrogatepass"), [entrances.config_file]


def run(folder: Path, kinds: dict[str, int]) -> None:
    """Try the files of some kinds, one in so many of each."""
    torch.set_num_threads(1)
    (folder / "work").mkdir()
    os.chdir(folder)
    marker = folder / "executed"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    entrances = Entrances(folder)
    good, config = folder / "good.pt", folder / "config.json"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        save(entrances.good(), good)
        for way in (entrances.test, entrances.resume):  # so that all is imported
            with contextlib.suppress(SystemExit):
                way(good)
    watch = Watch(folder)
    ways = [entrances.load, entrances.test, entrances.resume]
    for what, part in kinds.items():
        harmless = ("nothing hostile", good.read_bytes(), ways)
        if what == "configs":
            harmless = ("nothing hostile", config.read_bytes(), [entrances.config_file])
        path = folder / ("hostile.json" if what == "configs" else "hostile.pt")
        every = itertools.chain([harmless], itertools.islice(files(what, entrances, str(marker)), 0, None, part))
        while group := [*itertools.islice(every, GROUP)]:
            forked(what, group, path, watch, marker)


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve(), json.loads(sys.argv[2]))
