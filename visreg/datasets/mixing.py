"""What datasets share whose samples are each made of several of another's, for detection and segmentation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from attrs import Attribute, define

from visreg.data import DataInfo, Dataset, Sample
from visreg.datasets.placing import PLACEABLE
from visreg.datasets.selection import open_indexed
from visreg.errors import DataError
from visreg.samples import UNREADABLE, place


def is_range(_: object, attribute: Attribute[Any], value: Any) -> None:
    """Accept two numbers above 0, of which the second is not the smaller."""
    right = isinstance(value, (list, tuple)) and len(value) == 2
    if not right or not all(isinstance(end, (int, float)) for end in value) or not 0 < value[0] <= value[1]:
        raise ValueError(f"{attribute.name}: must be two numbers above 0, the smaller first, got {value!r}")


@define(kw_only=True, eq=False)
class Mixing(Dataset):
    """A dataset with as many samples as another, each mixed with some more of it; a subclass says how.

    Which ones, and how, is drawn from the generators as they are, which visreg seeds by seed, epoch and index.
    """

    dataset: Dataset
    probability: float
    epochs: int | None

    def __attrs_post_init__(self) -> None:
        self._check(self.dataset.info.held)

    @property
    @abstractmethod
    def partners(self) -> int:
        """How many other samples are mixed with each."""

    @property
    def needed(self) -> tuple[str, ...]:
        """What a sample must hold."""
        return ("image",)

    @abstractmethod
    def mix(self, sample: Sample, others: Sequence[Sample]) -> Sample:
        """Return a sample made of others, all of which hold the same keys."""

    def _check(self, keys: Sequence[str]) -> None:
        """Make sure that samples with these keys can be mixed.

        Raises:
            DataError: if not.
        """
        name = type(self).__name__
        for key in self.needed:
            if key not in keys:
                raise DataError(f"dataset: {self.dataset.info.name} has no {key!r}, which {name} needs")
        for key in keys:
            if key == "label" or key not in PLACEABLE:
                raise DataError(f"dataset: {self.dataset.info.name} has {key!r}, which {name} cannot mix")

    @property
    def info(self) -> DataInfo:
        return self.dataset.info

    def open(self) -> None:
        open_indexed(self.dataset, type(self).__name__)

    def __len__(self) -> int:
        return len(self.dataset)

    def classes_in(self, index: int) -> frozenset[int]:
        """Return the classes in the sample before anything is mixed with it."""
        return self.dataset.classes_in(index)

    def where(self, index: int) -> str:
        return self.dataset.where(index)

    def __getitem__(self, index: int) -> Sample:
        return self.at(index, 0)

    def at(self, index: int, epoch: int) -> Sample:
        sample = self.dataset.at(index, epoch)
        self._check([*sample])
        over = self.epochs is not None and epoch >= self.epochs
        if over or float(torch.rand(())) >= self.probability:
            return sample
        chosen = torch.randint(len(self.dataset), (self.partners,)).tolist()
        others = [self._other(number, epoch) for number in chosen]
        for number, other in zip(chosen, others, strict=True):
            if other.keys() != sample.keys() or len(other["image"]) != len(sample["image"]):
                forms = [f"{', '.join(each)} ({len(each['image'])} channels)" for each in (sample, other)]
                raise DataError(f"cannot be mixed with number {number}: it holds {forms[0]}, and that {forms[1]}")
        return self.mix(sample, others)

    def _other(self, index: int, epoch: int) -> Sample:
        """Return a sample to mix with, which must not be blamed on the one it is mixed with.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            return self.dataset.at(index, epoch)
        except (DataError, *UNREADABLE) as error:
            text = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            raise DataError(f"{type(self).__name__} cannot read {place(self.dataset, index)}: {text}") from error


def between(low: float, high: float) -> float:
    """Draw a number."""
    return low + (high - low) * float(torch.rand(()))
