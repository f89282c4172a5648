"""A sample drawn on a canvas, in another size and cut at the canvas's sides, with all that is known of its objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from visreg.data import IGNORE, Sample
from visreg.objects import boxes_around

OF_OBJECTS = ("boxes", "labels", "masks", "crowd", "area")
PLACEABLE = ("image", "mask", *OF_OBJECTS)
LEAST = 1.0  # pixels that must be left of a box, in both directions


def placed(
    sample: Sample,
    size: tuple[int, int],
    canvas: tuple[int, int],
    corner: tuple[int, int],
    fill: int = 0,
    min_visible: float = 0.0,
) -> Sample:
    """Return a sample resized and put on a canvas; what of it is outside is cut off, and what is left of objects kept.

    Boxes become tight around what is seen of their masks, where there are masks, and are else cut. An object is left
    out if less of it than ``min_visible`` is seen; of a crowd any part is kept, since it says where not to look.

    Args:
        sample: with ``image``, and any of the keys in ``PLACEABLE``.
        size: height and width to resize it to.
        canvas: height and width of the result.
        corner: where its upper left corner goes, as y and x; may be outside.
        fill: grey of the canvas, 0 to 255.
        min_visible: share of an object, 0 to 1.
    """
    image = sample["image"]
    scale = (size[0] / image.shape[-2], size[1] / image.shape[-1])
    grey = fill / 255 if image.is_floating_point() else fill
    made: Sample = {"image": _put(_resized(image, size, "bilinear"), canvas, corner, grey)}
    if "mask" in sample:
        made["mask"] = _put(_resized(sample["mask"][None], size, "nearest-exact"), canvas, corner, IGNORE)[0]
    if "boxes" not in sample:
        return made
    boxes = sample["boxes"] * sample["boxes"].new_tensor([scale[1], scale[0]] * 2)
    moved = boxes + boxes.new_tensor([corner[1], corner[0]] * 2)
    cut = torch.minimum(moved.clamp(min=0), moved.new_tensor([canvas[1], canvas[0]] * 2))
    seen = _area(cut) / _area(boxes).clamp(min=1e-9)
    objects: Sample = {key: sample[key] for key in ("labels", "crowd", "area") if key in sample}
    if "masks" in sample:
        masks = _resized(sample["masks"], size, "nearest-exact")
        objects["masks"] = _put(masks, canvas, corner, 0)
        seen = _pixels(objects["masks"]) / _pixels(masks).clamp(min=1)
        cut = boxes_around(objects["masks"])
    if "area" in objects:
        objects["area"] = objects["area"] * (scale[0] * scale[1] * seen)
    return {**made, **kept({**objects, "boxes": cut}, seen, min_visible)}


def kept(objects: Sample, seen: Tensor, min_visible: float) -> Sample:
    """Return the objects of which enough is seen.

    Args:
        objects: keys in ``OF_OBJECTS``.
        seen: share of each that is seen, float32 (M,).
        min_visible: share of each that must be, unless it is a crowd.
    """
    boxes = objects["boxes"]
    enough = seen >= min_visible
    if "crowd" in objects:
        enough = enough | objects["crowd"]
    enough = enough & ((boxes[:, 2:] - boxes[:, :2]) >= LEAST).all(dim=1)
    return {key: objects[key][enough] for key in OF_OBJECTS if key in objects}


def joined(parts: Sequence[Sample]) -> Sample:
    """Return the objects of several samples on one canvas as those of one."""
    return {key: torch.cat([part[key] for part in parts]) for key in OF_OBJECTS if key in parts[0]}


def _put(value: Tensor, canvas: tuple[int, int], corner: tuple[int, int], fill: float) -> Tensor:
    """Return (C, h, w) on a canvas (C, H, W)."""
    made = value.new_full((len(value), *canvas), fill)
    here, there = [], []
    for start, length, whole in zip(corner, value.shape[1:], canvas, strict=True):
        low, high = max(0, start), min(whole, start + length)
        here.append(slice(low, max(low, high)))
        there.append(slice(low - start, max(low, high) - start))
    made[:, here[0], here[1]] = value[:, there[0], there[1]]
    return made


def _resized(value: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Return (C, H, W) of another size, of its own dtype."""
    if value.shape[1:] == size or not len(value):
        return value if value.shape[1:] == size else value.new_zeros((0, *size))
    small = value if mode == "bilinear" else value.to(torch.uint8)  # class indices and bools, all below 256
    smooth = {"antialias": True, "align_corners": False} if mode == "bilinear" else {}
    made: Tensor = interpolate(small[None], size=size, mode=mode, **smooth)[0]
    return made.to(value.dtype)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def _pixels(masks: Tensor) -> Tensor:
    return masks.flatten(1).sum(dim=1).float()
