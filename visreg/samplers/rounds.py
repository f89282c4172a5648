"""Samplers that see every sample equally often."""

from __future__ import annotations

import torch
from attrs import define, field
from attrs.validators import ge, instance_of
from torch import Tensor

from visreg.data import Dataset
from visreg.sampler import Sampler, permutation


@define(kw_only=True, eq=False)
class InfiniteSampler(Sampler):
    """One shuffled round through the data after another, without a short batch where they meet.

    An epoch is as many full batches as it takes to see every sample about once; its last batch may reach into the next
    round, and the next epoch goes on from there.

    Args:
        dataset: the training data; given by visreg.
        batch_size: samples of a batch over all processes; given by visreg.
    """

    dataset: Dataset = field(repr=False)
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size) * self.batch_size

    def order(self, epoch: int, seed: int) -> Tensor:
        size, start = len(self.dataset), epoch * len(self)
        first, last = start // size, (start + len(self) - 1) // size
        rounds = torch.cat([permutation(size, seed, number) for number in range(first, last + 1)])
        return rounds[start - first * size :][: len(self)]


@define(kw_only=True, eq=False)
class RepeatAugSampler(Sampler):
    """Every sample several times in a row, each time augmented differently; the samples are shuffled.

    Source: Hoffer et al., "Augment your batch: improving generalization through instance repetition", 2020.

    Args:
        dataset: the training data; given by visreg.
        num_repeats: how often each sample comes in an epoch, from 1; the epoch is that many times as long.
    """

    dataset: Dataset = field(repr=False)
    num_repeats: int = field(default=3, validator=[instance_of(int), ge(1)])

    def __len__(self) -> int:
        return len(self.dataset) * self.num_repeats

    def order(self, epoch: int, seed: int) -> Tensor:
        return permutation(len(self.dataset), seed, epoch).repeat_interleave(self.num_repeats)
