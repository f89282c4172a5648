"""The two loaders, which make batches out of a dataset held in memory or sample by sample.

Whatever a dataset or a transform draws for a sample comes from (seed, epoch, index). So neither the number of workers
nor a stop in between changes what a model sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from attrs import define, field
from torch import Tensor
from torch.utils.data import DataLoader

from visreg.batching import Batching
from visreg.data import Batch, DataInfo, Dataset, Sample, Transform, collate, to_device
from visreg.errors import DataError
from visreg.generators import seeded


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
class _Batched:
    """What the two loaders share: how they batch, and what a batch passes through."""

    batching: Batching
    batch_transforms: Sequence[Transform] = ()

    @property
    def batch_size(self) -> int:
        return self.batching.batch_size

    def __len__(self) -> int:
        return len(self.batching)


@define(kw_only=True, eq=False)
class TensorLoader(_Batched):
    """Batches by index out of a dataset that is held in memory, on the device; there is no per-sample work at all."""

    info: DataInfo
    tensors: dict[str, Tensor] = field(repr=False)

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
class SampleLoader(_Batched):
    """Batches put together sample by sample, in this process or by workers."""

    dataset: Dataset
    transforms: Sequence[Transform]
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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        self._plan.epoch, self._plan.start = epoch, start
        try:
            for batch in self._loader:
                yield _transformed(to_device(batch, self.device), self.batch_transforms)
        except DataError as error:
            raise _without_traceback(error) from error.__cause__


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


def _without_traceback(error: DataError) -> DataError:
    """Return ``error``; if a worker raised it, without the worker's traceback, which PyTorch puts into the message."""
    text, kind = str(error), type(error)
    if not text.startswith(f"Caught {kind.__name__} in DataLoader worker"):
        return error
    return kind(text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].rstrip())


def _transformed(batch: Batch, transforms: Sequence[Transform]) -> Batch:
    for transform in transforms:
        batch = transform(batch)
    return batch
