"""Keeps weights small by what is added to their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from attrs.validators import gt, instance_of, min_len
from torch import Tensor

from visreg.hook import Hook
from visreg.patterns import matches, matching_parameters

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class _Penalty(Hook):
    """Adds something to the gradients of some parameters."""

    weight: float = field(validator=gt(0))
    patterns: Sequence[str] = field(default=("*",), validator=[instance_of((list, tuple)), min_len(1)])
    exclude: Sequence[str] = field(default=(), validator=instance_of((list, tuple)))
    _parameters: list[Tensor] = field(factory=list, init=False, repr=False)

    def before_train(self, runner: Runner) -> None:
        who = type(self).__name__
        chosen = matching_parameters(runner.task, self.patterns, who)
        matching_parameters(runner.task, self.exclude, who)  # a pattern that excludes nothing is a mistake too
        self._parameters = [parameter for name, parameter in chosen.items() if not matches(name, self.exclude)]

    def _trained(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the parameters that are not frozen, and their gradients: of what the loss does not touch, zeros."""
        parameters = [parameter for parameter in self._parameters if parameter.requires_grad]
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        return parameters, gradients


@define(kw_only=True, eq=False)
class L1(_Penalty):
    """Adds ``weight * sign(p)`` to the gradient of each parameter ``p``.

    It trains as if ``weight * p.abs().sum()`` were added to the loss, whose reported value stays that of the task
    (Tibshirani 1996, the lasso).

    Args:
        weight: how strongly, more than 0.
        patterns: which parameters or modules of the model, such as ``["*"]`` for all or ``["layer4", "fc.weight"]``.
        exclude: which of them not, such as ``["*.bias", "*bn*"]``.
    """

    @torch.no_grad()
    def after_backward(self, runner: Runner) -> None:
        parameters, gradients = self._trained()
        if parameters:
            torch._foreach_add_(gradients, torch._foreach_sign(parameters), alpha=self.weight)


@define(kw_only=True, eq=False)
class L2(_Penalty):
    """Adds ``weight * p`` to the gradient of each parameter ``p``.

    It trains as if ``weight / 2 * p.square().sum()`` were added to the loss, whose reported value stays that of the
    task (Hoerl & Kennard 1970, ridge regression). With `SGD` it is what the optimizer calls ``weight_decay``; it is not
    the decoupled decay of `AdamW`.

    Args:
        weight: how strongly, more than 0.
        patterns: which parameters or modules of the model, such as ``["*"]`` for all or ``["layer4", "fc.weight"]``.
        exclude: which of them not, such as ``["*.bias", "*bn*"]``.
    """

    @torch.no_grad()
    def after_backward(self, runner: Runner) -> None:
        parameters, gradients = self._trained()
        if parameters:
            torch._foreach_add_(gradients, parameters, alpha=self.weight)
