"""Which samples make up which batch of which epoch: a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import define
from torch import Tensor

from visreg import dist
from visreg.errors import DataError
from visreg.generators import mix


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
            order = torch.randperm(self.size, generator=torch.Generator().manual_seed(mix(self.seed, epoch)))
        rank, world = dist.rank(), dist.world_size()
        for number in range(start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.train and len(batch) % world:
                batch = batch[: -(len(batch) % world)]
            yield batch[rank::world]
