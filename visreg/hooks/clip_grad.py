"""Limits how far one step can go."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import define, field
from attrs.validators import gt
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from visreg.hook import Hook

if TYPE_CHECKING:
    from visreg.runner import Runner


@define(kw_only=True, eq=False)
class ClipGrad(Hook):
    """Scales all gradients down together until their norm is at most ``max_norm``.

    The gradients are those of the whole batch, over all processes and parts, unscaled under fp16 (Pascanu et al. 2013).

    Args:
        max_norm: the largest norm that all gradients, as one vector, may have; more than 0.
        norm_type: which p-norm; ``float("inf")`` for the largest absolute value.
    """

    max_norm: float = field(validator=gt(0))
    norm_type: float = field(default=2.0, validator=gt(0))

    def after_backward(self, runner: Runner) -> None:
        parameters = [each for each in runner.task.parameters() if each.grad is not None]
        norm = get_total_norm([each.grad for each in parameters if each.grad is not None], self.norm_type)
        # One NaN would make NaN of all gradients; left as they are, they tell where it came from.
        clip_grads_with_norm_(parameters, self.max_norm, norm.nan_to_num(nan=0.0, posinf=math.inf))
