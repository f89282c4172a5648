"""A blank batch of a split, as its task will see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import Any

import torch

from visreg.batching import Batching
from visreg.config import ConfigPath
from visreg.data import Batch, DataInfo, Dataset, Sample, Transform, blank_sample, collate
from visreg.diagnosis import advice, blamed, check_image, kept, message_of, shape_of
from visreg.dry_run.parts import FailedError, Parts
from visreg.generators import seeded
from visreg.registry import DATASETS, TRANSFORMS
from visreg.schema import DataConfig
from visreg.transform import OfBatchesError, first_obstacle
from visreg.transforms.crops import RandomCrop
from visreg.transforms.images import sides_of

SAMPLES = 3  # a batch of one hides what broadcasting lets pass
DRAWS = 6  # of each random transform
SMALLEST = 301  # pixels of a side that is guessed
MOST_TIMES = 12  # how much larger it may be guessed for the sake of a crop


def blank_batch(parts: Parts, name: str, section: DataConfig) -> tuple[Batch | None, DataInfo | None]:
    """Return a blank batch as the task will see it, or None where its shape cannot be known."""
    transforms = parts.build_all(TRANSFORMS, section.transforms, (name, "transforms"))
    batch_transforms = parts.build_all(TRANSFORMS, section.batch_transforms, (name, "batch_transforms"))
    try:
        dataset = parts.build(DATASETS, section.dataset, (name, "dataset"))
    except FailedError:
        return None, None
    info: DataInfo = dataset.info
    if name == "train":
        parts.steps = _steps(dataset, section)
    reason = first_obstacle([*transforms.values()], info.sample or info.keys) if section.in_memory is True else ""
    if reason:
        parts.found.append(((name, "in_memory"), f"{reason}; set in_memory='auto'"))
    silent = type(dataset).stamps is Dataset.stamps and type(dataset).stream is Dataset.stream
    if section.cache and silent and not parts.is_broken(name, "cache"):
        message = f"{info.name} does not say which files its samples are read from; remove it"
        parts.found.append(((name, "cache"), message))
    if len(transforms) < len(section.transforms) or len(batch_transforms) < len(section.batch_transforms):
        return None, info
    samples = [dict(info.sample)] if info.sample else _guesses(info, transforms.values())
    tries = (_transform(parts, sample, transforms, (name, "transforms"), bool(info.sample)) for sample in samples)
    made = [*takewhile(lambda each: each is not None, tries)]
    if len(made) < len(samples) or len({shape_of(sample) for sample in made}) > 1:
        return None, info
    batch = collate([dict(made[0]) for _ in range(SAMPLES)])
    batch = _transform(parts, batch, batch_transforms, (name, "batch_transforms"), True)
    return (None if batch is None else {**batch, "index": torch.arange(SAMPLES)}), info


def _steps(dataset: Dataset, section: DataConfig) -> int:
    """Return how many steps an epoch has, or 0 if that is not known; of a dataset of others it is not."""
    nested = any(isinstance(value, (Mapping, list, tuple)) for value in section.dataset.values())
    with suppress(Exception):  # what is not open yet may not be able to tell
        if not nested and section.sampler is None and len(dataset) > 0:
            size, drop = section.batch_size, section.drop_last
            return len(Batching(size=len(dataset), batch_size=size, train=True, seed=0, drop_last=drop))
    return 0


def _transform(parts: Parts, value: Any, transforms: Mapping[int, Transform], path: ConfigPath, report: bool) -> Any:
    """Return ``value`` transformed, or None where that fails; of a guess nothing is reported.

    It is drawn several times, since a transform that does something now and then can fail just then.
    """
    made = None
    for draw in range(DRAWS if transforms else 1):
        made, place = dict(value), path
        try:
            for index, transform in transforms.items():
                place = (*path, index)
                with seeded(draw, index):
                    made = kept(transform(before := made), before)
            check_image(made)
        except Exception as error:  # whatever a transform raises, the config named it
            if report or isinstance(error, OfBatchesError):  # of which the size is no matter
                reason = f"{message_of(error)}{advice(made, error)}"
                parts.found.append(blamed(place, f"fails on a blank {shape_of(made)}: {reason}", error))
            return None
    return made


def _guesses(info: DataInfo, transforms: Iterable[Transform]) -> list[Sample]:
    """Return samples of unlike sizes, for data whose size is not known: transforms may make them alike.

    Within reason, they are large enough for every crop.
    """
    crops = [max(sides_of(transform.size)) for transform in transforms if isinstance(transform, RandomCrop)]
    times = min(1 + max(crops, default=0) // SMALLEST, MOST_TIMES)
    sizes = ((SMALLEST, 403), (520, 390))
    return [blank_sample(info.keys, height * times, width * times, frames=info.frames) for height, width in sizes]
