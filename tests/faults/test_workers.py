"""Workers that die, hang or run out of memory: the batches are those of a run to which nothing happened."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

from visreg import loader as loaders
from visreg import workers as workers_module
from visreg.batching import Batching
from visreg.data import DataInfo, Dataset
from visreg.errors import DataError, ResourceError
from visreg.loader import SampleLoader
from visreg.workers import RESTARTS, Workers

SIZE = 24


class Fragile(Dataset):
    """Does something bad at one index, until it has done so ``times`` times; all processes count together."""

    info = DataInfo(name="fragile")

    def __init__(self, fault, folder, times=1, index=13):
        self.fault, self.folder, self.times, self.index = fault, folder, times, index

    def open(self): ...

    def __len__(self):
        return SIZE

    def where(self, index):
        return f"photos/{index}.png"

    def __getitem__(self, index):
        if index == self.index and len([*Path(self.folder).iterdir()]) < self.times:
            (Path(self.folder) / str(time.monotonic_ns())).touch()
            self.fault()
        return {"image": torch.rand(1, 2, 2), "label": torch.tensor(index)}


def kill(number):
    os.kill(os.getpid(), number)


FAULTS = {
    "SIGKILL": partial(kill, signal.SIGKILL),
    "SIGTERM": partial(kill, signal.SIGTERM),
    "SIGSEGV": partial(kill, signal.SIGSEGV),
    "SIGBUS": partial(kill, signal.SIGBUS),
    "exit code 3": partial(os._exit, 3),
    "hung for 1 s": partial(time.sleep, 600),
}


def loader(fault=None, folder=None, workers=2, *, times=1, **options):
    dataset = Fragile(fault, folder, times if fault else 0)
    batching = Batching(size=SIZE, batch_size=4, train=True, seed=3)
    options = {"timeout": 1.0 if fault is FAULTS["hung for 1 s"] else 60.0, **options}
    options = {"transforms": [], "device": torch.device("cpu"), "workers": workers, **options}
    return SampleLoader(dataset=dataset, batching=batching, **options)


def batches(made, epochs=(0, 1)):
    return [batch for epoch in epochs for batch in made.epoch(epoch)]


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.fixture(autouse=True)
def watchful(monkeypatch):
    """Look at hung workers more often, so that tests are quick."""
    monkeypatch.setattr(workers_module, "GLANCE", 0.05)


@pytest.fixture
def undisturbed():
    return batches(loader(workers=0, folder="."))


@pytest.mark.parametrize("name", FAULTS)
def test_one_that_dies_or_hangs_is_replaced_and_nothing_else_changes(name, tmp_path, undisturbed, caplog, survived):
    with caplog.at_level(logging.WARNING, "visreg"):
        assert_same(batches(loader(FAULTS[name], tmp_path)), undisturbed)
    survived("workers that die or hang", 1, 1)
    (message,) = caplog.messages
    assert name in message
    assert "fragile[13] (photos/13.png)" in message
    assert "while making batch " in message


@pytest.mark.parametrize("name", ["SIGKILL", "hung for 1 s"])
def test_one_sample_that_never_works_ends_the_run_by_name(name, tmp_path, caplog):
    options = {"timeout": 0.2} if "hung" in name else {}
    with pytest.raises(DataError) as caught:
        batches(loader(FAULTS[name], tmp_path, times=99, **options))
    assert caught.value.exit_code == 3
    assert f", and so did {RESTARTS} others in its place; " in str(caught.value)
    assert "fragile[13] (photos/13.png)" in str(caught.value)
    assert sum("another one makes it again" in message for message in caplog.messages) >= RESTARTS


def test_it_is_not_skipped_in_silence_either(tmp_path):
    with pytest.raises(DataError, match="SIGKILL"):
        batches(loader(FAULTS["SIGKILL"], tmp_path, times=99, on_bad_sample="skip"))


def test_a_bus_error_means_that_shared_memory_is_full(tmp_path):
    with pytest.raises(ResourceError, match=r"SIGBUS .*shared memory \(/dev/shm\) .*; lower workers") as caught:
        batches(loader(FAULTS["SIGBUS"], tmp_path, times=99))
    assert caught.value.exit_code == 6


def no_memory():
    raise RuntimeError("unable to mmap 64 bytes from file </torch_1_2>: Cannot allocate memory (12)")


def too_large():
    raise MemoryError


@pytest.mark.parametrize("fault", [no_memory, too_large])
def test_too_little_memory_in_a_worker_says_what_to_lower(fault, tmp_path):
    with pytest.raises(ResourceError, match="lower workers or batch_size"):
        batches(loader(fault, tmp_path))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_killed_from_outside_at_every_batch_change_nothing(workers, undisturbed, survived):
    made, found = loader(workers=workers, folder="."), []
    for epoch in (0, 1):
        for number, batch in enumerate(made.epoch(epoch)):
            found.append(batch)
            with suppress(ProcessLookupError):  # one that is dead may have left a batch in its pipe
                os.kill(made._pool._workers[number % workers].process.pid, signal.SIGKILL)
    assert_same(found, undisturbed)
    survived("workers killed from outside", len(found), len(undisturbed))


def test_a_signal_for_the_whole_terminal_leaves_workers_alone(undisturbed, caplog):
    handled = []
    before = {number: signal.signal(number, lambda *_: handled.append(os.getpid())) for number in signals()}
    try:
        made, found = loader(folder="."), []
        for batch in made.epoch(0):
            for worker in made._pool._workers:
                for number in signals():
                    os.kill(worker.process.pid, number)
            found.append(batch)
        found += batches(made, (1,))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert_same(found, undisturbed)
    assert caplog.messages == []
    assert handled == []


def signals():
    return signal.SIGINT, signal.SIGHUP, signal.SIGUSR1


class Interrupt(BaseException):
    pass


def test_an_interrupt_while_waiting_leaves_no_worker_behind_and_the_loader_fit(tmp_path, undisturbed):
    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    made = loader(FAULTS["hung for 1 s"], tmp_path, timeout=60)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(Interrupt):
            batches(made)
        assert made._pool._workers == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_same(batches(made), undisturbed)


@pytest.mark.parametrize("left", range(1, 6))
def test_an_epoch_left_early_leaves_nothing_in_the_next(left, undisturbed):
    made = loader(folder=".")
    for _ in zip(range(left), made.epoch(7), strict=False):
        pass
    assert_same(batches(made), undisturbed)


def test_they_go_with_the_loader():
    made = loader(folder=".")
    batches(made)
    processes = [worker.process for worker in made._pool._workers]
    assert all(process.is_alive() for process in processes)
    del made
    assert not any(process.is_alive() for process in processes)


def buggy():
    return {}["missing"]


def test_a_mistake_in_a_dataset_keeps_its_traceback(tmp_path):
    with pytest.raises(KeyError, match="missing") as caught:
        batches(loader(buggy, tmp_path))
    (made, worker) = caught.value.__notes__
    assert made == "while making fragile[13] (photos/13.png)"
    assert worker.startswith("in worker ")
    assert "in buggy" in worker


class OddError(DataError):
    def __init__(self, one, two):
        super().__init__(f"{one}{two}")


class UnsendableError(Exception):
    def __init__(self):
        super().__init__("odd")
        self.stop = lambda: None  # what cannot be pickled


def raise_(error):
    raise error()


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [(UnsendableError, RuntimeError, None), (partial(OddError, "bad ", "luck"), Exception, 3)],
)
def test_errors_that_cannot_be_sent_are_told_all_the_same(error, kind, code, tmp_path):
    with pytest.raises(kind, match=r"odd|bad luck") as caught:
        batches(loader(partial(raise_, error), tmp_path, times=9))
    assert getattr(caught.value, "exit_code", None) == code


def slow(task, begin):
    for index in range(4):
        begin(index)
        time.sleep(0.3)
    return task


def test_it_is_one_sample_that_may_not_take_longer_than_the_timeout():
    assert list(Workers(make=slow, count=1, timeout=0.9, restarts=0).results("ab")) == ["a", "b"]


PLUGIN = """
import torch
from visreg import DATASETS
from visreg.data import DataInfo, Dataset

