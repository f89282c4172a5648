"""Learning rates that rise over the first steps, then hold or fall; each moves on after every optimizer step.

The rise is that of Goyal et al., "Accurate, large minibatch SGD", 2017: of ``warmup_steps`` steps the first takes
1 / (warmup_steps + 1) of the base rate, and the step after them all of it. The fall runs from there to ``total_steps``.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class Constant(LRScheduler):
    """Rises over ``warmup_steps``, then holds.

    It scales the rate that it finds, so that it adds a warm-up to another schedule, such as ``StepLR`` by epochs.

    Args:
        optimizer: whose rates to set; given by visreg.
        total_steps: how many steps the run takes; given by visreg.
        warmup_steps: how many steps the rise takes; below 1, it is a share of the run.

    Raises:
        ValueError: if the warm-up is negative or takes the whole run.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: float = 0) -> None:
        self.warmup_steps = _checked(total_steps, warmup_steps)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group for the step that comes."""
        before = _rise(self.last_epoch - 1, self.warmup_steps) if self.last_epoch else 1.0
        return [
            group["lr"] * (_rise(self.last_epoch, self.warmup_steps) / before) for group in self.optimizer.param_groups
        ]


class Linear(LambdaLR):
    """Rises over ``warmup_steps``, then falls along a straight line.

    Args:
        optimizer: whose rates to set; given by visreg.
        total_steps: how many steps the run takes; given by visreg.
        warmup_steps: how many steps the rise takes; below 1, it is a share of the run.
        final: where the fall ends, as a fraction of the base rate, from 0 to 1.
        start: what the rise begins above, likewise.

    Raises:
        ValueError: if the warm-up is negative or takes the whole run, or ``final`` or ``start`` is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: float = 0,
        final: float = 0.0,
        start: float = 0.0,
    ) -> None:
        rise = _checked(total_steps, warmup_steps, final=final, start=start)

        # A function rather than an object: LambdaLR saves an object's attributes, and a run that is resumed for more
        # epochs must follow its new total_steps.
        def factor(step: int) -> float:
            left = 1 - _progress(step, total_steps, rise)
            return _rise(step, rise, start) * (final + (1 - final) * left)

        super().__init__(optimizer, factor)


class Cosine(LambdaLR):
    """Rises over ``warmup_steps``, then falls along half a cosine.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, without restarts.

    Args:
        optimizer: whose rates to set; given by visreg.
        total_steps: how many steps the run takes; given by visreg.
        warmup_steps: how many steps the rise takes; below 1, it is a share of the run.
        final: where the fall ends, as a fraction of the base rate, from 0 to 1.

    Raises:
        ValueError: if the warm-up is negative or takes the whole run, or ``final`` is out of range.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: float = 0, final: float = 0.0) -> None:
        rise = _checked(total_steps, warmup_steps, final=final)

        def factor(step: int) -> float:  # a function, as in Linear
            left = (1 + math.cos(math.pi * _progress(step, total_steps, rise))) / 2
            return _rise(step, rise) * (final + (1 - final) * left)

        super().__init__(optimizer, factor)


def _rise(step: int, warmup_steps: int, start: float = 0.0) -> float:
    """Return the factor of the warm-up, above ``start`` and up to 1."""
    return start + (1 - start) * min(1.0, (step + 1) / (warmup_steps + 1))


def _progress(step: int, total_steps: int, warmup_steps: int) -> float:
    """Return how much of the time after the warm-up is over, from 0 to 1."""
    return min(1.0, max(0, step - warmup_steps) / (total_steps - warmup_steps))


def _checked(total_steps: int, warmup_steps: float, **fractions: float) -> int:
    """Return how many steps the warm-up takes."""
    if total_steps < 1:
        raise ValueError(f"total_steps: must be 1 or more, got {total_steps}")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps: must be 0 or more, got {warmup_steps}")
    if warmup_steps >= total_steps:
        raise ValueError(f"warmup_steps: {warmup_steps} is the whole run of {total_steps} steps; lower it")
    if warmup_steps >= 1 and warmup_steps != int(warmup_steps):
        raise ValueError(f"warmup_steps: must be a number of steps, or a share of the run below 1, got {warmup_steps}")
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: must be a fraction of the base rate, from 0 to 1, got {value}")
    return int(warmup_steps if warmup_steps >= 1 else warmup_steps * total_steps)
