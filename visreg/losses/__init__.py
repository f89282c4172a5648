"""Losses: how wrong an output is. All of torch's are adopted."""

from visreg.adopted import exported
from visreg.registry import LOSSES

LOSSES.own(
    __name__,
    {"focal": "FocalLoss", "overlap": "DiceLoss LovaszSoftmaxLoss", "sums": "SumLoss", "yolo": "YOLOLoss"},
)
LOSSES.adopt("torch", exported("torch.nn.modules.loss"))
