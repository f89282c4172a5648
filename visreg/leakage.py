"""Whether two datasets of a config share samples, told by what they take of stand-ins of several sizes."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from attrs import define
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample
from visreg.registry import DATASETS
from visreg.specs import Spec, all_specs

PARTS = ("KFold", "Subset")  # what takes some samples of a dataset
WHOLES = ("ClassBalanced", "CopyPaste", "Mosaic", "Repeat", "Superclass")  # what takes every one
SMALL, LARGE = 1000, 1_000_000  # samples of a stand-in
MANY = 20  # shared samples that are no accident, even of less data than a stand-in


def overlap(one: Spec, other: Spec) -> bool:
    """Return whether some, but not all, samples of one dataset certainly are in the other too.

    Those that are one and the same are meant to be: that is how one sees whether a model can learn at all. Where only
    the data can tell, as where samples are taken by their classes or which of a FirstAvailable is there, the answer is
    no; it is also for specs that are wrong.
    """
    both = [one, other]
    specs = [spec for _, spec in all_specs(both)]
    if not any(spec["type"] in PARTS for spec in specs):
        return False
    try:
        choices = max([1, *(len(spec["datasets"]) for spec in specs if spec["type"] == "FirstAvailable")])
        wanted, sizes = MANY if _by_chance(specs) else 1, (_least(specs), LARGE)
        cases = product(sizes, range(choices))
        return all(_shared(one, other, size, choice) >= wanted for size, choice in cases)
    except Exception:  # of options that are wrong, or too few samples for them: whatever it is, nothing is certain
        return False


def _least(specs: list[Spec]) -> int:
    """Return how many samples there must be for the counts and places that are given, else `SMALL`."""
    counts = [spec["count"] for spec in specs if spec["type"] == "Subset" and spec.get("count")]
    counts += [1 + abs(place) for spec in specs if spec["type"] == "Subset" for place in spec.get("indices") or ()]
    return max(counts) + 1 if counts else SMALL


def _by_chance(specs: list[Spec]) -> bool:
    """Return whether it is a matter of chance what is in two of the parts: they do not follow from one order."""
    parts = [spec for spec in specs if spec["type"] in PARTS]
    orders = {None if spec.get("indices") else _order(spec)["seed"] for spec in parts}
    return len(orders) > 1 or any(spec["type"] in PARTS for part in parts for _, spec in all_specs(part["dataset"]))


def _shared(one: Spec, other: Spec, size: int, choice: int) -> int:
    """Return how many samples of some source, but not all that one of the datasets takes of it, both take."""
    sources: list[Spec] = []
    numbers = [_Taken(sources, size, choice).of(spec) for spec in (one, other)]
    taken = torch.zeros(2, len(sources) * size, dtype=torch.bool)
    for row, places in zip(taken, numbers, strict=True):
        row[places] = True
    mine, theirs = taken.view(2, len(sources), size)
    return int(((mine & theirs).sum(dim=1) * (mine != theirs).any(dim=1)).max())


@define(eq=False)
class _Taken:
    """Numbers the samples of the sources that there are.

    Attributes:
        sources: those seen so far, each a dataset that is not made of others.
        size: how many samples each has.
        choice: which of its datasets a FirstAvailable takes.
    """

    sources: list[Spec]
    size: int
    choice: int

    def of(self, spec: Spec) -> Tensor:
        """Return the numbers of a dataset's samples, int64 (N,)."""
        kind = spec["type"]
        if kind in WHOLES:
            return self.of(spec["dataset"])
        if kind == "Concat":
            return torch.cat([self.of(each) for each in spec["datasets"]])
        if kind == "FirstAvailable":
            return self.of(spec["datasets"][min(self.choice, len(spec["datasets"]) - 1)])
        if kind in PARTS and spec.get("classes") is None:
            whole = self.of(spec["dataset"])
            part = DATASETS.build({**spec, **_order(spec), "dataset": _StandIn(len(whole))})
            return whole[part.places]  # type: ignore[attr-defined]  # both of `PARTS` are Selections
        if spec not in self.sources:
            self.sources.append(spec)
        return torch.arange(self.size) + self.size * self.sources.index(spec)


def _order(spec: Spec) -> dict[str, Any]:
    """Return the options of an order that is to a stratified one, which needs classes, as good as another seed."""
    return {"stratify": False, "seed": spec.get("seed", 0) + (1 << 40) * bool(spec.get("stratify"))}


@define
class _StandIn(Dataset):
    """A dataset of so many samples, which nobody looks at."""

    size: int

    @property
    def info(self) -> DataInfo:
        return DataInfo(name="a stand-in")

    def open(self) -> None: ...

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        raise IndexError(index)
