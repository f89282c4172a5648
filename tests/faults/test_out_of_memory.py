"""Too little memory, memory that leaks, and algorithms that are not deterministic though they are asked to be."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from pathlib import Path

import pytest
import torch
from tiny import LinearTask, TinyTask, assert_same, at, snapshot, tiny_loader, tiny_runner

from tests.conftest import SMALL
from visreg import cli, dist
from visreg.checkpoint import resume
from visreg.errors import ResourceError, out_of_memory
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.console import Console
from visreg.hooks.ema import EMA
from visreg.hooks.metrics_log import MetricsLog

CPU_ALLOCATOR = (
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 40 bytes. Error code 12"
)
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError(),
    RuntimeError(CPU_ALLOCATOR),
]


class Hungry(LinearTask):
    """Has no memory for more than so many samples at a time."""

    def __init__(self, room, error=ERRORS[0], place="forward"):
        super().__init__()
        self.room, self.error, self.place, self.calls = room, error, place, []
        self.model.weight.register_hook(lambda gradient: self._eat("backward"))

    def _eat(self, place):
        if place == self.place and self.calls[-1] > self.room:
            raise type(self.error)(*self.error.args)

    def forward(self, batch):
        self.calls.append(len(batch["label"]))
        big = torch.zeros(1)
        HELD.append(weakref.ref(big))  # as an activation is: the traceback holds this frame
        self._eat("forward")
        return super().forward(batch)


HELD = []


def runner_of(task, *hooks, work_dir=Path("unused"), **options):
    for parameter in task.parameters():
        torch.nn.init.uniform_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    options.setdefault("train_loader", tiny_loader(train=True, batch_size=10))
    return tiny_runner(work_dir, hooks, task=task, eval_steps=0, total_steps=4, **options)


def first_gradients(task, **options):
    seen = {}

    def look(runner):
        if runner.step == 0:
            seen.update({name: parameter.grad.clone() for name, parameter in runner.task.named_parameters()})
            seen.update(runner.losses)

    runner = runner_of(task, at(after_backward=look), **options)
    runner.train()
    return seen, runner


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize(("room", "parts"), [(9, 2), (5, 2), (4, 4), (3, 4), (2, 8), (1, 10)])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_too_large_is_cut_until_it_fits_with_equal_gradients(caplog, error, room, parts, place):
    whole, _ = first_gradients(LinearTask())
    cut, runner = first_gradients(Hungry(room, error, place))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-6, atol=1e-6, msg=name)
    assert runner.accumulate == parts
    assert runner.step == 4
    assert f"set run.accumulate={parts}" in caplog.text
    assert runner.task.calls.count(10) == 1  # it is known from then on


def test_a_cut_in_the_middle_of_a_batch_starts_it_anew():
    """Some parts have been added to gradients and losses by then."""

    class Later(Hungry):
        def _eat(self, place):
            if place == "forward" and self.calls == [5, 5]:
                raise self.error

    whole, _ = first_gradients(LinearTask())
    cut, runner = first_gradients(Later(0), accumulate=2)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-6, atol=1e-6, msg=name)
    assert runner.accumulate == 4


def test_the_retry_holds_no_memory_of_the_first_try():
    HELD.clear()
    alive = []

    class Watching(Hungry):
        def forward(self, batch):
            if self.calls == [10]:
                alive.extend(reference() for reference in HELD)
            return super().forward(batch)

    gc.disable()
    try:
        runner_of(Watching(5, torch.OutOfMemoryError("out of memory"))).train()
    finally:
        gc.enable()
    assert alive == [None]


def test_batch_norm_forgets_the_parts_that_were_tried():
    class Once(TinyTask):
        tried = False

        def forward(self, batch):
            losses = super().forward(batch)
            if not self.tried:
                self.tried = True
                raise torch.OutOfMemoryError("out of memory")
            return losses

    runner = tiny_runner(task=Once, total_steps=1, eval_steps=0)
    runner.train()
    assert runner.task.model[1].num_batches_tracked == 2


def test_one_sample_too_many_is_an_error_that_says_what_to_lower():
    with pytest.raises(ResourceError, match="step 1: out of memory even for one sample at a time; use smaller images"):
        runner_of(Hungry(0)).train()
    assert ResourceError.exit_code == 6


def test_one_of_several_processes_does_not_try_again(monkeypatch):
    runner = runner_of(Hungry(3))
    runner.step = 3
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    with pytest.raises(
        ResourceError, match=r"step 4: out of memory; set run\.accumulate=2, or lower train\.batch_size"
    ):
        runner._step._cut_smaller(runner, next(iter(runner.train_loader.epoch(0))))


def test_another_error_is_none_of_memory():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        runner_of(Hungry(5, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))).train()
    assert not out_of_memory(ValueError("out of memory"))
    assert not out_of_memory(None)


def test_how_a_batch_is_cut_is_kept_in_the_checkpoint(tmp_path):
    runner_of(Hungry(3), Checkpoint(), work_dir=tmp_path).train()
    again = runner_of(Hungry(3), work_dir=tmp_path)
    again.load_state_dict(resume(tmp_path / "checkpoints"))
    assert again.accumulate == 4
    more = runner_of(Hungry(3), work_dir=tmp_path, accumulate=5)
    more.load_state_dict(resume(tmp_path / "checkpoints"))
    assert more.accumulate == 5


def test_a_run_that_was_cut_ends_as_one_that_was_cut_from_the_start():
    cut, known = runner_of(Hungry(3)), runner_of(Hungry(3), accumulate=4)
    for runner in (cut, known):
        runner.train()
    assert_same(snapshot(cut)["task"], snapshot(known)["task"])
    assert_same(snapshot(cut)["optimizer"], snapshot(known)["optimizer"])


# Algorithms

UNPOOL = """
from torch import nn
from visreg import MODELS

