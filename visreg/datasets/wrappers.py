"""Datasets made of other datasets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import define, field
from attrs.validators import min_len
from torch import Tensor

from visreg import dist
from visreg.data import DataInfo, Dataset, Sample
from visreg.datasets.files import DamagedError
from visreg.errors import DataError

logger = logging.getLogger("visreg")


@define(kw_only=True, eq=False)
class FirstAvailable(Dataset):
    """The first of several datasets that is there; says loudly which one that is, and why the others are not.

    Data that is there but damaged is an error, and no reason to take the next. All processes take the same one.

    Args:
        datasets: in order of preference.
    """

    datasets: Sequence[Dataset] = field(validator=min_len(1))
    chosen: Dataset | None = field(default=None, init=False, repr=False)

    @property
    def info(self) -> DataInfo:
        return (self.chosen or self.datasets[0]).info

    def open(self) -> None:
        if self.chosen is not None:
            return
        reasons: list[str] = []
        for dataset in self.datasets:
            reason = _reason_against(dataset)
            if not reason:
                self.chosen = dataset
                if reasons and dist.is_main():
                    logger.warning("USING %s, since %s", dataset.info.name.upper(), "\nand ".join(reasons))
                return
            name = dataset.info.name
            reasons.append(f"{name} is not available: {reason.removeprefix(f'{name}: ')}")
        raise DataError("none of the datasets is available:\n" + "\n".join(reasons))

    def __len__(self) -> int:
        return len(self.chosen or self.datasets[0])

    def __getitem__(self, index: int) -> Sample:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen[index]

    def at(self, index: int, epoch: int) -> Sample:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.at(index, epoch)

    def unread(self, index: int, epoch: int) -> Sample:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.unread(index, epoch)

    def classes_in(self, index: int) -> frozenset[int]:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.classes_in(index)

    def where(self, index: int) -> str:
        return (self.chosen or self.datasets[0]).where(index)

    def stream(self) -> Callable[[int], Iterator[Sample]] | None:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.stream()

    def stamps(self) -> Sequence[str] | None:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.stamps()

    def labels(self) -> Tensor | None:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.labels()

    @property
    def fixed(self) -> bool:
        return self.chosen is not None and self.chosen.fixed

    def tensors(self) -> Mapping[str, Tensor] | None:
        self.open()
        assert self.chosen is not None, "open() has chosen"
        return self.chosen.tensors()


def _reason_against(dataset: Dataset) -> str:
    """Open ``dataset``; return why some process cannot, or nothing.

    Raises:
        DamagedError: if the data is damaged for some process.
    """
    reasons: tuple[str, ...] = ()
    damaged = False
    try:
        dataset.open()
    except DataError as error:
        reasons, damaged = error.mistakes, isinstance(error, DamagedError)
    answers = [answer for answer in dist.gather((reasons, damaged)) if answer[0]]
    for mistakes, is_damaged in answers:
        if is_damaged:
            raise DamagedError(*mistakes)
    return str(DataError(*answers[0][0])) if answers else ""


def check_same(train: Dataset, val: Dataset) -> None:
    """Check that two opened datasets, if either was a choice, are of the same data.

    Raises:
        DataError: if they are not, since a model trained on one would be scored on the other.
    """
    if train.info.name != val.info.name and (_is_choice(train) or _is_choice(val)):
        raise DataError(
            f"train.dataset: is {train.info.name}, but val.dataset is {val.info.name}; "
            "part of the files of one must be missing: name one dataset in both"
        )


def _is_choice(dataset: Dataset) -> bool:
    """Return whether what a dataset is of was only decided when it was opened."""
    inside = [*getattr(dataset, "datasets", ()), getattr(dataset, "dataset", None)]
    return isinstance(dataset, FirstAvailable) or any(_is_choice(each) for each in inside if isinstance(each, Dataset))
