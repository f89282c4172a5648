"""Detectors that compute their own losses and cannot do so on meta tensors: tried on the CPU, with small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visreg.data import Batch
from visreg.task import Task

SIDE = 128  # pixels of the shorter side of an image that such a detector is tried on
SIZED = ("image", "mask", "masks")  # what is as large as the image


def in_small(task: Task, batches: Sequence[Batch]) -> list[Batch]:
    """Return one sample of each blank batch, cut smaller if the model takes any size, and let the model expect it.

    A batch stays as it is if the model is none of torchvision's detectors. What is wrong with the size of images shows
    all the same, since the sizes that the model resizes to are divided by the same number.
    """
    transform: Any = getattr(getattr(task, "model", None), "transform", None)
    sizes = getattr(transform, "min_size", None)
    if sizes is None or not all(isinstance(batch.get("image"), Tensor) for batch in batches):
        return list(batches)
    sides = [min(batch["image"].shape[-2:]) for batch in batches]
    times = max(1, min(sides, default=1) // SIDE)
    if transform.fixed_size is not None or 2 * min(sides, default=1) < min(sizes):  # the latter may be a mistake
        times = 1
    if max(sizes) >= times:  # visreg's own keep the size of images, whatever these say
        transform.min_size = tuple(size // times for size in sizes)
        transform.max_size //= times
    return [_small(batch, times) for batch in batches]


def _small(batch: Batch, times: int) -> Batch:
    small: Batch = {key: value[:1] for key, value in batch.items()}
    for key in SIZED:
        if key in small:
            parts = [value[..., : value.shape[-2] // times, : value.shape[-1] // times] for value in small[key]]
            small[key] = torch.stack(parts) if isinstance(small[key], Tensor) else parts
    for key, divisor in (("boxes", times), ("area", times**2)):
        if key in small:
            small[key] = [value / divisor for value in small[key]]
    return small
