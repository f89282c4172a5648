"""A run that is killed while it saves, or whose machine loses power then, has a whole checkpoint and loses nothing."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from attrs import define, field
from lives import KILLED, POINTS, STEPS, new_runner
from tiny import assert_same

from visreg import faults, whole_file
from visreg.checkpoint import load, newest
from visreg.errors import CheckpointError
from visreg.whole_file import remove_torn

BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["at once", "in a thread"])


def best_score(state):
    return next(item["state"]["best_score"] for item in state["hooks"] if item["type"] == "Checkpoint")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, lives):
    work_dir = tmp_path_factory.mktemp("unbroken")
    assert lives.run("live", work_dir, False) == 0
    return torch.load(work_dir / "end.pt"), (work_dir / "metrics.jsonl").read_bytes()


@BOTH
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point_of_every_save(tmp_path, lives, unbroken, survived, point, asynchronous):
    folder, killed, whole = tmp_path / "checkpoints", 0, 0
    for step in range(1, STEPS + 1):
        if lives.run("live", tmp_path, asynchronous, point, step) == KILLED:
            killed += 1
            steps = newest(folder)
            assert len(steps) <= 2
            assert all(load(path) for path in folder.glob("*.pt"))
            whole += bool(steps) or step == 1
    assert lives.run("live", tmp_path, asynchronous) == 0
    assert_same(torch.load(tmp_path / "end.pt"), unbroken[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == unbroken[1]
    assert sorted(path.name for path in folder.iterdir()) == ["best.pt", f"step_{STEPS:08d}.pt"]
    assert killed >= (1 if point == "save:linked" else STEPS - 1)  # not each is the best, nor prunes another
    survived("killed at a named point of a save", whole, killed)


@pytest.mark.slow
def test_killed_at_random_moments_with_other_workers_in_each_life(tmp_path_factory, lives, survived):
    """Set VISREG_KILLED_RUNS for another number of runs than 100, and VISREG_SEED for other moments."""
    draw = random.Random(int(os.environ.get("VISREG_SEED", "0")))
    runs = int(os.environ.get("VISREG_KILLED_RUNS", "100"))
    for _ in range(2):  # the second is the faster
        whole = tmp_path_factory.mktemp("whole")
        before = time.monotonic()
        assert lives.run("live_with_workers", whole, 0) == 0
        duration = time.monotonic() - before
    same = killed = 0
    for _ in range(runs):
        work_dir = tmp_path_factory.mktemp("killed")
        for _ in range(draw.randint(1, 3)):
            moment = draw.uniform(0, 0.8) * duration
            killed += lives.run("live_with_workers", work_dir, draw.choice([0, 1, 2, 4]), kill_after=moment) == -9
        assert lives.run("live_with_workers", work_dir, draw.choice([0, 1, 2, 4])) == 0
        assert_same(end_of(work_dir), end_of(whole))
        assert (work_dir / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
        same = killed
        shutil.rmtree(work_dir)
    survived(f"SIGKILL at a random moment of one of {runs} runs", same, killed)


def end_of(work_dir):
    """Return the state that a run ended with, without the config, which names the folder and the workers."""
    return {name: value for name, value in torch.load(work_dir / "end.pt").items() if name != "config"}


def test_a_temporary_file_that_a_living_process_writes_is_left_alone(tmp_path):
    with whole_file.whole_file(tmp_path / "a") as file:
        file.write(b"whole")
        (tmp_path / ".visreg-0.tmp").touch()
        (tmp_path / ".visreg-1.tmp").symlink_to("elsewhere")
        assert len(list(tmp_path.iterdir())) == 3
        remove_torn(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_planted_file_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_file.os, "urandom", lambda size: b"g" * size)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".visreg-6767676767676767.tmp").symlink_to("precious")
    with pytest.raises(FileExistsError), whole_file.whole_file(tmp_path / "a") as file:
        file.write(b"x")
    (tmp_path / "b").symlink_to("precious")
    monkeypatch.undo()
    with whole_file.whole_file(tmp_path / "b") as file:
        file.write(b"x")
    assert (tmp_path / "precious").read_text() == "precious"


# Power loss: what a disk may hold after one, worked out from a log of all that was asked of it.


@define(eq=False)
class File:
    """What was written to a file, and how much of it has been flushed."""

    content: bytearray = field(factory=bytearray)
    flushed: int = 0

    def survivors(self):
        """Return what may be left of it: what was flushed, and any of the rest, or zeros in its place."""
        sizes = {self.flushed, (self.flushed + len(self.content)) // 2, len(self.content)}
        lost = bytes(self.content[: self.flushed]) + bytes(len(self.content) - self.flushed)
        return {bytes(self.content[:size]) for size in sizes} | {lost}


@define(eq=False)
class Disk:
    """A folder as a power failure would leave it, whenever it comes.

    Flushed content stays. Changes of names that were not flushed, by fsync of the folder, may each be there or not,
    as file systems are free to write them in any order.
    """

    flushed: dict[str, File] = field(factory=dict)
    pending: list[tuple] = field(factory=list)
    open: dict[int, File] = field(factory=dict)
    log: list[str] = field(factory=list)
    states: set[frozenset] = field(factory=set)
    lock: threading.RLock = field(factory=threading.RLock)

    def note(self, what: str) -> None:
        self.log.append(what)
        for chosen in itertools.product([False, True], repeat=len(self.pending)):
            names = dict(self.flushed)
            for change, kept in zip(self.pending, chosen, strict=True):
                if kept:
                    apply(names, change)
            kept_names = [(name, file) for name, file in names.items() if name.endswith(".pt")]
            for contents in itertools.product(*(file.survivors() for _, file in kept_names)):
                self.states.add(frozenset(zip((name for name, _ in kept_names), contents, strict=True)))

    def now(self) -> dict[str, File]:
        names = dict(self.flushed)
        for change in self.pending:
            apply(names, change)
        return names


def apply(names, change):
    """Make a change of names: ``(file, its old name, its new name)``, of which either may be none."""
    file, old, new = change
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = file


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Log what is done to files in ``tmp_path/checkpoints``."""
    disk, folder = Disk(), tmp_path / "checkpoints"
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "close", "replace", "link", "unlink")}
    folders = set()

    def inside(path):
        return not isinstance(path, int) and Path(path).parent == folder

    def logged(function):
        def call(*arguments, **options):
            with disk.lock:
                return function(*arguments, **options)

        return call

    def open_(path, flags, *rest, **options):
        descriptor = real["open"](path, flags, *rest, **options)
        if flags & os.O_CREAT and inside(path):
            disk.open[descriptor] = File()
            disk.pending.append((disk.open[descriptor], None, Path(path).name))
            disk.note("open")
        elif not isinstance(path, int) and Path(path) == folder:
            folders.add(descriptor)
        return descriptor

    def write(descriptor, data):
        count = real["write"](descriptor, data)
        if descriptor in disk.open:
            disk.open[descriptor].content += bytes(data[:count])
            disk.note("write")
        return count

    def fsync(descriptor):
        real["fsync"](descriptor)
        if descriptor in disk.open:
            disk.open[descriptor].flushed = len(disk.open[descriptor].content)
            disk.note("fsync")
        elif descriptor in folders:
            disk.flushed, disk.pending = disk.now(), []
            disk.note("fsync folder")

    def close(descriptor):
        disk.open.pop(descriptor, None)
        folders.discard(descriptor)
        real["close"](descriptor)

    def change(name, old, new):
        disk.pending.append((disk.now()[Path(old).name], old and Path(old).name, new and Path(new).name))
        disk.note(name)

    def replace(old, new):
        real["replace"](old, new)
        if inside(new):
            change("rename", old, new)

    def link(old, new, **options):
        real["link"](old, new, **options)
        if inside(new):
            disk.pending.append((disk.now()[Path(old).name], None, Path(new).name))
            disk.note("link")

    def unlink(path, **options):
        real["unlink"](path, **options)
        if inside(path) and Path(path).name in disk.now():
            change("unlink", path, None)

    ours = {"open": open_, "write": write, "fsync": fsync, "close": close, "replace": replace, "link": link}
    for name, function in {**ours, "unlink": unlink}.items():
        monkeypatch.setattr(os, name, logged(function))
    return disk


