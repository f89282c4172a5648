"""A hook that tells how large the gradient is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from attrs import define, field
from attrs.validators import ge
from torch.nn.utils import get_total_norm

from visreg import Hook

if TYPE_CHECKING:
    from visreg import Runner

logger = logging.getLogger("visreg.tinyvit")  # under "visreg", so that it goes where visreg's own messages go


@define(kw_only=True, eq=False)
class LogGradNorm(Hook):
    """Logs the norm of the whole gradient now and then; one that grows tells of a learning rate that is too high.

    Args:
        every: how many steps lie between two lines.
    """

    every: int = field(default=100, validator=ge(1))

    def after_backward(self, runner: Runner) -> None:
        if runner.step % self.every == 0:
            gradients = [parameter.grad for parameter in runner.task.parameters() if parameter.grad is not None]
            logger.info("step %d: gradient norm %.4g", runner.step, get_total_norm(gradients))
