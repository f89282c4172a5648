"""Averages the weights over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import define, field
from attrs.validators import ge, instance_of, lt

from visreg.hooks.averaging import Averaging

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class EMA(Averaging):
    """Keeps an exponential moving average of the weights and evaluates with it.

    After each step, ``average = decay * average + (1 - decay) * weights``, from the initial weights on; buffers in
    floating point, such as running statistics, are averaged as well, and those in integers copied. (Polyak & Juditsky
    1992; the warm-up is that of TensorFlow's ``ExponentialMovingAverage(num_updates=…)``.)

    Args:
        decay: how much of the average is kept at each step, from 0 to below 1.
        warmup: let the decay grow as ``(1 + step) / (10 + step)`` towards ``decay``, so that the first weights, which
            are random, are soon forgotten. Without it, fewer than some ``5 / (1 - decay)`` steps score badly.
    """

    decay: float = field(default=0.999, validator=[ge(0), lt(1)])
    warmup: bool = field(default=True, validator=instance_of(bool))

    def decay_at(self, step: int) -> float:
        """Return the decay of the optimizer step number ``step``, from 1."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def after_step(self, runner: Runner) -> None:
        if self._floats[0]:
            torch._foreach_lerp_(*self._floats, 1 - self.decay_at(runner.step))
        if self._others[0]:
            torch._foreach_copy_(*self._others)
