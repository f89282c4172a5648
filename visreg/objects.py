"""Objects in images: what their boxes, labels and masks must be, and how many they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from visreg.data import Batch
from visreg.errors import DataError, suggest

ROUNDING = 1.0  # pixels that a box may reach beyond its image, as annotations of rounded images do
NO_AREA = "has no area; a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2"


def box_problem(box: Sequence[float], size: Sequence[float] | None) -> str | None:
    """Return what is wrong with a box, or None: the rule that every dataset, check and task holds boxes to.

    Args:
        box: x1, y1, x2, y2 in pixels.
        size: height and width of its image, if known; a box may reach out of it by ``ROUNDING``.

    >>> box_problem([0, 0, 4, 9], (8, 8)), box_problem([0, 0, 4, 10], (8, 8))
    (None, 'reaches out of its image, which is 8 wide and 8 high')
    """
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return "is not finite"
    if x2 <= x1 or y2 <= y1:
        return NO_AREA
    if size is None:
        return None
    height, width = size
    if min(x1, y1) < -ROUNDING or x2 > width + ROUNDING or y2 > height + ROUNDING:
        return f"reaches out of its image, which is {width:g} wide and {height:g} high"
    return None


def show_box(box: Sequence[float]) -> str:
    """Return a box as it stands in messages, such as ``[0, 0.5, 4, 9]``."""
    return f"[{', '.join(f'{side:g}' for side in box)}]"


def boxes_around(masks: Tensor) -> Tensor:
    """Return the boxes, float32 (M, 4), tight around masks (M, H, W); all 0 for an empty one.

    >>> boxes_around(torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0]]]).bool()).tolist()
    [[1.0, 1.0, 3.0, 2.0]]
    """
    if not masks.numel():
        return torch.zeros(len(masks), 4)
    sides = []
    for along in (1, 2):  # of x, then of y
        there = masks.any(dim=along).int()
        sides += [there.argmax(dim=1), there.shape[1] - there.flip(1).argmax(dim=1)]
    boxes = torch.stack([sides[0], sides[2], sides[1], sides[3]], dim=1).float()
    return boxes * masks.flatten(1).any(dim=1)[:, None]


def check_objects(batch: Batch, num_classes: int | None = None, *, masks: bool = False) -> None:
    """Check the objects of a batch: nothing may be trained on, or measured against, that cannot be.

    Args:
        batch: has ``image``, ``boxes`` and ``labels``; ``masks`` and ``crowd`` if they are there; see `visreg.data`.
        num_classes: how many classes there are, if known.
        masks: whether there must be ``masks``.

    Raises:
        DataError: naming the first sample and object that is wrong: not a box, without area, outside its image, not
            finite, of no class, or with a mask of another size.
    """
    size = batch["image"].shape[-2:]
    for key in ("boxes", "labels", *["masks"] * masks):
        if not isinstance(batch.get(key), (list, tuple)):
            raise DataError(f"the samples have no {key!r}, one for each object{suggest(key, batch)}")
    for place in range(len(batch["image"])):
        _check_shapes(batch, place, size)
    boxes, labels = torch.cat(list(batch["boxes"])), torch.cat(list(batch["labels"]))
    if not len(boxes) or boxes.is_meta:
        return
    bad = _bad_boxes(boxes, size) | (labels < 0)
    if num_classes is not None:
        bad = bad | (labels >= num_classes)
    if bad.any():  # the one place that waits for the device
        raise DataError(_first_bad(batch, int(bad.int().argmax()), size, num_classes))


def name_of(batch: Batch, place: int) -> str:
    """Return what to call a sample in a message: by its place in the dataset where that is known."""
    index = batch.get("index")
    return f"sample {int(index[place])}" if isinstance(index, Tensor) and not index.is_meta else f"sample {place}"


def _check_shapes(batch: Batch, place: int, size: Sequence[int]) -> None:
    boxes, labels = batch["boxes"][place], batch["labels"][place]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        wanted = "boxes must be floats (M, 4): x1, y1, x2, y2 in pixels"
        raise DataError(f"{name_of(batch, place)}: {wanted}; found {tuple(boxes.shape)} of {boxes.dtype}")
    if labels.is_floating_point():
        raise DataError(f"{name_of(batch, place)}: labels must be class indices, int64; found {labels.dtype}")
    for key in ("labels", "masks", "crowd", "area"):
        if key in batch and len(batch[key][place]) != len(boxes):
            found = f"{len(boxes)} boxes and {len(batch[key][place])} {key}"
            raise DataError(f"{name_of(batch, place)}: found {found}; there must be as many")
    if "masks" in batch and batch["masks"][place].shape[1:] != size:
        found = "×".join(map(str, batch["masks"][place].shape[1:]))
        raise DataError(f"{name_of(batch, place)}: its masks are {found}, but the image is {size[0]}×{size[1]}")


def _bad_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return, bool (M,), which boxes `box_problem` finds something wrong with, all at once."""
    low, high = boxes[:, :2], boxes[:, 2:]
    end = torch.tensor([size[1], size[0]], device=boxes.device)
    # So written that NaN, which compares as False with everything, is bad.
    right = (high > low) & (low >= -ROUNDING) & (high <= end + ROUNDING)
    return ~right.all(dim=1)


def _first_bad(batch: Batch, number: int, size: Sequence[int], num_classes: int | None) -> str:
    """Return what is wrong with object ``number`` of the batch, counted over all its samples."""
    place = 0
    while number >= len(batch["boxes"][place]):
        number -= len(batch["boxes"][place])
        place += 1
    box, label = batch["boxes"][place][number].tolist(), int(batch["labels"][place][number])
    text = f"{name_of(batch, place)}: box {show_box(box)}"
    problem = box_problem(box, size)
    if problem is not None:
        return f"{text} {problem}"
    if num_classes is None:
        return f"{text} is of class {label}; classes are counted from 0"
    return f"{text} is of class {label}, but the {num_classes} classes are 0 to {num_classes - 1}"
