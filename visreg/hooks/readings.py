"""What hooks read off a runner: its losses over several steps, its learning rate, a monitored score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field
from torch import Tensor

from visreg import dist
from visreg.errors import ConfigError, Problem, suggest

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(eq=False)
class LossMean:
    """The mean of each loss over the steps since it was last read; until then nothing is computed or waited for.

    Attributes:
        seen: the losses of each step, by name, as the runner left them on the device.

    >>> losses = LossMean()
    >>> losses.seen += [{"loss": torch.tensor(1.0)}, {"loss": torch.tensor(2.0)}]
    >>> losses.read(), losses.read()
    ({'loss': 1.5}, {})
    """

    seen: list[dict[str, Tensor]] = field(factory=list, repr=False)

    def read(self, over_processes: bool = False) -> dict[str, float]:
        """Return the means by name, waiting for the device, and start anew.

        Args:
            over_processes: take the mean over all processes too; then all of them must call.
        """
        means = self.means(over_processes)
        self.seen.clear()
        return means

    def means(self, over_processes: bool = False) -> dict[str, float]:
        """Return the means by name, and keep what was seen."""
        # Over processes first, as in a checkpoint, so that a resumed run rounds as one that never stopped.
        columns = self.state_dict() if over_processes else self.columns()
        if not columns:
            return {}
        means = torch.stack([column.mean() for column in columns.values()])
        return dict(zip(columns, means.tolist(), strict=True))

    def columns(self) -> dict[str, Tensor]:
        """Return the values of each loss, float32 (steps,)."""
        seen = [losses for losses in self.seen if losses]  # a step that was skipped has none
        if not seen:
            return {}
        last = seen[-1]
        names = dict.fromkeys([*last, *(name for losses in seen for name in losses)])
        device = next(iter(last.values())).device  # what a checkpoint brought may be elsewhere
        return {
            name: torch.stack([losses[name].to(device, torch.float32) for losses in seen if name in losses])
            for name in names
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the values not read yet, float32 (steps,), as means over the processes, all of which must call."""
        return {name: _mean(column) for name, column in self.columns().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up where ``state`` left off.

        Raises:
            ValueError: if it is of something else.
        """
        if not all(isinstance(name, str) and torch.stack([*column]).dim() == 1 for name, column in state.items()):
            raise ValueError("the losses are not one number for each step")
        steps = max(map(len, state.values()), default=0)
        self.seen = [{name: column[i] for name, column in state.items() if i < len(column)} for i in range(steps)]


def _mean(value: Tensor) -> Tensor:
    world = dist.world_size()
    return value if world == 1 else (dist.total(value) / world).to(value.device)


def learning_rate(runner: Runner) -> float:
    """Return the rate, of the first of the optimizer's groups, that the next step will be taken with."""
    return float(runner.optimizer.param_groups[0]["lr"]) if runner.optimizer is not None else 0.0


def data_name(runner: Runner) -> str:
    """Return the name of the dataset that scores are on."""
    return runner.val_loader.info.name if runner.val_loader is not None else ""


def monitored(runner: Runner, name: str, who: str) -> float:
    """Return the score called ``name`` of the latest evaluation.

    Raises:
        ConfigError: if no metric gives it; offers the nearest name.
    """
    if name not in runner.scores:
        raise ConfigError([Problem("", f"{who}: no metric gives a score {name!r}{suggest(name, runner.scores)}")])
    return runner.scores[name]


def flattened(fixed: dict[str, Any], numbers: dict[str, float]) -> dict[str, Any]:
    """Return both dicts as one, ``fixed`` first; where a name is in both, it is the one in ``fixed`` that counts."""
    return {**fixed, **numbers, **fixed}