@DATASETS.register
class Ramp(Dataset):
    info = DataInfo(name="ramp", classes=("a", "b"))
    def __init__(self): self.labels = torch.arange(8) % 2
    def open(self): ...
    def __len__(self): return 8
    def __getitem__(self, index):
        return {"image": torch.rand(1, 28, 28), "label": self.labels[index]}
"""
SPAWNED = """
import multiprocessing, pathlib, sys
import torch
from multiprocessing import resource_sharer
from visreg.batching import Batching
from visreg.loader import SampleLoader
from visreg.plugin_file import load_file
from visreg.registry import DATASETS
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    load_file(pathlib.Path("ramp.py"))
    found = []
    for workers in (0, 1):
        batching = Batching(size=8, batch_size=4, train=True, seed=0)
        loader = SampleLoader(
            dataset=DATASETS.build({"type": "Ramp"}), transforms=[], batching=batching, device=torch.device("cpu"),
            workers=workers,
        )
        found.append([batch["image"] for batch in loader.epoch(0)])
    assert all(map(torch.equal, *found))
    assert resource_sharer._resource_sharer._listener is None  # nor a folder for it
    print("equal")
"""


def mixed(task, begin):
    begin(task)
    return [torch.full((3,), task), torch.nn.Parameter(torch.tensor(7.0 * task))]


def test_they_need_no_folder(tmp_path, monkeypatch):
    """They are killed in the end, and would leave it behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    made = Workers(make=mixed, count=2, context=multiprocessing.get_context("fork"))
    found = [(plain.tolist(), parameter.item()) for plain, parameter in made.results(range(6))]
    assert found == [([task] * 3, 7 * task) for task in range(6)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_plugin_files_dataset_reaches_workers_that_are_not_forked(method, tmp_path):
    (tmp_path / "ramp.py").write_text(PLUGIN)
    (tmp_path / "spawned.py").write_text(SPAWNED)
    root = str(Path(loaders.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "spawned.py", method],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr


FULL = """
mount -t tmpfs -o size=4m tmpfs /dev/shm || exit 77
exec "$0" -c "$1"
"""
LARGE = """
import torch
from tests.faults.test_workers import SIZE, loader
from visreg.errors import ResourceError
def grow(sample):
    return {**sample, "image": torch.zeros(1 << 20)}
made = loader(folder=".", workers=2, transforms=[grow])
try:
    list(made.epoch(0))
except ResourceError as error:
    print(error)
"""


@pytest.mark.slow
def test_shared_memory_that_is_really_full_says_what_to_do():
    root = str(Path(loaders.__file__).parent.parent)
    command = ["unshare", "-m", "sh", "-c", FULL, sys.executable, LARGE]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if "not permitted" in done.stderr or done.returncode == 77:
        pytest.skip("needs the right to mount")
    assert "shared memory (/dev/shm) or another resource ran out; lower workers" in done.stdout, done.stderr


ORPHANS = """
import os, sys, time
import torch
from tests.faults.test_workers import loader
made = loader(folder=".", workers=2)
next(made.epoch(0))
print(*[worker.process.pid for worker in made._pool._workers], flush=True)
time.sleep(60)
"""


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    root = str(Path(loaders.__file__).parent.parent)
    process = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(pids) == 2
    until = time.monotonic() + 20
    while any(running(pid) for pid in pids):
        assert time.monotonic() < until, "workers still run"
        time.sleep(0.05)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
