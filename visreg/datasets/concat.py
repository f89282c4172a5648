"""Several datasets, one after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, zip_longest

import torch
from attrs import define, field
from attrs.validators import min_len
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample
from visreg.datasets.files import DamagedError
from visreg.datasets.selection import open_indexed
from visreg.errors import DataError


@define(kw_only=True, eq=False)
class Concat(Dataset):
    """All samples of several datasets, one dataset after another; they must have the same classes and keys.

    Args:
        datasets: in order.

    Raises:
        DataError: naming two datasets whose classes are not the same, or whose samples do not hold the same keys.
    """

    datasets: Sequence[Dataset] = field(validator=min_len(1))
    ends: list[int] = field(factory=list, init=False, repr=False)  # of each dataset, in the whole

    def __attrs_post_init__(self) -> None:
        self._check()

    @property
    def info(self) -> DataInfo:
        infos = [dataset.info for dataset in self.datasets]
        known = next((info for info in infos if info.classes), infos[0])
        alike = len({_form(info.sample) for info in infos}) == 1
        return DataInfo(
            name=" + ".join(dict.fromkeys(info.name for info in infos)),
            classes=known.classes,
            others=known.others,
            sample=infos[0].sample if alike else {},
            keys=infos[0].held,
        )

    def open(self) -> None:
        if not self.ends:
            self._open_each()
            self._check()
            self.ends = list(accumulate(map(len, self.datasets)))

    def _open_each(self) -> None:
        """Open every dataset, though one before it cannot be.

        Raises:
            DataError: telling what is wrong with each; a DamagedError if one of them is.
        """
        errors: list[DataError] = []
        for dataset in self.datasets:
            try:
                open_indexed(dataset, "Concat")
            except DataError as error:
                errors.append(error)
        if errors:
            kind = DamagedError if any(isinstance(error, DamagedError) for error in errors) else DataError
            raise kind(*dict.fromkeys(mistake for error in errors for mistake in error.mistakes)) from errors[0]

    def _check(self) -> None:
        for number, dataset in enumerate(self.datasets):
            for before in range(number):
                problem = _difference(self.datasets[before].info, dataset.info)
                if problem:
                    pair = (f"datasets[{place}], {self.datasets[place].info.name}," for place in (before, number))
                    raise DataError("datasets: {} and {} differ in their {}".format(*pair, problem))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else sum(map(len, self.datasets))

    def _find(self, index: int) -> tuple[Dataset, int]:
        """Return which dataset a sample is of, and its place there."""
        self.open()
        number = bisect_right(self.ends, index)
        return self.datasets[number], index - ([0, *self.ends])[number]

    def __getitem__(self, index: int) -> Sample:
        dataset, place = self._find(index)
        return dataset[place]

    def at(self, index: int, epoch: int) -> Sample:
        dataset, place = self._find(index)
        return dataset.at(place, epoch)

    def unread(self, index: int, epoch: int) -> Sample:
        dataset, place = self._find(index)
        return dataset.unread(place, epoch)

    def classes_in(self, index: int) -> frozenset[int]:
        dataset, place = self._find(index)
        return dataset.classes_in(place)

    def where(self, index: int) -> str:
        if not self.ends or index >= self.ends[-1]:
            return ""
        dataset, place = self._find(index)
        return dataset.where(place) or f"{dataset.info.name}[{place}]"

    def stamps(self) -> Sequence[str] | None:
        self.open()
        stamps = [dataset.stamps() for dataset in self.datasets]
        if any(each is None for each in stamps):
            return None
        return [f"{number} {stamp}" for number, each in enumerate(stamps) for stamp in each or ()]

    def labels(self) -> Tensor | None:
        self.open()
        labels = [dataset.labels() for dataset in self.datasets]
        return torch.cat([each for each in labels if each is not None]) if all(x is not None for x in labels) else None

    @property
    def fixed(self) -> bool:
        return all(dataset.fixed for dataset in self.datasets)

    def tensors(self) -> Mapping[str, Tensor] | None:
        self.open()
        parts: list[Mapping[str, Tensor]] = []
        for dataset in self.datasets:
            part = dataset.tensors()
            if part is None or (parts and _form(part, 1) != _form(parts[0], 1)):
                return None
            parts.append(part)
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _form(sample: Mapping[str, Tensor], skipped: int = 0) -> tuple[tuple[str, torch.dtype, torch.Size], ...]:
    """Return the keys of a sample or batch, and the dtype and shape of each, without its first dimensions."""
    return tuple((key, sample[key].dtype, sample[key].shape[skipped:]) for key in sorted(sample))


def _difference(one: DataInfo, other: DataInfo) -> str:
    """Return in what two datasets differ that must not, as far as that is known, or nothing."""
    if set(one.held) != set(other.held):
        return f"keys: the first has {', '.join(sorted(one.held))}, the other {', '.join(sorted(other.held))}"
    for key, names in one.class_names.items():
        others = other.class_names.get(key, names)
        if names != others:
            pairs = enumerate(zip_longest(names, others, fillvalue="none"))
            number, (first, second) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
            return f"classes of {key!r}: number {number} is {first!r} in the first, {second!r} in the other"
    return ""
