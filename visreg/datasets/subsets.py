"""Parts of a dataset: some of its samples, and the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from attrs import Attribute, define, evolve, field
from attrs.validators import and_, deep_iterable, ge, gt, in_, instance_of, le, min_len, optional
from torch import Tensor

from visreg.data import DataInfo
from visreg.datasets.selection import Selection, present_in, shuffled
from visreg.errors import DataError, suggest


@define(kw_only=True, eq=False)
class Subset(Selection):
    """Some samples of a dataset: those listed, so many drawn by chance, or those of some classes.

    Classes keep their numbers, and samples their order. With ``classes``, ``count`` and ``fraction`` are of the
    samples of these classes.

    Args:
        dataset: the whole.
        indices: places in it, counted from 0; negative ones from its end.
        count: how many samples to draw.
        fraction: of the samples, this share is drawn, rounded.
        classes: the names of classes; a sample is taken if one of them is in it.
        stratify: draw such that each class has the share that it has in the whole, but for a sample; a sample of
            several classes counts as of the rarest.
        rest: take all others instead, so that two sections of a config share a dataset between them.
        seed: of what is drawn.
    """

    indices: Sequence[int] | None = field(
        default=None,
        repr=False,
        validator=optional(deep_iterable(instance_of(int), and_(instance_of((list, tuple)), min_len(1)))),
    )
    count: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    fraction: float | None = field(default=None, validator=optional([gt(0), le(1)]))
    classes: Sequence[str] | None = field(
        default=None, validator=optional(deep_iterable(instance_of(str), and_(instance_of((list, tuple)), min_len(1))))
    )
    stratify: bool = field(default=False, validator=instance_of(bool))
    rest: bool = field(default=False, validator=instance_of(bool))
    seed: int = field(default=0, validator=instance_of(int))

    def __attrs_post_init__(self) -> None:
        given = [name for name in ("indices", "count", "fraction", "classes") if getattr(self, name) is not None]
        if not given:
            raise ValueError("which samples? give indices, count, fraction or classes")
        if len(given) > 1 and given not in (["count", "classes"], ["fraction", "classes"]):
            raise ValueError(f"{given[1]}: contradicts {given[0]}; give one of them")
        if self.stratify and self.count is None and self.fraction is None:
            raise ValueError("stratify: of no use without count or fraction; remove it")
        if self.classes is not None and self.info.classes:
            self._wanted()

    def choose(self) -> Tensor:
        size = len(self.dataset)
        taken = torch.zeros(size, dtype=torch.bool)
        if self.indices is not None:
            wrong = [place for place in self.indices if not -size <= place < size]
            if wrong:
                raise DataError(f"Subset.indices: {self.info.name} has {size} samples, and so no number {wrong[0]}")
            if not self.rest:
                return torch.tensor([place % size for place in self.indices])
            taken[torch.tensor(self.indices)] = True
        else:
            taken[self._drawn()] = True
        return (taken != self.rest).nonzero()[:, 0]

    def _drawn(self) -> Tensor:
        drawing = self.count is not None or self.fraction is not None
        order = shuffled(self.dataset, self.seed, self.stratify) if drawing else torch.arange(len(self.dataset))
        if self.classes is not None:
            wanted, present = self._wanted(), present_in(self.dataset)
            order = order[torch.tensor([bool(wanted & labels) for labels in present])[order]]
        if not drawing:
            return order
        count = self.count if self.count is not None else round((self.fraction or 0) * len(order))
        if count > len(order):
            raise DataError(f"Subset.count: is {count}, and there are {len(order)} samples in {self.info.name}")
        if not self.stratify:
            return order[:count]
        places = torch.arange(len(order) + 1) * count // max(1, len(order))  # as even as can be
        return order[places[1:] > places[:-1]]

    def _wanted(self) -> frozenset[int]:
        """Return the numbers of the wanted classes.

        Raises:
            DataError: if the dataset has no such class.
        """
        key = "mask" if "label" not in self.info.held and "labels" not in self.info.held else "label"
        names = self.info.classes_of(key)
        for name in self.classes or ():
            if name not in names:
                raise DataError(f"classes: {self.info.name} has no class {name!r}{suggest(name, names)}")
        return frozenset(names.index(name) for name in self.classes or ())


def _below_folds(instance: KFold, attribute: Attribute[Any], value: int) -> None:
    if value >= instance.folds:
        raise ValueError(f"{attribute.name}: is {value}, and the {instance.folds} folds are 0 to {instance.folds - 1}")


@define(kw_only=True, eq=False)
class KFold(Selection):
    """One fold of a dataset to evaluate on, or the others to train on, as in cross-validation.

    Every sample is in one fold, and the folds are of one size but for a sample. Give ``train`` and ``val`` of a config
    the same options, apart from ``part``. What repeats or mixes samples, such as `Repeat`, goes around this.

    Args:
        dataset: the whole.
        folds: how many.
        fold: which one is held out, counted from 0.
        part: ``"train"`` for all but that fold, ``"val"`` for that fold.
        stratify: spread each class evenly over the folds; a sample of several classes counts as of the rarest.
        seed: of who is in which fold.
    """

    folds: int = field(default=5, validator=[instance_of(int), ge(2)])
    fold: int = field(default=0, validator=[instance_of(int), ge(0), _below_folds])
    part: Literal["train", "val"] = field(validator=in_(("train", "val")))
    stratify: bool = field(default=False, validator=instance_of(bool))
    seed: int = field(default=0, validator=instance_of(int))

    @property
    def info(self) -> DataInfo:
        info = self.dataset.info
        return evolve(info, name=f"{info.name} (fold {self.fold})")

    def choose(self) -> Tensor:
        order = shuffled(self.dataset, self.seed, self.stratify)
        if len(order) < self.folds:
            raise DataError(
                f"KFold.folds: {self.folds} is more than the {len(order)} samples of {self.dataset.info.name}"
            )
        held_out = torch.arange(len(order)) % self.folds == self.fold
        return order[held_out if self.part == "val" else ~held_out].sort().values
