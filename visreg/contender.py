"""A setting at work: its first steps, for which it has a limited time, and its turns."""

from __future__ import annotations

import math
import os
import pickle
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count, repeat
from pathlib import Path
from typing import ClassVar

import torch
from attrs import define, field

from visreg.build import build_trainer
from visreg.candidates import AS_IS, Setting
from visreg.config import Config
from visreg.data import Batch, DataInfo, batch_length, to_device
from visreg.device import find_device
from visreg.errors import ConfigError
from visreg.runner import Runner
from visreg.schedule import Schedule
from visreg.workers import AHEAD

WARMUP = 3  # steps, in the first of which a model may be compiled
SHOWN = 90  # characters of a reason
POLL = 0.05  # seconds


class LateError(Exception):
    """A setting has not begun when its limit is over; unlike a TimeoutError, it is raised by no plugin."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"not within {limit:g} s, which --limit can make longer")


@define(eq=False)
class Contender:
    """A setting, at work.

    Attributes:
        times: seconds of a step, in each round. memory: most bytes of the GPU that a step took.
        reason: why it has no times, if so.
    """

    setting: Setting
    runner: Runner | None = None
    times: list[float] = field(factory=list)
    memory: int = 0
    reason: str = ""
    _batches: Iterator[Batch] = field(factory=lambda: iter(()), repr=False)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Note what goes wrong inside as the reason why this setting cannot run; of the config as it is, raise it."""
        try:
            yield
        except Exception as error:
            if self.setting == AS_IS:
                raise
            self.reason = _reason(error)
            self.runner, self._batches = None, iter(())

    def begin(self, runner: Runner, limit: float = math.inf) -> None:
        """Take the first steps with ``runner``.

        Raises:
            LateError: if they take more seconds than the limit, which is looked at after each.
        """
        started = time.monotonic()
        self.runner = runner
        runner.schedule = Schedule()  # some cannot go on for longer than they were told
        assert runner.optimizer is not None
        for group in runner.optimizer.param_groups:
            group["lr"] = group["lr"] * 0  # a step does all that it does, but for weights that could diverge
        runner.task.train()
        runner.call("before_train")
        runner.wrap()
        self._batches = _endless(runner)
        for _ in range(WARMUP):
            self.take(1)
            if time.monotonic() - started > limit:
                raise LateError(limit)

    def take(self, steps: int) -> float:
        """Return the seconds that a step takes."""
        assert self.runner is not None
        cuda = self.runner.device.type == "cuda"
        before = 0
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        for _ in range(steps):
            self.runner.batch = batch = next(self._batches)
            self.runner.call("before_step")
            self.runner.train_step(batch)
            self.runner.step += 1
            self.runner.call("after_step")
        if cuda:
            torch.cuda.synchronize()
            self.memory = torch.cuda.max_memory_allocated() - before
        return (time.perf_counter() - start) / max(steps, 1)

    @property
    def ahead(self) -> int:
        """How many batches workers may have made while it was the turn of others."""
        return AHEAD * getattr(self.runner and self.runner.train_loader, "workers", 0)

    def close(self) -> None:
        """Let go of workers, and of what hooks hold."""
        self._batches = iter(())
        if self.runner is not None:
            self.runner.call("after_train")

    def ratios(self, reference: Contender) -> list[float]:
        """Return the time that a step takes over that of another, round by round."""
        return [own / other for own, other in zip(self.times, reference.times, strict=True)]

    def ratio(self, reference: Contender) -> float:
        """Return the median of those, or infinity where it cannot run."""
        return statistics.median(self.ratios(reference)) if self.times and not self.reason else float("inf")


def _endless(runner: Runner) -> Iterator[Batch]:
    """Yield the batches of one epoch after another, but for a last one that is smaller: it would be compiled for."""
    assert runner.train_loader is not None
    for epoch in count():
        size = 0
        for batch in runner.train_loader.epoch(epoch):
            size = size or batch_length(batch)
            if batch_length(batch) == size:
                yield batch


def _reason(error: Exception) -> str:
    """Return why a setting has no times, in one line."""
    if isinstance(error, LateError):
        return str(error)
    kind = type(error).__name__
    said = error.problems[0].message if isinstance(error, ConfigError) else f"{kind}: {error}"
    return f"cannot run here: {said.strip().splitlines()[0].removesuffix(':')[:SHOWN]}"


@define(kw_only=True, eq=False)
class OneBatch:
    """A loader that gives one batch for ever, with which a model is compiled where there is no data.

    Attributes:
        batches: how many there are to seem to be in an epoch.
    """

    waits: ClassVar[bool] = False
    info: DataInfo
    batch: Batch
    batch_size: int
    samples: int
    batches: int

    @classmethod
    def of(cls, runner: Runner) -> OneBatch:
        """Return the batch that a runner has had last, on the CPU."""
        loader, batch = runner.train_loader, to_device(runner.batch, torch.device("cpu"))
        assert loader is not None
        sizes = {"batch_size": loader.batch_size, "samples": loader.samples, "batches": len(loader)}
        return cls(info=loader.info, batch=batch, **sizes)

    def __len__(self) -> int:
        return self.batches

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batch, as often as an epoch has batches."""
        yield from repeat(self.batch, self.batches - start)


def rehearse(config: Config, plugin_files: Collection[Path], loader: OneBatch, limit: float) -> None:
    """Take the first steps of a config in a process of its own, which can be ended whatever it is doing.

    What it has compiled is then in the compiler's cache, and need not be compiled again. Why it failed, if it did, is
    left to be seen when they are taken here.

    Raises:
        LateError: if they take more seconds than the limit; nothing that was started for them goes on.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from visreg.contender import rehearsal; rehearsal()"
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
    )
    assert process.stdin is not None
    deadline = time.monotonic() + limit
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps((config, [*plugin_files], loader)))
            process.stdin.flush()
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise LateError(limit)
            time.sleep(POLL)
    finally:
        with suppress(ProcessLookupError, PermissionError):  # nothing goes on, or on macOS only what has ended
            os.killpg(process.pid, signal.SIGKILL)  # whose number is not given anew while any of the group goes on
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()


def rehearsal() -> None:
    """Take first steps, as the process that `rehearse` has started does; end at once if that one does."""
    config, plugin_files, loader = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    device = find_device(config.values["run"].get("device", "auto"))
    loader.batch = to_device(loader.batch, device)
    Contender(AS_IS).begin(build_trainer(config, plugin_files, loader))


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing comes until the other end is closed; a read of `sys.stdin` would hold its lock,
        pass  # without which Python cannot end
    os.killpg(os.getpgrp(), signal.SIGKILL)
