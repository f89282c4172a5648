"""Samples, batches, datasets, and the two loaders that turn one into the other.

A *sample* is one example and a *batch* is many. Both, and predictions too, are plain dicts with these keys:

========  ==================  =====================  =========================================================
key       in a sample         in a batch             meaning
========  ==================  =====================  =========================================================
image     uint8 (C, H, W)     uint8 (N, C, H, W)     pixels 0..255; floats are taken to be 0..1 already
label     int64 ()            int64 (N,)             class index of the whole image
mask      int64 (H, W)        int64 (N, H, W)        class index of each pixel, 255 to ignore
boxes     float32 (M, 4)      list of N (M, 4)       x1, y1, x2, y2 in pixels
labels    int64 (M,)          list of N (M,)         class index of each box
masks     bool (M, H, W)      list of N (M, H, W)    one mask for each box
index     int                 int64 (N,)             the sample's place in its dataset; added by the loader
scores    (predictions only)  float32 (N, C)         probability of each class of the whole image
========  ==================  =====================  =========================================================

Randomness is a function of what it is for: the order of an epoch comes from (seed, epoch), and whatever a dataset or
a transform draws for a sample from (seed, epoch, index). So neither the number of workers nor a stop in between
changes what the model sees.
"""

from __future__ import annotations

import os
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from visreg import dist
from visreg.errors import DataError

Sample = dict[str, Any]
Batch = dict[str, Any]
Predictions = dict[str, Any]
Transform = Callable[[Any], Any]

RAGGED = frozenset({"boxes", "labels", "masks"})


def data_root() -> Path:
    """Return the folder that datasets live in: ``$VISREG_DATA``, else ``data``."""
    return Path(os.environ.get("VISREG_DATA") or "data")


@frozen(kw_only=True)
class DataInfo:
    """What is known of a dataset without reading it.

    Attributes:
        name: what scores on it are called, such as ``"MNIST"``.
        classes: the name of each class, by index; empty if unknown.
        sample: a blank sample of the right shapes and dtypes; empty if unknown.
    """

    name: str
    classes: tuple[str, ...] = ()
    sample: Sample = field(factory=dict, eq=False, repr=False)