def is_whole(content, path, known={}):  # noqa: B006  a cache
    if content not in known:
        path.write_bytes(content)
        try:
            load(path)
            known[content] = True
        except CheckpointError:
            known[content] = False
    return known[content]


def score_of_newest(names, path):
    content = max((name, content) for name, content in names if name.startswith("step"))[1]
    path.write_bytes(content)
    return best_score(load(path))


@BOTH
def test_power_loss_at_any_moment(tmp_path, disk, monkeypatch, survived, asynchronous):
    first = []

    def inject(point):
        if point == "prune:before" and not first:
            disk.states.clear()
            disk.note("the first is complete")
            first.append(point)

    monkeypatch.setattr(faults, "inject", inject)
    runner = new_runner(tmp_path, asynchronous, total_steps=4)
    runner.train()
    monkeypatch.undo()
    whole = sum(
        any(name.startswith("step") for name, _ in names)
        and (score_of_newest(names, tmp_path / "state.pt") is None or "best.pt" in dict(names))
        and all(is_whole(content, tmp_path / "state.pt") for _, content in names)
        for names in disk.states
    )
    survived("power lost while saving", whole, len(disk.states))


@pytest.mark.parametrize("forgotten", ["fsync", "fsync folder"])
def test_the_model_of_power_loss_finds_what_a_careless_save_risks(tmp_path, disk, monkeypatch, forgotten):
    careful = os.fsync
    if forgotten == "fsync":
        monkeypatch.setattr(os, "fsync", lambda number: None if number in disk.open else careful(number))
    else:
        monkeypatch.setattr(whole_file, "sync_folder", lambda folder: None)
        monkeypatch.setattr("visreg.checkpoint.sync_folder", lambda folder: None)
    new_runner(tmp_path, asynchronous=False, total_steps=3).train()
    monkeypatch.undo()
    bad = [
        names
        for names in disk.states
        if not all(is_whole(content, tmp_path / "state.pt") for _, content in names)
        or {name for name, _ in names} == {"best.pt"}
    ]
    assert bad


