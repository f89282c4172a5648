"""Datasets held in memory: whether they fit, and reading those that are files once and for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from attrs import frozen
from torch import Tensor

from visreg.cache import Cache
from visreg.data import RAGGED, Dataset, Sample, Transform, pixels
from visreg.machine import cores, free_memory
from visreg.picture import Picture, with_whole_image
from visreg.samples import Source, persist
from visreg.transform import (
    OF_SAMPLES,
    OfPart,
    first_obstacle,
    name_of,
    obstacle,
    split_fixed,
    transform_batch,
    transform_sample,
)

SHARE = 0.25  # of the free memory, of the machine or of a GPU: what a dataset may take by itself
MOST = 0.9  # what it may take if it is to be held at any price
CHUNK = 1024  # samples that are transformed at once
GB = 1e9


@frozen
class Held:
    """A dataset in memory.

    Attributes:
        tensors: its samples as one batch, after the first transforms of the list, which are fixed.
        first: how many those are.
        rest: the other transforms, which are computed for whole batches.
    """

    tensors: dict[str, Tensor]
    first: int
    rest: list[Transform]

    @property
    def size(self) -> int:
        """How many bytes the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def hold(
    dataset: Dataset,
    transforms: Sequence[Transform],
    device: torch.device,
    force: bool = False,
    draft: bool = True,
    cache: Cache | None = None,
    whole_kept: bool = False,
) -> Held | str:
    """Return a dataset in memory, on ``device`` if it fits there, or why that cannot or should not be.

    Fixed transforms at the start of the list are computed once, as far as they leave bytes as bytes.

    Args:
        dataset: opened, with samples by index.
        transforms: of samples.
        device: where the batches are to be.
        force: hold it even if it takes more than a share of the free memory.
        draft: let a JPEG be decoded at a fraction of its size where the first transform shrinks it so far.
        cache: keeps the samples as they are after the fixed transforms, which then need not be computed again.
        whole_kept: whether whole images are kept elsewhere in memory, one by one.

    Raises:
        DataError: if a sample cannot be read.
        ResourceError: if memory or open files ran out.
    """
    whole = dataset.tensors()
    if whole is None and not dataset.fixed:
        return "it may give another sample each time, unless it has fixed = True"
    first: Sample = (
        {name: tensor[0] for name, tensor in whole.items()}
        if whole
        else persist(dataset, 0, lambda: Source(dataset=dataset, draft=draft).read(0))
    )
    if reason := first_obstacle(transforms, first):
        return reason
    if cache is None and (reason := _shrinking(first, transforms)):
        return "cache='ram' keeps them as they are decoded" if whole_kept else reason
    fixed, rest = persist(dataset, 0, lambda: split_bytes(first, transforms))
    sample = persist(dataset, 0, lambda: transform_sample(first, fixed, 0))
    ragged = [key for key, value in sample.items() if key in RAGGED or not isinstance(value, Tensor)]
    if ragged:
        return f"its samples hold {' and '.join(sorted(ragged))}, which do not stack"
    size, free = len(dataset) * sum(value.nbytes for value in sample.values()), free_memory()
    there = whole is not None and not fixed  # it is in this machine's memory anyway
    if not there and size > (MOST if force else SHARE) * free:
        return f"it would take {size / GB:.3g} GB, of {free / GB:.3g} GB that are free"
    if whole is None:
        found = _read_all(Source(dataset=dataset, transforms=fixed, draft=draft, cache=cache), sample)
        if isinstance(found, str):
            return found
        whole = found
    elif fixed:
        whole = _transformed(whole, fixed)
    onto = device if device.type == "cpu" or size <= (MOST if force else SHARE) * free_memory(device) else "cpu"
    return Held({name: tensor.to(onto) for name, tensor in whole.items()}, len(fixed), rest)


def _shrinking(sample: Sample, transforms: Sequence[Transform]) -> str:
    """Return why an image is not to be held whole, if a part of it may be decoded at a fraction of its size."""
    picture, transform = sample.get("image"), transforms[0] if transforms else None
    if not (isinstance(picture, Picture) and picture.fractions and isinstance(transform, OfPart)):
        return ""
    shrinks = transform.shrinks(*picture.shape[1:])
    return f"{name_of(transform)} may have JPEGs decoded at a fraction of their size, unless draft=False" * shrinks


def split_bytes(sample: Sample, transforms: Sequence[Transform]) -> tuple[list[Transform], list[Transform]]:
    """Return the transforms whose result is held, and the others: bytes are not held as floats, which are larger."""
    fixed, _ = split_fixed(transforms)
    sample, count = with_whole_image(sample), 0
    for transform in fixed:
        before, sample = sample, transform_sample(sample, [transform], 0)
        dtypes = [getattr(pixels(values), "dtype", None) for values in (before, sample)]
        if dtypes[0] == torch.uint8 != dtypes[1]:
            break
        count += 1
    return list(transforms[:count]), list(transforms[count:])


def _transformed(whole: Mapping[str, Tensor], fixed: Sequence[Transform]) -> dict[str, Tensor]:
    """Return all samples after the fixed transforms."""
    count = len(next(iter(whole.values())))
    if any(obstacle(transform, whole) for transform in fixed):
        samples = ({name: tensor[place] for name, tensor in whole.items()} for place in range(count))
        made = (transform_sample(sample, fixed, 0) for sample in samples)
        parts = [{name: value[None] for name, value in sample.items()} for sample in made]
    else:
        cuts = (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
        parts = [
            transform_batch({name: tensor[cut] for name, tensor in whole.items()}, fixed, None, OF_SAMPLES)
            for cut in cuts
        ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _read_all(source: Source, blank: Sample) -> dict[str, Tensor] | str:
    """Return all samples, read by several threads, or which of them is not like ``blank``."""
    dataset = source.dataset
    whole = {name: torch.empty(len(dataset), *value.shape, dtype=value.dtype) for name, value in blank.items()}

    def make(index: int) -> str:
        sample = persist(dataset, index, lambda: with_whole_image(source.read(index)))
        if sample.keys() != whole.keys():
            return f"sample {index} holds {', '.join(sample)}, and the first {', '.join(whole)}"
        for name, value in sample.items():
            if (value.shape, value.dtype) != (blank[name].shape, blank[name].dtype):
                return f"{name!r} of sample {index} is {_kind(value)}, and that of the first {_kind(blank[name])}"
            whole[name][index] = value
        return ""

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(dataset), CHUNK):
            for reason in pool.map(make, range(start, min(start + CHUNK, len(dataset)))):
                if reason:
                    return reason
    return whole


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {'×'.join(map(str, value.shape))}"