class Dataset(ABC):
    """Samples by index. The constructor takes options and reads nothing; `open` reads."""

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """What the samples are; known before `open` wherever it can be."""

    @abstractmethod
    def open(self) -> None:
        """Find the data and get ready to give samples; a second call does nothing.

        Raises:
            DataError: if the data is missing or damaged; says which files to put where.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def tensors(self) -> Mapping[str, Tensor] | None:
        """Return every sample at once, as one batch, or None where that does not fit in memory."""
        return None


class Loader(Protocol):
    """Batches on the device they are needed on, in an order that depends on the epoch alone.

    Attributes:
        info: the dataset the batches come from.
        batch_size: how many samples there are in a batch, over all processes.
    """

    @property
    def info(self) -> DataInfo: ...

    @property
    def batch_size(self) -> int: ...

    def __len__(self) -> int:
        """Return how many batches there are in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from number ``start`` on, without making those before it."""
        ...


@define(kw_only=True, eq=False)
class Batching:
    """Which samples make up which batch of which epoch, and which of them are this process's.

    ``batch_size`` counts the samples of one optimizer step over all processes, so that a config means the same on any
    number of them. Training batches are of equal size in every process: where the last one does not divide, its few
    odd samples are left out of that epoch. An evaluation leaves out none and counts none twice.

    >>> batching = Batching(size=5, batch_size=2, train=False, seed=0)
    >>> [batch.tolist() for batch in batching.batches(epoch=0)]
    [[0, 1], [2, 3], [4]]
    """

    size: int
    batch_size: int
    train: bool
    seed: int
    drop_last: bool = False
    shuffle: bool | None = None

    def __attrs_post_init__(self) -> None:
        world = dist.world_size()
        if self.train and self.batch_size % world:
            raise DataError(f"train.batch_size: {self.batch_size} does not divide by {world} processes; change one")
        if self.size == 0:
            raise DataError("the dataset is empty; check where it was read from")
        if len(self) == 0:
            raise DataError(
                f"the dataset has {self.size} samples, which is less than one batch of {self.batch_size}; "
                "lower batch_size or set drop_last=False"
            )

    def __len__(self) -> int:
        usable = self.size
        if self.train:
            usable -= self.size % (self.batch_size if self.drop_last else dist.world_size())
        return -(-usable // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield this process's indices of each batch, int64 (n,); n may be 0 in an evaluation."""
        order = torch.arange(self.size)
        if self.train if self.shuffle is None else self.shuffle:
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(_mix(self.seed, epoch)))
        rank, world = dist.rank(), dist.world_size()
        for number in range(start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.train and len(batch) % world:
                batch = batch[: -(len(batch) % world)]
            yield batch[rank::world]


@define(kw_only=True, eq=False)
class TensorLoader:
    """Batches by index out of a dataset that is held in memory, on the device; there is no per-sample work at all."""

    info: DataInfo
    tensors: dict[str, Tensor] = field(repr=False)
    batching: Batching
    batch_transforms: Sequence[Transform] = ()

    @property
    def batch_size(self) -> int:
        return self.batching.batch_size

    def __len__(self) -> int:
        return len(self.batching)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        device = next(iter(self.tensors.values())).device
        for indices in self.batching.batches(epoch, start):
            if not len(indices):
                continue
            place = indices.to(device, non_blocking=True)
            batch: Batch = {name: tensor.index_select(0, place) for name, tensor in self.tensors.items()}
            batch["index"] = place
            yield _transformed(batch, self.batch_transforms)


@define(kw_only=True, eq=False)
class SampleLoader:
    """Batches put together sample by sample, in this process or by workers."""

    dataset: Dataset
    transforms: Sequence[Transform]
    batching: Batching
    batch_transforms: Sequence[Transform] = ()
    device: torch.device
    workers: int = 0
    _loader: DataLoader[Batch] = field(init=False, repr=False)
    _plan: _Plan = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._plan = _Plan(self.batching)
        self._loader = DataLoader(
            _Keyed(self.dataset, self.transforms, self.batching.seed),  # type: ignore[arg-type]  # keys are not ints
            batch_sampler=self._plan,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            persistent_workers=self.workers > 0,
            # Of its own, so that starting an epoch draws nothing from the generator that dropout uses.
            generator=torch.Generator(),
        )

    @property
    def info(self) -> DataInfo:
        return self.dataset.info

    @property
    def batch_size(self) -> int:
        return self.batching.batch_size

    def __len__(self) -> int:
        return len(self.batching)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        self._plan.epoch, self._plan.start = epoch, start
        for batch in self._loader:
            yield _transformed(to_device(batch, self.device), self.batch_transforms)


@define(eq=False)
class _Plan:
    """A batch sampler whose keys carry the epoch, so that persistent workers learn of it."""

    batching: Batching
    epoch: int = 0
    start: int = 0

    def __len__(self) -> int:
        return len(self.batching) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        for indices in self.batching.batches(epoch, self.start):
            if len(indices):
                yield [(epoch, index) for index in indices.tolist()]


@define(eq=False)
class _Keyed:
    """The samples of a dataset, transformed, by (epoch, index)."""

    dataset: Dataset
    transforms: Sequence[Transform]
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        with seeded(self.seed, epoch, index):
            sample = dict(self.dataset[index])
            for transform in self.transforms:
                sample = transform(sample)
        sample["index"] = index
        return sample


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Draw all inside (torch on the CPU, numpy, random) from a seed made of ``parts``; then put everything back."""
    numpy = sys.modules.get("numpy")
    saved = torch.random.get_rng_state(), random.getstate(), numpy.random.get_state() if numpy else None
    seed = _mix(*parts)
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed & 0xFFFFFFFF)
    try:
        yield
    finally:
        torch.random.set_rng_state(saved[0])
        random.setstate(saved[1])
        if numpy and saved[2] is not None:
            numpy.random.set_state(saved[2])


def _mix(*parts: int) -> int:
    """Return a 63-bit seed that differs wherever the parts do (splitmix64, Steele et al. 2014)."""
    state = 0
    for part in parts:
        state = (state ^ part) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch; the keys in ``RAGGED`` stay lists, one item for each sample.

    Raises:
        DataError: if the samples differ in their keys or shapes.
    """
    batch: Batch = {}
    for key in samples[0]:
        try:
            values = [sample[key] for sample in samples]
            batch[key] = values if key in RAGGED else default_collate(values)
        except (KeyError, RuntimeError, TypeError) as error:
            shapes = sorted({str(tuple(getattr(sample.get(key), "shape", ()))) for sample in samples})
            raise DataError(
                f"{key!r} differs between the samples of a batch, of shapes {', '.join(shapes)}; "
                f"add a transform that makes them alike, such as Resize ({type(error).__name__}: {error})"
            ) from error
    return batch


def to_device(value: Any, device: torch.device) -> Any:
    """Copy every tensor inside ``value`` to ``device``."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [to_device(item, device) for item in value]
    return value


def split(batch: Batch, parts: int) -> list[tuple[Batch, float]]:
    """Cut a batch into up to ``parts`` of nearly equal size, each with its share of the samples.

    >>> [(part["label"].tolist(), share) for part, share in split({"label": torch.arange(4)}, 2)]
    [([0, 1], 0.5), ([2, 3], 0.5)]
    """
    size = batch_length(batch)
    if parts == 1 or size < 2:
        return [(batch, 1.0)]
    step = -(-size // parts)
    return [
        ({key: value[start : start + step] for key, value in batch.items()}, min(step, size - start) / size)
        for start in range(0, size, step)
    ]


def batch_length(batch: Batch) -> int:
    """Return how many samples there are in ``batch``."""
    return len(next(iter(batch.values())))


def _transformed(batch: Batch, transforms: Sequence[Transform]) -> Batch:
    for transform in transforms:
        batch = transform(batch)
    return batch
