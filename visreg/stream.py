"""The loader of datasets that are streams: their samples come one after another, and have no index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import torch
from attrs import define, field

from visreg import dist
from visreg.data import Batch, DataInfo, Sample, Transform, collate, to_device
from visreg.errors import DataError
from visreg.generators import mix, seeded
from visreg.transform import transform_batch, transform_sample


@define(kw_only=True, eq=False)
class StreamLoader:
    """Batches of what comes next; an epoch is so many samples, and the next one goes on where it ends.

    A sample's ``index`` is its position in the stream, counted from the start of training; what is drawn for it comes
    from (seed, position). Every process reads the whole stream, in itself, and takes its share of each batch.

    Attributes:
        start_at: gives the samples from a position on, without end.
        samples: how many make an epoch.
        train: whether the processes need equal shares of a batch; else none is left out.
    """

    waits: ClassVar[bool] = True
    info: DataInfo
    start_at: Callable[[int], Iterator[Sample]]
    samples: int
    batch_size: int
    train: bool
    seed: int
    device: torch.device
    transforms: Sequence[Transform] = ()
    batch_transforms: Sequence[Transform] = ()
    _source: Iterator[Sample] = field(factory=lambda: iter(()), init=False, repr=False)
    _position: int = field(default=-1, init=False)

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from number ``start`` on."""
        for first in range(start * self.batch_size, self.samples, self.batch_size):
            size = min(self.batch_size, self.samples - first)
            taken = [self._take(epoch * self.samples + place) for place in range(first, first + size)]
            share = taken[dist.rank() : size - size % dist.world_size() if self.train else size : dist.world_size()]
            if share:
                batch: Batch = to_device(collate(share), self.device)
                keys = torch.tensor([mix(self.seed, sample["index"]) for sample in share], device=self.device)
                yield transform_batch(batch, self.batch_transforms, keys)

    def _take(self, position: int) -> Sample:
        with seeded(self.seed, position):
            if position != self._position:
                self._source = self.start_at(position)
            sample = dict(next(self._source))
            self._position = position + 1
            try:
                sample = transform_sample(sample, self.transforms, mix(self.seed, position))
            except DataError as error:
                error.args = (f"{self.info.name}: sample {position} of the stream: {error}",)
                raise
        sample["index"] = position
        return sample
