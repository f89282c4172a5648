"""How the learning rate changes over a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from visreg.misfit import alike

SEEN = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")  # what a ReduceLROnPlateau learns from scores


@define(kw_only=True, eq=False)
class Schedule:
    """PyTorch's schedulers, each counted in steps, epochs or evaluations; with none the rate is constant.

    Attributes:
        per_step: those that move on after every optimizer step.
        per_epoch: those that move on after every epoch.
        per_eval: those that wait for a score to stop improving, each with the name of that score.
        reduced: what the last kind has multiplied the rate of each of the optimizer's groups by so far.
    """

    per_step: Sequence[LRScheduler] = ()
    per_epoch: Sequence[LRScheduler] = ()
    per_eval: Sequence[tuple[ReduceLROnPlateau, str]] = ()
    reduced: list[float] = field(factory=list, init=False)

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
            groups = scheduler.optimizer.param_groups
            before = [float(group["lr"]) for group in groups]
            scheduler.step(scores[monitor])
            factors = [float(group["lr"]) / old if old else 1.0 for group, old in zip(groups, before, strict=True)]
            self.reduced = [old * new for old, new in zip(self.reduced or [1.0] * len(factors), factors, strict=True)]

    @property
    def is_constant(self) -> bool:
        """Whether nothing but scores moves it."""
        return not self.per_step and not self.per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every scheduler."""
        return {
            "types": [type(scheduler).__name__ for scheduler in self._all()],
            "schedulers": [scheduler.state_dict() for scheduler in self._all()],
            "reduced": list(self.reduced),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where ``state`` left off.

        Raises:
            ValueError: if it is of other schedulers.
        """
        own = [type(scheduler).__name__ for scheduler in self._all()]
        if own != state["types"]:
            raise ValueError(
                f"it is of {', '.join(state['types']) or 'none'}, and this is of {', '.join(own) or 'none'}"
            )
        for scheduler, scheduler_state in zip(self._all(), state["schedulers"], strict=True):
            known = scheduler.state_dict()
            foreign = [name for name in scheduler_state if name not in known and hasattr(scheduler, name)]
            if foreign or not alike(known, scheduler_state):  # it would hide a method, or stand where a number should
                raise ValueError(f"it is no state of a {type(scheduler).__name__}")
            scheduler.load_state_dict(scheduler_state)
        self.reduced = list(map(float, state["reduced"]))

    def replay(self, state: Mapping[str, Any], steps: int, steps_per_epoch: int) -> None:
        """Be, on an optimizer as it was built, where a run with this schedule is after ``steps`` steps.

        Only what schedulers that wait for a score have seen and done is taken from ``state``.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants an optimizer step before each of them
            for step in range(1, steps + 1):
                self.after_step()
                if step % steps_per_epoch == 0:
                    self.after_epoch()
        waiting = [item for name, item in zip(state["types"], state["schedulers"], strict=True) if _waits(name)]
        if not self.per_eval or len(waiting) != len(self.per_eval):
            return
        for (scheduler, _), scheduler_state in zip(self.per_eval, waiting, strict=True):
            scheduler.load_state_dict({name: scheduler_state[name] for name in SEEN})
        self.reduced = list(state["reduced"])
        for group, factor in zip(self.per_eval[0][0].optimizer.param_groups, self.reduced, strict=False):
            group["lr"] *= factor

    def _all(self) -> list[LRScheduler]:
        return [*self.per_step, *self.per_epoch, *(scheduler for scheduler, _ in self.per_eval)]


def _waits(name: str) -> bool:
    return name == ReduceLROnPlateau.__name__
