"""Objects of one image pasted onto another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import define, field
from attrs.validators import ge, instance_of, le, optional

from visreg.data import Sample
from visreg.datasets.mixing import Mixing, between, is_range
from visreg.datasets.placing import OF_OBJECTS, joined, kept, placed
from visreg.objects import boxes_around


@define(kw_only=True, eq=False)
class CopyPaste(Mixing):
    """Some objects of another image, cut out along their masks, are put on top of an image.

    The other image is resized and shifted first. What it hides of the objects below is taken from their masks and
    boxes; they are left out where too little is left. A sample must have ``image``, ``boxes``, ``labels`` and
    ``masks``, and may have ``crowd``, which are not pasted, ``area`` and ``mask``.

    Source: Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", 2021,
    without blending, which they find to make no difference.

    Args:
        dataset: of images with objects and their masks.
        probability: how many samples are pasted on, 0 to 1.
        epochs: in so many epochs, the first ones; in all where not given.
        share: with what probability each object of the other image is pasted.
        scale: the other image is resized to fit, times a number drawn from here.
        min_visible: objects of which less than this share is left are left out.
    """

    probability: float = field(default=0.5, validator=[ge(0), le(1)])
    epochs: int | None = field(default=None, validator=optional([instance_of(int), ge(0)]))
    share: float = field(default=0.5, validator=[ge(0), le(1)])
    scale: tuple[float, float] = field(default=(0.5, 1.5), validator=is_range)
    min_visible: float = field(default=0.1, validator=[ge(0), le(1)])

    @property
    def partners(self) -> int:
        return 1

    @property
    def needed(self) -> tuple[str, ...]:
        return ("image", "boxes", "labels", "masks")

    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        pasted = self._pasted(others[0], sample["image"].shape[-2:])
        hidden = pasted["masks"].any(dim=0)
        masks = sample["masks"] & ~hidden
        seen = masks.flatten(1).sum(dim=1) / sample["masks"].flatten(1).sum(dim=1).clamp(min=1)
        cut = (seen < 1)[:, None]
        left: Sample = {key: sample[key] for key in OF_OBJECTS if key in sample}
        left |= {"masks": masks, "boxes": torch.where(cut, boxes_around(masks), sample["boxes"])}
        if "area" in left:
            left["area"] = left["area"] * seen
        made = joined([kept(left, seen, self.min_visible), pasted])
        for key in ("image", "mask"):
            if key in sample:
                made[key] = torch.where(hidden, pasted[key], sample[key])
        return made

    def _pasted(self, source: Sample, canvas: Sequence[int]) -> Sample:
        """Return an image resized and shifted, with those of its objects that are to be pasted."""
        height, width = source["image"].shape[-2:]
        factor = min(canvas[0] / height, canvas[1] / width) * between(*self.scale)
        size = max(1, round(height * factor)), max(1, round(width * factor))
        corner = [round(between(0, 1) * (whole - side)) for whole, side in zip(canvas, size, strict=True)]
        chosen = torch.rand(len(source["labels"])) < self.share
        if "crowd" in source:
            chosen &= ~source["crowd"]
        objects = {key: source[key][chosen] for key in OF_OBJECTS if key in source}
        whole = (int(canvas[0]), int(canvas[1]))
        return placed({**source, **objects}, size, whole, (corner[0], corner[1]), 0, self.min_visible)
