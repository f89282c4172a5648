"""How the learning rate changes over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


@define(kw_only=True, eq=False)
class Schedule:
    """PyTorch's schedulers, each counted in steps, epochs or evaluations; with none the rate is constant.

    Attributes:
        per_step: those that move on after every optimizer step.
        per_epoch: those that move on after every epoch.
        per_eval: those that wait for a score to stop improving, each with the name of that score.
    """

    per_step: Sequence[LRScheduler] = ()
    per_epoch: Sequence[LRScheduler] = ()
    per_eval: Sequence[tuple[ReduceLROnPlateau, str]] = ()

    def after_step(self) -> None:
        """Move on by an optimizer step."""
        for scheduler in self.per_step:
            scheduler.step()

    def after_epoch(self) -> None:
        """Move on by an epoch."""
        for scheduler in self.per_epoch:
            scheduler.step()

    def after_eval(self, scores: Mapping[str, float]) -> None:
        """Look at the scores of an evaluation."""
        for scheduler, monitor in self.per_eval:
            scheduler.step(scores[monitor])

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every scheduler."""
        return {"schedulers": [scheduler.state_dict() for scheduler in self._all()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where ``state`` left off.

        Raises:
            ValueError: if it is of another number of schedulers.
        """
        schedulers, states = self._all(), state["schedulers"]
        if len(schedulers) != len(states):
            raise ValueError(f"it is of {len(states)} schedulers, and this has {len(schedulers)}")
        for scheduler, scheduler_state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(scheduler_state)

    def _all(self) -> list[LRScheduler]:
        return [*self.per_step, *self.per_epoch, *(scheduler for scheduler, _ in self.per_eval)]
