"""Optimizers, all of them torch's, and the groups that give some parameters options of their own."""

from visreg.adopted import exported
from visreg.registry import OPTIMIZERS

OPTIMIZERS.adopt("torch", exported("torch.optim"))
