"""Slow weights that follow the trained ones, and take them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import define, field
from attrs.validators import ge, gt, instance_of, le

from visreg.hooks.averaging import Averaging

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class Lookahead(Averaging):
    """Keeps slow weights, which every few steps go part of the way to the trained ones and replace them.

    Every ``every`` steps ``slow = slow + alpha * (weights - slow)`` and ``weights = slow``, from the initial weights
    on; running statistics in floating point likewise. Evaluations use the slow weights.

    Source: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, arXiv:1907.08610. With ``power``
    it follows the trained weights closely at first, as in Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
    2024, arXiv:2404.00498, where ``alpha`` is 0.23 and ``power`` 3.

    Args:
        every: how many steps the trained weights take before the slow ones follow.
        alpha: how much of the way these go, above 0 and at most 1.
        power: 0 for ``alpha`` all the time; else they go ``1 - (1 - alpha) * share ** power`` of the way, where
            ``share`` is how much of the run is over: all of it at the start, and ``alpha`` at the end.
    """

    every: int = field(default=5, validator=[instance_of(int), ge(1)])
    alpha: float = field(default=0.5, validator=[gt(0), le(1)])
    power: float = field(default=0.0, validator=ge(0))

    def alpha_at(self, share: float) -> float:
        """Return how much of the way the slow weights go, where ``share`` of the run is over."""
        return 1 - (1 - self.alpha) * float(share**self.power)

    @torch.no_grad()
    def after_step(self, runner: Runner) -> None:
        if runner.step % self.every:
            return
        if self._floats[0]:
            slow, weights = self._floats
            torch._foreach_lerp_(slow, weights, self.alpha_at(runner.step / runner.total_steps))
            torch._foreach_copy_(weights, slow)
        if self._others[0]:
            torch._foreach_copy_(*self._others)
