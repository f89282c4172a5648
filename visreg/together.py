"""Samples that are transformed several at once, which is quicker, and gives the same batch as one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from visreg.data import PLACED, RAGGED, Batch, Sample, Transform, collate
from visreg.picture import Picture, with_whole_image
from visreg.random_draws import Draws
from visreg.transform import OF_SAMPLES, OfPart, first_obstacle, transform_batch, transform_sample


def can_be_together(sample: Sample, transforms: Sequence[Transform]) -> bool:
    """Return whether batches of samples like this one can be transformed as a whole, by all of the transforms."""
    plain = all(isinstance(value, (Tensor, Picture)) and key not in RAGGED for key, value in sample.items())
    return plain and not first_obstacle(transforms, sample)


def transform_together(
    samples: Sequence[Sample],
    transforms: Sequence[Transform],
    numbers: Sequence[int],
    first: int,
    begin: Callable[[int], None],
) -> Batch:
    """Return a batch of samples, transformed.

    The first transform may make images of one size out of parts of images of many, which are then never read whole.

    Args:
        samples: as read.
        transforms: of samples, those that come after the first ones of the config's list.
        numbers: of each sample, what its randomness comes from: ``mix(seed, draw, index)``.
        first: how many transforms come before these.
        begin: is told the place in the list of each sample whose image is going to be read.

    Raises:
        DataError: if an image cannot be read, or the samples do not fit together.
    """
    keys, left = torch.tensor(numbers), list(transforms)
    if left and isinstance(left[0], OfPart) and PLACED.isdisjoint(samples[0]):
        samples, first, left = _parts(samples, left[0], Draws(keys, (OF_SAMPLES, first)), begin), first + 1, left[1:]
    samples = [with_whole_image(sample) for sample in samples]
    while left and len({sample["image"].shape for sample in samples if "image" in sample}) > 1:
        step = [left.pop(0)]
        samples = [transform_sample(sample, step, key, first) for sample, key in zip(samples, numbers, strict=True)]
        first += 1
    return transform_batch(collate(samples), left, keys, OF_SAMPLES, first)


def _parts(samples: Sequence[Sample], transform: OfPart, draws: Draws, begin: Callable[[int], None]) -> list[Sample]:
    """Return samples with that part of each image which a transform makes of it."""
    sizes = torch.tensor([sample["image"].shape[1:] for sample in samples])
    made = []
    for place, box in enumerate(transform.boxes(draws, sizes).tolist()):
        begin(place)
        made.append({**samples[place], "image": transform.of_part(samples[place]["image"], box)})
    return made


def joined(parts: Sequence[Batch]) -> Batch:
    """Return one batch of several, all of tensors."""
    return parts[0] if len(parts) == 1 else {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
