"""Samplers that see some samples more often than others."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from attrs import Attribute, define, field
from attrs.validators import ge, instance_of, optional
from torch import Tensor

from visreg.data import Dataset
from visreg.errors import DataError
from visreg.sampler import Sampler, generator, permutation

logger = logging.getLogger("visreg")


def _weights(_: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, (list, tuple)) and (not all(0 <= item < math.inf for item in value) or not any(value)):
        raise ValueError(f"{attribute.name!r} must be numbers from 0, not all of them 0")


@define(kw_only=True, eq=False)
class WeightedRandomSampler(Sampler):
    """Every sample of an epoch drawn anew, with replacement, the more probably the greater its weight.

    Without weights the classes are balanced: each is drawn equally often in the mean.

    Args:
        dataset: the training data; given by visreg.
        weights: one for each sample, from 0; only their ratios matter.
        class_weights: one for each sample of a class, by class index; ``"balanced"`` for 1 / the size of the class.
        num_samples: how many to draw for an epoch; as many as there are in the data by default.
    """

    dataset: Dataset = field(repr=False)
    weights: Sequence[float] | None = field(default=None, repr=False, validator=_weights)
    class_weights: Literal["balanced"] | Sequence[float] = field(default="balanced", validator=_weights)
    num_samples: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    _cumulated: Tensor = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        each = self._of_samples() if self.weights is None else torch.tensor(self.weights, dtype=torch.float64)
        if len(each) != len(self.dataset):
            raise ValueError(f"weights: are {len(each)}, and the dataset has {len(self.dataset)} samples")
        if self.weights is not None and self.class_weights != "balanced":
            raise ValueError("class_weights: contradict weights; give one of them")
        self._cumulated = each.cumsum(0)

    def _of_samples(self) -> Tensor:
        labels = labels_of(self.dataset)
        counts = labels.bincount()
        if self.class_weights == "balanced":
            return counts.to(torch.float64).reciprocal()[labels]
        of_class = torch.tensor(self.class_weights, dtype=torch.float64)
        if len(of_class) < len(counts):
            raise ValueError(f"class_weights: are {len(of_class)}, and the labels go up to {len(counts) - 1}")
        return of_class[labels]

    def __len__(self) -> int:
        return self.num_samples or len(self.dataset)

    def order(self, epoch: int, seed: int) -> Tensor:
        # Not torch.multinomial, which takes 2**24 samples at most.
        places = torch.rand(len(self), dtype=torch.float64, generator=generator(seed, epoch)) * self._cumulated[-1]
        return torch.searchsorted(self._cumulated, places, right=True).clamp_(max=len(self.dataset) - 1)


@define(kw_only=True, eq=False)
class ClassAwareSampler(Sampler):
    """The classes in turn, each as often as any other; within a class the samples come in shuffled rounds.

    Source: Shen et al., "Relay backpropagation for effective learning of deep convolutional neural networks", 2016.

    Args:
        dataset: the training data; given by visreg.
        num_samples: how many make an epoch; as many as there are in the data by default.
    """

    dataset: Dataset = field(repr=False)
    num_samples: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    _members: list[Tensor] = field(init=False, repr=False)  # the samples of each class that has any

    def __attrs_post_init__(self) -> None:
        labels = labels_of(self.dataset)
        self._members = [(labels == label).nonzero()[:, 0] for label in torch.unique(labels)]

    def __len__(self) -> int:
        return self.num_samples or len(self.dataset)

    def order(self, epoch: int, seed: int) -> Tensor:
        turns = -(-len(self) // len(self._members))
        columns = []
        for label, members in enumerate(self._members):
            rounds = range(-(-turns // len(members)))
            shuffled = [permutation(len(members), seed, epoch, label, number) for number in rounds]
            columns.append(members[torch.cat(shuffled)[:turns]])
        table = torch.stack(columns, 1)  # (turns, classes)
        turn = torch.rand(table.shape, generator=generator(seed, epoch)).argsort(1)
        return table.gather(1, turn).flatten()[: len(self)]


def labels_of(dataset: Dataset) -> Tensor:
    """Return the label of every sample, int64 (len(dataset),); reads them all if the dataset cannot tell otherwise.

    Raises:
        DataError: if its samples have no ``label``, or one that is below 0.
    """
    labels = dataset.labels()
    if labels is None:
        logger.info("reading the labels of %d samples of %s, one by one", len(dataset), dataset.info.name)
        samples = (dataset[index] for index in range(len(dataset)))
        found = [sample.get("label") for sample in samples]
        if any(label is None for label in found):
            raise DataError(f"{dataset.info.name}: has samples without a label; choose another sampler")
        labels = torch.tensor([int(label) for label in found if label is not None])
    if labels.min() < 0:
        raise DataError(f"{dataset.info.name}: has a label below 0: {int(labels.min())}")
    return labels