@BOTH
def test_the_order_of_every_save(tmp_path, disk, monkeypatch, asynchronous):
    new_runner(tmp_path, asynchronous, total_steps=4).train()
    monkeypatch.undo()
    saves = " ".join(disk.log).split("open ")[1:]
    plain = [step.replace("write ", "").strip() for step in saves]
    end = "fsync rename fsync folder{}{}"
    assert plain[0] == end.format("", "")
    for step in plain[1:]:
        assert step in {end.format(best, " unlink") for best in ("", " link rename fsync folder")}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_system_sees_that_order_too(tmp_path):
    code = f"from pathlib import Path; import lives; lives.live(Path({str(tmp_path)!r}), True)"
    trace = tmp_path / "trace"
    calls = "fsync,rename,renameat,renameat2,unlink,unlinkat,openat,close"
    here = Path(__file__).parent
    subprocess.run(
        ["strace", "-f", "-y", "-e", f"trace={calls}", "-o", trace, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        timeout=300, check=True,
    )  # fmt: skip
    seen = []
    for line in trace.read_text().splitlines():
        if "checkpoints" not in line or "resumed" in line:
            continue
        if "fsync(" in line:
            seen.append("folder" if line.partition("(")[2].split(">")[0].endswith("/checkpoints") else "file")
        elif "rename" in line:
            seen.append("rename")
        elif "unlink" in line and ".visreg" not in line:
            seen.append("prune")
    assert seen.count("file") == STEPS
    saves = " ".join(seen).split("file ")[1:]
    assert saves[0].strip() == "rename folder"
    assert {save.strip() for save in saves[1:]} <= {"rename folder prune", "rename folder rename folder prune"}