@MODELS.register
class Unpool(nn.Module):
    "Pools and unpools."

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.linear = nn.Linear(784, num_classes)

    def forward(self, image):
        return self.linear(self.unpool(*self.pool(image)).flatten(1))
"""


@pytest.mark.usefixtures("apart")
def test_an_operation_without_a_deterministic_algorithm_is_named_with_its_layer(tmp_path, capsys):
    (tmp_path / "unpool.py").write_text(UNPOOL)
    config = SMALL.replace("MLP", "Unpool").replace(", in_channels=1, image_size=28", "").replace(", widths=[16]", "")
    config += "plugins = ['./unpool.py']\nrun.update(work_dir='run', steps=2, epochs=None, device='cpu')\n"
    (tmp_path / "config.py").write_text(config)
    for deterministic, code in ((True, 2), (False, 0)):  # and the second run is not bound by the first
        with pytest.raises(SystemExit) as caught:
            cli.main(["train", "config.py", "--set", f"run.deterministic={deterministic}"])
        assert caught.value.code == code
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        if code:
            told = capsys.readouterr().err
            assert "run.deterministic: max_unpooling2d_forward_out, in model.unpool (MaxUnpool2d), has no det" in told
            assert "Traceback" not in told


# Leaks


def resources():
    status = Path("/proc/self/status").read_text()
    memory = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    return memory, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counted as Linux does")
def test_thousands_of_steps_leak_nothing(tmp_path, caplog):
    """Less than 1 KiB a step, after a first part in which allocators fill their pools."""
    caplog.set_level(logging.CRITICAL)
    found = {}

    def count(runner):
        if runner.step in (4000, 8000):
            gc.collect()
            found[runner.step] = resources()

    hooks = [EMA(), MetricsLog(every=10), Console(), at(between_steps=count), Checkpoint(every=100)]
    runner = tiny_runner(tmp_path, hooks, epochs=1600, train_loader=tiny_loader(train=True), eval_steps=50)
    runner.train()
    (memory, files, threads), (more_memory, more_files, more_threads) = found[4000], found[8000]
    assert more_memory - memory < 4000
    assert (more_files, more_threads) == (files, threads)
