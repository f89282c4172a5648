"""Random numbers for each image of a batch: functions of what they are for, the same alone, in a batch and on a GPU."""

from __future__ import annotations

import torch
from attrs import define
from torch import Tensor

from visreg.generators import GOLDEN, MULTIPLIERS, mix

BITS = 24  # of a number from 0 to 1, which float32 holds exactly


def image_keys(seed: int, draws: int | Tensor, indices: Tensor) -> Tensor:
    """Return what all random numbers of each image come from, int64 (N,): its ``mix(seed, draw, index)``.

    Args:
        seed: of the run.
        draws: which time each sample is drawn, int64 (N,), or one number for all; the epoch, as a rule.
        indices: of the samples, int64 (N,).

    >>> image_keys(3, 5, torch.tensor([7])).tolist() == [mix(3, 5, 7)]
    True
    """
    state = torch.zeros_like(indices)
    for part in (seed, draws, indices):
        state = _mixed((state ^ part) + _signed(GOLDEN))
    return _shifted(state, 1)


@define(eq=False)
class Draws:
    """The random numbers of one transform for the images of a batch.

    Each call gives others. Which they are depends on an image's key, on the transform's place and on the calls before,
    and not on the images beside it (splitmix64, Steele et al. 2014, as a counter-based generator).

    >>> alone, both = Draws(torch.tensor([7])), Draws(torch.tensor([5, 7]))
    >>> bool(alone.uniform(3)[0].equal(both.uniform(3)[1]))
    True

    Attributes:
        keys: of the images, int64 (N,).
        place: of the transform among the others, and among those inside the same one.
    """

    keys: Tensor
    place: tuple[int, ...] = ()
    _count: int = 0

    def __len__(self) -> int:
        return len(self.keys)

    def bits(self, *shape: int) -> Tensor:
        """Return 64 random bits for each image, int64 (N, *shape)."""
        first, size = self._count + 1, torch.Size(shape).numel()
        self._count += size
        steps = torch.arange(first, first + size, device=self.keys.device) * _signed(GOLDEN) + mix(*self.place)
        return _mixed(self.keys[:, None] + steps).view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers from 0 to below 1, float32 (N, *shape)."""
        return _shifted(self.bits(*shape), 64 - BITS).to(torch.float32) * 2.0**-BITS

    def integers(self, *highs: int | Tensor) -> Tensor:
        """Return whole numbers from 0 to below each of K ``highs``, which may differ by image: int64 (N, K)."""
        numbers = _shifted(self.bits(len(highs)), 33).unbind(dim=1)
        return torch.stack([number * high for number, high in zip(numbers, highs, strict=True)], dim=1) >> 31

    def inside(self, number: int) -> Draws:
        """Return the draws of a transform that is inside this one."""
        return Draws(self.keys, (*self.place, number))


def _mixed(state: Tensor) -> Tensor:
    for shift, factor in zip((30, 27), MULTIPLIERS, strict=True):
        state = (state ^ _shifted(state, shift)) * _signed(factor)
    return state ^ _shifted(state, 31)


def _shifted(state: Tensor, by: int) -> Tensor:
    """Return 64 bits shifted to the right, with zeros coming in."""
    return (state >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    """Return the int64 that has the same 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
