"""Learning-rate schedules: some of our own that warm up, and torch's."""

from visreg.adopted import exported
from visreg.registry import SCHEDULES

SCHEDULES.own(__name__, {"warmup": "Constant Cosine Linear"})
SCHEDULES.adopt("torch", exported("torch.optim.lr_scheduler"))
