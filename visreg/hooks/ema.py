"""Averages the weights over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from attrs.validators import ge, instance_of, lt
from torch import Tensor

from visreg.checkpoint import differences
from visreg.errors import CheckpointError
from visreg.hook import Hook

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class EMA(Hook):
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
    average: dict[str, Tensor] = field(factory=dict, init=False, repr=False)
    _floats: tuple[list[Tensor], list[Tensor]] = field(factory=lambda: ([], []), init=False, repr=False)
    _others: tuple[list[Tensor], list[Tensor]] = field(factory=lambda: ([], []), init=False, repr=False)
    _swapped: bool = field(default=False, init=False)

    def decay_at(self, step: int) -> float:
        """Return the decay of the optimizer step number ``step``, from 1."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    def before_train(self, runner: Runner) -> None:
        self._bind(runner)

    def before_step(self, runner: Runner) -> None:
        self._restore()

    @torch.no_grad()
    def after_step(self, runner: Runner) -> None:
        if self._floats[0]:
            torch._foreach_lerp_(*self._floats, 1 - self.decay_at(runner.step))
        if self._others[0]:
            torch._foreach_copy_(*self._others)

    def before_eval(self, runner: Runner) -> None:
        if self.average and not self._floats[0]:  # loaded, and only evaluated
            self._bind(runner)
        if not self._swapped:
            self._swap()

    def after_eval(self, runner: Runner) -> None:
        self._restore()

    def after_interrupted_eval(self, runner: Runner) -> None:
        self._restore()

    def after_train(self, runner: Runner) -> None:
        self._restore()  # an evaluation may have failed

    def _restore(self) -> None:
        if self._swapped:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange average and weights one by one, so that there is only ever one tensor too many."""
        for averages, values in (self._floats, self._others):
            for average, value in zip(averages, values, strict=True):
                kept = value.clone()
                value.copy_(average)
                average.copy_(kept)
        self._swapped = not self._swapped

    @torch.no_grad()
    def _bind(self, runner: Runner) -> None:
        """Pair each of the task's tensors with its average, which is what was loaded, else a copy."""
        state = runner.task.state_dict(keep_vars=True)  # the tensors themselves, so that tied ones are found to be one
        current = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        lines = differences(current, self.average) if self.average else []
        if lines:
            raise CheckpointError("\n  ".join(["the checkpoint's EMA is of another model:", *lines]))
        copies: dict[int, Tensor] = {}
        self._floats, self._others = ([], []), ([], [])
        for name, value in current.items():
            if id(value) not in copies:
                copies[id(value)] = torch.empty_like(value).copy_(self.average.get(name, value))
                averages, values = self._floats if value.is_floating_point() else self._others
                averages.append(copies[id(value)])
                values.append(value)
        self.average = {name: copies[id(value)] for name, value in current.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = dict(state["average"])
        self._floats, self._others = ([], []), ([], [])
