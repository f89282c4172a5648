"""Datasets that are samples of another, by their places in it: all several times, or the rarer ones more often."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from attrs import define, field
from attrs.validators import ge, gt, instance_of, lt
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample
from visreg.errors import DataError
from visreg.sampler import permutation

logger = logging.getLogger("visreg")

IN_MEMORY = 1 << 30  # bytes: what is in memory already is repeated there up to this size

Present = Sequence[frozenset[int]]  # the classes in each sample


@define(kw_only=True, eq=False)
class Selection(Dataset):
    """Samples of another dataset, by a list of their places in it; a subclass says which.

    Attributes:
        dataset: the other one.
        chosen: the places, int64 (len(self),), once it is opened.
    """

    dataset: Dataset
    chosen: Tensor | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def choose(self) -> Tensor:
        """Return the places in the opened ``dataset``, int64 (N,); some may be among them repeatedly.

        Raises:
            DataError: if it has not what is to be chosen.
        """

    @property
    def info(self) -> DataInfo:
        return self.dataset.info

    def open(self) -> None:
        if self.chosen is None:
            open_indexed(self.dataset, type(self).__name__)
            chosen = self.choose()
            if not len(chosen):
                whole = f"of the {len(self.dataset)} samples of {self.dataset.info.name}"
                raise DataError(f"{type(self).__name__}: takes none {whole}")
            self.chosen = chosen

    @property
    def places(self) -> Tensor:
        """The places in ``dataset``, which this opens."""
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen

    def __len__(self) -> int:
        return 0 if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.places[index])]

    def at(self, index: int, epoch: int) -> Sample:
        return self.dataset.at(int(self.places[index]), epoch)

    def unread(self, index: int, epoch: int) -> Sample:
        return self.dataset.unread(int(self.places[index]), epoch)

    def classes_in(self, index: int) -> frozenset[int]:
        return self.dataset.classes_in(int(self.places[index]))

    def where(self, index: int) -> str:
        if self.chosen is None or index >= len(self.chosen):
            return ""
        place = int(self.chosen[index])
        return self.dataset.where(place) or f"{self.dataset.info.name}[{place}]"

    def stamps(self) -> Sequence[str] | None:
        stamps = self.dataset.stamps() if len(self.places) else None
        return None if stamps is None else [stamps[place] for place in self.places.tolist()]

    def labels(self) -> Tensor | None:
        labels = self.dataset.labels() if len(self.places) else None
        return None if labels is None else labels[self.places]

    @property
    def fixed(self) -> bool:
        return self.dataset.fixed

    def tensors(self) -> Mapping[str, Tensor] | None:
        whole = self.dataset.tensors() if len(self.places) else None
        if whole is None:
            return None
        size = sum(tensor.nbytes // max(1, len(tensor)) for tensor in whole.values()) * len(self.places)
        if len(self.places) > len(self.dataset) and size > IN_MEMORY:  # the whole is there, and this would be more
            return None
        return {key: tensor[self.places] for key, tensor in whole.items()}


def open_indexed(dataset: Dataset, name: str) -> None:
    """Open a dataset for a wrapper called ``name``.

    Raises:
        DataError: if it is a stream, whose samples have no index.
    """
    dataset.open()
    if dataset.stream() is not None:
        raise DataError(f"{name}: {dataset.info.name} is a stream, whose samples have no index to be chosen by")


def present_in(dataset: Dataset) -> Present:
    """Return the classes in every sample, which are read one by one if the dataset cannot tell otherwise."""
    labels = dataset.labels()
    if labels is not None:
        return [frozenset({label}) for label in labels.tolist()]
    logger.info("looking for the classes in the %d samples of %s", len(dataset), dataset.info.name)
    return [dataset.classes_in(index) for index in range(len(dataset))]


def shuffled(dataset: Dataset, seed: int, stratify: bool) -> Tensor:
    """Return the places of all samples in random order, int64 (N,); stratified, class after class.

    A sample that has several classes counts as of the rarest of them, and one that has none as of a class of its own.
    """
    order = permutation(len(dataset), seed)
    if not stratify:
        return order
    present = present_in(dataset)
    counts = Counter(label for labels in present for label in labels)
    of_class = [min(labels, key=lambda label: (counts[label], label), default=-1) for labels in present]
    return order[torch.tensor(of_class, dtype=torch.int64)[order].argsort(stable=True)]


@define(kw_only=True, eq=False)
class Repeat(Selection):
    """A dataset several times over, for one so small that an epoch would be over too soon; each time augmented anew.

    Args:
        dataset: the one to repeat.
        times: how often.
    """

    times: int = field(validator=[instance_of(int), ge(1)])

    def choose(self) -> Tensor:
        return torch.arange(len(self.dataset)).repeat(self.times)


@define(kw_only=True, eq=False)
class ClassBalanced(Selection):
    """Samples of rare classes several times in an epoch: repeat factor sampling.

    A class that is in a share f of the samples has the repeat factor max(1, sqrt(threshold / f)); a sample comes as
    often as the greatest factor of its classes says, rounded up as in mmdetection; one without any class comes once.
    Whether a sample has a class once or ten times makes no difference.

    Source: Gupta et al., "LVIS: a dataset for large vocabulary instance segmentation", 2019.

    Args:
        dataset: the one to balance, with a label for each image, or with objects, or masks.
        threshold: the share of samples below which a class is rare; 0.001 is that of LVIS.
    """

    threshold: float = field(default=1e-3, validator=[gt(0), lt(1)])

    def choose(self) -> Tensor:
        present = present_in(self.dataset)
        counts = Counter(label for labels in present for label in labels)
        # Up by whole numbers: what is rounded here must not be one more because of the last bit of a root.
        factors = {label: math.sqrt(self.threshold * len(present) / count) for label, count in counts.items()}
        times = [max((math.ceil(factors[label] - 1e-9) for label in labels), default=1) for labels in present]
        return torch.arange(len(present)).repeat_interleave(torch.tensor(times).clamp(min=1))
