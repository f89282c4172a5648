"""Keeps part of a model as it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field
from attrs.validators import ge, instance_of, min_len, optional
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from visreg.errors import ConfigError, Problem
from visreg.hook import Hook
from visreg.patterns import matches, matching_parameters
from visreg.task import Task

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


@define(kw_only=True, eq=False)
class Freeze(Hook):
    """Leaves some parameters untrained, for a while or for good.

    Batch norms whose running statistics the patterns name, as those of modules do, keep these too. The optimizer holds
    the parameters all the same and skips them, weight decay included, as they have no gradient.

    ``Freeze(patterns=["*"], exclude=["fc"])`` leaves a linear probe: nothing is learnt but the last layer of a ResNet.

    Args:
        patterns: which parameters or modules of the model, such as ``["conv1", "layer[12]", "*.bias"]``.
        exclude: which of them not.
        epochs: for how many epochs; for good where not given.
        start: from which epoch on, counted from 0.
    """

    patterns: Sequence[str] = field(validator=[instance_of((list, tuple)), min_len(1)])
    exclude: Sequence[str] = field(default=(), validator=instance_of((list, tuple)))
    epochs: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    start: int = field(default=0, validator=[instance_of(int), ge(0)])
    _parameters: list[nn.Parameter] = field(factory=list, init=False, repr=False)
    _norms: list[nn.Module] = field(factory=list, init=False, repr=False)
    _frozen: bool = field(default=False, init=False)

    def before_train(self, runner: Runner) -> None:
        self.chosen(runner.task)
        if self.start >= runner.epochs:
            logger.warning(
                "Freeze: begins after epoch %d, and the run has %d; nothing freezes", self.start, runner.epochs
            )
        if self._is_time(runner):
            self._freeze(runner.task)

    def _freeze(self, task: Task) -> None:
        self._frozen = True
        self._parameters = [parameter for parameter in self.chosen(task) if parameter.requires_grad]
        self._norms = [
            module
            for name, module in task.named_modules()
            if isinstance(module, _NormBase) and self._names(f"{name}.running_mean")
        ]
        for parameter in self._parameters:
            parameter.requires_grad_(False)

    def chosen(self, task: Task) -> list[nn.Parameter]:
        """Return the parameters that are to be frozen.

        Raises:
            ConfigError: if a pattern means none, or nothing is left to train.
        """
        matching_parameters(task, self.exclude, "Freeze")  # a pattern that excludes nothing is a mistake too
        found = matching_parameters(task, self.patterns, "Freeze")
        chosen = [parameter for name, parameter in found.items() if self._names(name)]
        trained = {id(parameter) for parameter in task.parameters() if parameter.requires_grad}
        if not trained - {id(parameter) for parameter in chosen}:
            raise ConfigError([Problem("", f"Freeze: {list(self.patterns)} leave no parameter to train; name fewer")])
        return chosen

    def _names(self, name: str) -> bool:
        return matches(name, self.patterns) and not matches(name, self.exclude)

    def before_epoch(self, runner: Runner) -> None:
        if self._frozen != self._is_time(runner):
            self._thaw() if self._frozen else self._freeze(runner.task)
            runner.wrap()  # or DistributedDataParallel would not average the new gradients

    def before_step(self, runner: Runner) -> None:
        for norm in self._norms:  # task.train() woke them, at the start of the epoch or after an evaluation
            norm.eval()

    def after_train(self, runner: Runner) -> None:
        self._thaw()

    def _is_time(self, runner: Runner) -> bool:
        return self.start <= runner.epoch and (self.epochs is None or runner.epoch < self.start + self.epochs)

    def _thaw(self) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_()
        for norm in self._norms:
            norm.train()
        self._parameters, self._norms, self._frozen = [], [], False
