"""What hooks that average the weights over time share: the average, its place in evaluations and in checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from torch import Tensor

from visreg.checkpoint import differences
from visreg.errors import CheckpointError
from visreg.hook import Hook

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class Averaging(Hook):
    """Keeps an average of the weights, and evaluates with it.

    Attributes:
        average: the average of each of the task's tensors, by name.
    """

    average: dict[str, Tensor] = field(factory=dict, init=False, repr=False)
    _floats: tuple[list[Tensor], list[Tensor]] = field(factory=lambda: ([], []), init=False, repr=False)
    _others: tuple[list[Tensor], list[Tensor]] = field(factory=lambda: ([], []), init=False, repr=False)
    _swapped: bool = field(default=False, init=False)

    def before_train(self, runner: Runner) -> None:
        self._bind(runner)

    def before_step(self, runner: Runner) -> None:
        self._restore()

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
            what = f"the checkpoint's {type(self).__name__} is of another model:"
            raise CheckpointError("\n  ".join([what, *lines]))
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
