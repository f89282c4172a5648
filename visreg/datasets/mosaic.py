"""Mosaics: four images as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import Attribute, define, field
from attrs.validators import ge, instance_of, le, optional

from visreg.data import DataInfo, Sample, blank_sample
from visreg.datasets.mixing import Mixing, between, is_range
from visreg.datasets.placing import joined, placed

GREY = 114  # what is empty of a mosaic: the grey of YOLO's reference code
CHANNELS = 3


@define(kw_only=True, eq=False)
class Mosaic(Mixing):
    """Four images around a point, each resized, with its inner corner there, and cut at the sides of its quarter.

    It teaches a detector objects of all sizes, in strange surroundings, and cut ones. A sample has ``image``, and any
    of ``boxes``, ``labels``, ``masks``, ``crowd``, ``area`` and ``mask``, which is 255, ignored, where no image is.
    Samples that are left as they are keep their size: let a ``Resize`` follow unless all have it already.

    Source: Bochkovskiy et al., "YOLOv4: optimal speed and accuracy of object detection", 2020; switching it off towards
    the end: Ge et al., "YOLOX: exceeding YOLO series in 2021".

    Args:
        dataset: of images with objects, or with a class for each pixel.
        size: height and width of a mosaic, in pixels.
        probability: how many samples become a mosaic, 0 to 1.
        epochs: in so many epochs, the first ones; in all where not given.
        scale: each image is resized to fit ``size``, times a number drawn from here.
        centre: where the point is drawn from, from left to right and from top to bottom, in shares of the size.
        min_visible: objects of which less than this share is left are left out.
    """

    size: int | tuple[int, int] = field()
    probability: float = field(default=1.0, validator=[ge(0), le(1)])
    epochs: int | None = field(default=None, validator=optional([instance_of(int), ge(0)]))
    scale: tuple[float, float] = field(default=(0.5, 1.5), validator=is_range)
    centre: tuple[float, float] = field(default=(0.25, 0.75), validator=is_range)
    min_visible: float = field(default=0.1, validator=[ge(0), le(1)])

    @size.validator
    def _is_size(self, _: Attribute[Any], value: Any) -> None:
        sides = value if isinstance(value, (list, tuple)) else (value, value)
        if len(sides) != 2 or not all(type(side) is int and side > 1 for side in sides):
            raise ValueError(f"size: must be a number of pixels from 2, or (height, width), got {value!r}")

    def __attrs_post_init__(self) -> None:
        if self.centre[1] >= 1:
            raise ValueError(f"centre: must be below 1, got {self.centre!r}")
        Mixing.__attrs_post_init__(self)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a mosaic."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def partners(self) -> int:
        return 3

    @property
    def info(self) -> DataInfo:
        """What is known of the samples: their size is only if all have that of a mosaic."""
        info = self.dataset.info
        image = info.sample.get("image")
        alike = image is not None and tuple(image.shape[1:]) == self.sides
        channels = CHANNELS if image is None else len(image)
        always = self.probability == 1 and self.epochs is None
        sample = info.sample if alike else blank_sample(info.held, *self.sides, channels) if always else {}
        return DataInfo(name=info.name, classes=info.classes, others=info.others, sample=sample, keys=info.held)

    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        low, high = self.centre
        cross = [max(1, round(side * between(low, high))) for side in self.sides]
        rows, columns = ((middle, side - middle) for middle, side in zip(cross, self.sides, strict=True))
        parts = []
        for number, each in enumerate((sample, *others)):
            row, column = divmod(number, 2)
            canvas = rows[row], columns[column]
            size = self._resized(each)
            corner = (0 if row else canvas[0] - size[0], 0 if column else canvas[1] - size[1])
            part = placed(each, size, canvas, corner, GREY, self.min_visible)
            parts.append(_on_whole(part, self.sides, (row * rows[0], column * columns[0])))
        made = joined(parts)
        for key in ("image", "mask"):
            if key in sample:
                halves = [torch.cat([part[key] for part in parts[half : half + 2]], dim=-1) for half in (0, 2)]
                made[key] = torch.cat(halves, dim=-2)
        return made

    def _resized(self, sample: Sample) -> tuple[int, int]:
        """Return a size for an image of a mosaic, which is drawn."""
        height, width = sample["image"].shape[-2:]
        factor = min(self.sides[0] / height, self.sides[1] / width) * between(*self.scale)
        return max(1, round(height * factor)), max(1, round(width * factor))


def _on_whole(part: Sample, whole: tuple[int, int], corner: tuple[int, int]) -> Sample:
    """Return a quarter whose objects are where they are in the whole; its image and mask stay a quarter's."""
    made = dict(part)
    if "boxes" in part:
        made["boxes"] = part["boxes"] + part["boxes"].new_tensor([corner[1], corner[0]] * 2)
    if "masks" in part:
        masks = part["masks"].new_zeros((len(part["masks"]), *whole))
        height, width = part["masks"].shape[-2:]
        masks[:, corner[0] : corner[0] + height, corner[1] : corner[1] + width] = part["masks"]
        made["masks"] = masks
    return made
