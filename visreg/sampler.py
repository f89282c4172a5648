"""In what order, and how often, the samples of a dataset are seen in training."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from visreg.generators import mix


class Sampler(ABC):
    """The samples of each epoch: a function of the seed and the epoch, so that any of them can be found again.

    The constructor takes options, and of what visreg offers whatever it has a parameter for: ``dataset``, the opened
    training data, and ``batch_size``, the samples of one optimizer step over all processes.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return how many samples an epoch has; the same for every epoch."""

    @abstractmethod
    def order(self, epoch: int, seed: int) -> Tensor:
        """Return the samples of ``epoch``, indices of the dataset, int64 (len(self),); some may be in it repeatedly.

        What is random in it is drawn from a `generator` of its own, never from the generators that training draws from.
        """


def generator(*parts: int) -> torch.Generator:
    """Return a generator seeded by ``parts``, such as the seed and the epoch."""
    return torch.Generator().manual_seed(mix(*parts))


def permutation(size: int, *parts: int) -> Tensor:
    """Return 0 to ``size - 1`` shuffled, int64 (size,): a function of the arguments alone."""
    return torch.randperm(size, generator=generator(*parts))
