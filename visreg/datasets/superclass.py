"""A second, coarser class for every image of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from attrs import define, evolve, field
from attrs.validators import instance_of, matches_re, min_len
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample
from visreg.errors import DataError, suggest


@define(kw_only=True, eq=False)
class Superclass(Dataset):
    """Gives each sample a further class, which its ``label`` belongs to: of a digit, whether it is even or odd.

    Args:
        dataset: has a ``label`` for each image.
        key: the name of the further class in a sample, int64 ().
        classes: by the name of each further class, in the order of their indices, the names of those of the dataset's
            classes that belong to it, or their indices where they have no names. Each class belongs to one.

    Raises:
        ValueError: if a class belongs to none, or to several, or there is no such class.
    """

    dataset: Dataset
    key: str = field(
        default="superclass",
        validator=[instance_of(str), matches_re(r"(?!(image|label|mask|boxes|labels|masks|crowd|area|index)$)\w+")],
    )
    classes: Mapping[str, Sequence[str | int]] = field(validator=min_len(1))
    table: Tensor = field(init=False, repr=False)  # the further class of each label, int64 (classes,)
    held: dict[str, Tensor] = field(factory=dict, init=False, repr=False)  # the samples as one batch

    def __attrs_post_init__(self) -> None:
        self.table = self._table()

    @property
    def info(self) -> DataInfo:
        inner = self.dataset.info
        sample = {**inner.sample, self.key: torch.zeros((), dtype=torch.int64)} if inner.sample else {}
        others = {**inner.others, self.key: tuple(self.classes)}
        return evolve(inner, others=others, sample=sample, keys=(*inner.keys, self.key))

    def open(self) -> None:
        self.dataset.open()
        try:
            self.table = self._table()
        except ValueError as error:  # its classes were not known before
            raise DataError(f"Superclass: {error}") from error

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._with(self.dataset[index])

    def at(self, index: int, epoch: int) -> Sample:
        return self._with(self.dataset.at(index, epoch))

    def unread(self, index: int, epoch: int) -> Sample:
        return self._with(self.dataset.unread(index, epoch))

    def classes_in(self, index: int) -> frozenset[int]:
        return self.dataset.classes_in(index)

    def where(self, index: int) -> str:
        return self.dataset.where(index)

    @property
    def fixed(self) -> bool:
        return self.dataset.fixed

    def stamps(self) -> Sequence[str] | None:
        return self.dataset.stamps()

    def labels(self) -> Tensor | None:
        return self.dataset.labels()

    def stream(self) -> Callable[[int], Iterator[Sample]] | None:
        start_at = self.dataset.stream()
        return start_at and (lambda position: map(self._with, start_at(position)))

    def tensors(self) -> Mapping[str, Tensor] | None:
        if not self.held and (tensors := self.dataset.tensors()) is not None:
            self.held = self._with(tensors)
        return self.held or None

    def _with(self, samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a sample, or all as one batch, with the further class."""
        label = samples["label"]
        wrong = label[(label < 0) | (label >= len(self.table))].flatten().tolist()
        if wrong:
            raise DataError(f"there is a label {wrong[0]}, which belongs to no {self.key} of {len(self.table)} classes")
        return {**samples, self.key: self.table[label]}

    def _table(self) -> Tensor:
        names = self.dataset.info.classes
        if not names and any(isinstance(member, str) for members in self.classes.values() for member in members):
            return torch.empty(0, dtype=torch.int64)  # they are known when the data is opened
        owner: dict[str | int, int] = {}
        for number, (superclass, members) in enumerate(self.classes.items()):
            for member in members:
                if names and member not in names:
                    problem = f"{superclass!r} has {member!r}, no class of {self.dataset.info.name}"
                    raise ValueError(f"classes: {problem}{suggest(str(member), names)}")
                if owner.setdefault(member, number) != number:
                    raise ValueError(f"classes: {member!r} is in {superclass!r} and in another")
        everything = names or range(len(owner))
        if missing := [member for member in everything if member not in owner]:
            raise ValueError(f"classes: {missing[0]!r} is in none of {', '.join(self.classes)}")
        return torch.tensor([owner[member] for member in everything])
