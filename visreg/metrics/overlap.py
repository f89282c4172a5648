"""How well predicted and true regions overlap: IoU, Dice and the share of right pixels."""

from __future__ import annotations

from typing import ClassVar

from attrs import define, field
from attrs.validators import instance_of, min_len
from torch import Tensor

from visreg.data import IGNORE
from visreg.metrics.accuracy import Accuracy
from visreg.metrics.confusion import F1, ClassAverage


@define(kw_only=True, eq=False)
class MeanIoU(ClassAverage):
    """The mean over classes of intersection over union, from 0 to 1; `ClassAverage` has the options.

    Intersection and union are counted over all pixels of the data, as in PASCAL VOC. It is
    ``sklearn.metrics.jaccard_score``. A class that is neither true nor predicted anywhere is left out.

    >>> import torch
    >>> metric = MeanIoU(num_classes=3)
    >>> metric.update({"mask": torch.tensor([[[0, 0, 1, 1]]])}, {"mask": torch.tensor([[[0, 1, 1, 255]]])})
    >>> metric.compute()
    {'mean_iou': 0.5}
    >>> metric.per_class()
    {'mean_iou': [0.5, 0.5, nan]}
    """

    title: ClassVar[str] = "mean_iou"

    key: str = field(default="mask", validator=[instance_of(str), min_len(1)])
    ignore: int | None = field(default=IGNORE)

    def fraction(self, hits: Tensor, misses: Tensor, alarms: Tensor) -> tuple[Tensor, Tensor]:
        return hits, hits + misses + alarms


@define(kw_only=True, eq=False)
class Dice(F1):
    """The mean over classes of the Dice coefficient, from 0 to 1; `ClassAverage` has the options.

    Twice the intersection over the sum of both regions, counted over all pixels of the data: `F1` of the pixels.

    >>> import torch
    >>> metric = Dice(num_classes=2)
    >>> metric.update({"mask": torch.tensor([[[0, 0, 1, 1]]])}, {"mask": torch.tensor([[[0, 1, 1, 255]]])})
    >>> round(metric.compute()["dice"], 4)
    0.6667
    """

    title: ClassVar[str] = "dice"

    key: str = field(default="mask", validator=[instance_of(str), min_len(1)])
    ignore: int | None = field(default=IGNORE)


@define(kw_only=True, eq=False)
class PixelAccuracy(Accuracy):
    """The share of pixels whose class is right, from 0 to 1; NaN where nothing was seen.

    Args:
        key: the prediction, and the target, to compare.
        name: what to call the score.
        ignore: the target of pixels that are left out.

    >>> import torch
    >>> metric = PixelAccuracy()
    >>> metric.update({"mask": torch.tensor([[[0, 0, 1, 1]]])}, {"mask": torch.tensor([[[0, 1, 1, 255]]])})
    >>> round(metric.compute()["pixel_accuracy"], 4)
    0.6667
    """

    key: str = field(default="mask", validator=[instance_of(str), min_len(1)])
    name: str = field(default="pixel_accuracy", validator=[instance_of(str), min_len(1)])
    ignore: int | None = field(default=IGNORE)
