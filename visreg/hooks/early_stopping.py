"""Stops a run that no longer improves."""

from __future__ import annotations

import logging
import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field
from attrs.validators import and_, ge, in_, instance_of, min_len, optional
from torch import Tensor

from visreg.hook import Hook
from visreg.hooks.readings import monitored

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


@define(kw_only=True, eq=False)
class EarlyStopping(Hook):
    """Stops once a score has not improved for ``patience`` evaluations in a row.

    A score that is NaN is never an improvement. A run that was stopped, and is resumed, stops at once.

    Args:
        monitor: the name of the score, such as ``"accuracy"``.
        mode: whether ``"max"`` or ``"min"`` is better.
        patience: how many evaluations to wait for an improvement, from 1.
        min_delta: an improvement is more than this, in the score's own unit.
    """

    monitor: str = field(validator=and_(instance_of(str), min_len(1)))
    mode: Literal["max", "min"] = field(default="max", validator=in_(("max", "min")))
    patience: int = field(default=5, validator=[instance_of(int), ge(1)])
    min_delta: float = field(default=0.0, validator=ge(0))
    best: float | None = field(default=None, init=False, validator=optional(instance_of((Real, Tensor))))
    waited: int = field(default=0, init=False, validator=instance_of(int))

    def monitors(self) -> tuple[str, ...]:
        return (self.monitor,)

    def before_train(self, runner: Runner) -> None:
        self._stop_if_due(runner)

    def after_eval(self, runner: Runner) -> None:
        score = monitored(runner, self.monitor, "EarlyStopping")
        if self._improves(score):
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        self._stop_if_due(runner)

    def _improves(self, score: float) -> bool:
        if math.isnan(score) or self.best is None:
            return not math.isnan(score)
        gain = score - self.best if self.mode == "max" else self.best - score
        return gain > self.min_delta

    def _stop_if_due(self, runner: Runner) -> None:
        if self.waited >= self.patience:
            runner.should_stop = True
            best = "none" if self.best is None else f"{self.best:.4f}"
            logger.info("EarlyStopping: the best %s, %s, is %d evaluations ago", self.monitor, best, self.waited)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
