"""Which samples make up which batch of which epoch: a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from attrs import define
from torch import Tensor

from visreg import dist
from visreg.errors import DataError
from visreg.random_draws import image_keys
from visreg.sampler import Sampler, permutation

EPOCH_BITS = 32  # of a draw: above them is how often the sample came before in its epoch


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
    sampler: Sampler | None = None

    def __attrs_post_init__(self) -> None:
        world = dist.world_size()
        if self.train and self.batch_size % world:
            raise DataError(f"train.batch_size: {self.batch_size} does not divide by {world} processes; change one")
        if self.size == 0:
            raise DataError("the dataset is empty; check where it was read from")
        if len(self) == 0:
            raise DataError(
                f"the dataset has {self.epoch_size} samples, which is less than one batch of {self.batch_size}; "
                "lower batch_size or set drop_last=False"
            )

    @property
    def epoch_size(self) -> int:
        """How many samples there are in an epoch: as many as in the dataset, unless a sampler decides."""
        return self.size if self.sampler is None else len(self.sampler)

    def __len__(self) -> int:
        usable = self.epoch_size
        if self.train:
            usable -= usable % (self.batch_size if self.drop_last else dist.world_size())
        return -(-usable // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the samples of ``epoch``, all batches one after another, int64 (epoch_size,).

        Raises:
            DataError: if the sampler gives anything else.
        """
        if self.sampler is not None:
            return self._checked(self.sampler, self.sampler.order(epoch, self.seed))
        if self.train if self.shuffle is None else self.shuffle:
            return permutation(self.size, self.seed, epoch)
        return torch.arange(self.size)

    def _checked(self, sampler: Sampler, order: Tensor) -> Tensor:
        right = order.dtype == torch.int64 and order.shape == (self.epoch_size,)
        if not right or order.min() < 0 or order.max() >= self.size:
            raise DataError(
                f"train.sampler: {type(sampler).__name__} must give {self.epoch_size} int64 indices below {self.size}, "
                f"not {order.dtype} {tuple(order.shape)}{f' up to {order.max()}' if order.numel() else ''}"
            )
        return order

    def batches(self, epoch: int, start: int = 0, device: torch.device | None = None) -> Iterator[Tensor]:
        """Yield this process's indices of each batch, int64 (n,), on ``device``; n may be 0 in an evaluation."""
        return self._cut(self.order(epoch).to(device, non_blocking=True), start)

    def image_keys(self, epoch: int, start: int = 0, device: torch.device | None = None) -> Iterator[Tensor]:
        """Yield what the randomness of each sample of those batches comes from, int64 (n,), as `random_draws` does."""
        order = self.order(epoch).to(device, non_blocking=True)
        return self._cut(image_keys(self.seed, self._draws(order, epoch), order), start)

    def keys(self, epoch: int, start: int = 0) -> Iterator[list[tuple[int, int]]]:
        """Yield the same batches as pairs (draw, index), where no two samples of a run have the same pair.

        So a sample that comes twice in an epoch is augmented twice. The first time ``draw`` is the epoch.
        """
        order = self.order(epoch)
        draws = self._draws(order, epoch)
        for pair in zip(self._cut(draws, start), self._cut(order, start), strict=True):
            yield list(zip(*(part.tolist() for part in pair), strict=True))

    def _draws(self, order: Tensor, epoch: int) -> Tensor:
        draws = torch.full_like(order, epoch)
        return draws if self.sampler is None else draws + (_times_before(order) << EPOCH_BITS)

    def _cut(self, order: Tensor, start: int) -> Iterator[Tensor]:
        """Yield this process's part of each batch."""
        rank, world = dist.rank(), dist.world_size()
        for part in torch.split(order, self.batch_size)[start : len(self)]:
            if world > 1:
                part = part[: len(part) - len(part) % world if self.train else None][rank::world]
            yield part


def epoch_of(draw: int) -> int:
    """Return the epoch that a ``draw`` of `Batching.keys` belongs to."""
    return draw % (1 << EPOCH_BITS)


def _times_before(order: Tensor) -> Tensor:
    """Return how often each sample has come before in ``order``, int64 of its shape.

    >>> _times_before(torch.tensor([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    values, places = order.sort(stable=True)
    times = torch.arange(len(order), device=order.device) - torch.searchsorted(values, values)
    return torch.empty_like(order).scatter_(0, places, times)
