"""One optimizer step: forward, backward, a look at what came out, and the optimizer's own step."""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from visreg import dist
from visreg.data import Batch, batch_length, split
from visreg.errors import ResourceError, out_of_memory
from visreg.finite import FiniteCheck
from visreg.phase import phase

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


@define(eq=False)
class Step:
    """Takes the optimizer steps of a runner, and holds what a training needs for it beyond the runner's own state.

    Attributes:
        finite: looks at every loss and gradient before the optimizer does.
    """

    finite: FiniteCheck
    _forward: Callable[[Batch], dict[str, Tensor]]
    _no_sync: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, init=False)

    @classmethod
    def of(cls, runner: Runner) -> Step:
        """Return what takes the steps of ``runner``, before its first."""
        return cls(FiniteCheck.of(runner), runner.task)

    def wrap(self, runner: Runner) -> None:
        """Join the task to the other processes' and compile it; to be done anew whenever other parameters train."""
        self.unwrap(runner)
        module: nn.Module = runner.task
        if dist.world_size() > 1:
            module = DistributedDataParallel(
                module, device_ids=[runner.device] if runner.device.type == "cuda" else None
            )
            self._no_sync = module.no_sync
        if runner.compile:  # without a GPU it would warn of a CUDA that is installed, and not wanted
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        mode = runner.compile if isinstance(runner.compile, str) else None
        self._forward = torch.compile(module, mode=mode) if runner.compile else module

    def unwrap(self, runner: Runner) -> None:
        """Free the wrapper, its hooks on the parameters, and what it holds of the process group."""
        self._forward, self._no_sync = runner.task, nullcontext

    def take(self, runner: Runner, batch: Batch) -> None:
        """Take one step on ``batch``."""
        optimizer, scaler = runner.optimizer, runner.scaler
        assert optimizer is not None, "a runner that trains is built with an optimizer"
        self.finite.before_step(runner.task)
        while not self.gradients(runner, batch):
            self._cut_smaller(runner, batch)
        scaler.unscale_(optimizer)
        runner.call("after_backward")
        with phase("optimizer"):
            self.finite.check(runner, batch)
            scaler.step(optimizer)
            scaler.update()
            drop_gradients(optimizer)

    def gradients(self, runner: Runner, batch: Batch) -> bool:
        """Add those of ``batch`` to the gradients, and set the losses; return whether there was memory for it."""
        *others, last = split(batch, runner.accumulate)
        runner.losses = {}
        try:
            for part, share in others:
                with self._no_sync():
                    self._backward(runner, part, share)
            self._backward(runner, *last)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            logger.warning("step %d: %s", runner.step + 1, (str(error) or "out of memory").splitlines()[0])
            return False  # and let go of the error, whose traceback holds the memory
        return True

    def _backward(self, runner: Runner, part: Batch, share: float) -> None:
        """Add to the gradients, and to the losses, ``share`` of those of a part of the batch."""
        with phase("forward"), runner.autocast():
            losses = self._forward(part)
            loss = functools.reduce(operator.add, losses.values())
        scaled = runner.scaler.scale(loss if share == 1 else loss * share)
        with phase("backward"):
            scaled.backward()  # type: ignore[no-untyped-call]  # torch's
        for name, value in losses.items():
            value = value.detach() if share == 1 else value.detach() * share
            if runner.compile and share == 1:
                value = value.clone()  # a CUDA graph's next run overwrites what this one gave
            runner.losses[name] = runner.losses[name] + value if name in runner.losses else value

    def _cut_smaller(self, runner: Runner, batch: Batch) -> None:
        """Make ready to try ``batch`` again in twice as many parts, for which there may be memory.

        The gradients are the same; but batch norm normalises each part by itself, so that its statistics are of fewer
        samples than before.

        Raises:
            ResourceError: if each part is a single sample already, or there are other processes, which would not wait.
        """
        assert runner.optimizer is not None
        size, step = batch_length(batch), runner.step + 1
        if dist.world_size() > 1:
            advice = f"set run.accumulate={min(2 * runner.accumulate, size)}, or lower train.batch_size"
            raise ResourceError(f"step {step}: out of memory; {advice}")
        if runner.accumulate >= size:
            advice = "use smaller images or a smaller model, or free some memory"
            raise ResourceError(f"step {step}: out of memory even for one sample at a time; {advice}")
        runner.accumulate = parts = min(2 * runner.accumulate, size)
        drop_gradients(runner.optimizer)
        self.finite.restore()
        if runner.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("each batch is now cut into %d parts; set run.accumulate=%d", parts, parts)


def drop_gradients(optimizer: Optimizer) -> None:
    """Do what ``Optimizer.zero_grad`` does, without its entry in a profile, which takes twenty times as long."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
