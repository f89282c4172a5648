"""Which classes were taken for which, and what follows from it: precision, recall, F1, mean accuracy of a class."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from attrs import define, field
from attrs.validators import and_, in_, instance_of, min_len, optional
from torch import Tensor

from visreg.metrics.counts import ClassCounts, Outcomes


@define(kw_only=True, eq=False)
class ConfusionMatrix(ClassCounts):
    """How many of each true class were predicted to be of each class; it yields no score, but columns.

    It is ``sklearn.metrics.confusion_matrix`` with every class as a label. `per_class` has the column
    ``as 0`` for what was predicted to be class 0, and so on; each holds one count for each true class.

    Args:
        key: the prediction and the target to compare: class indices of any shape, int64.
        num_classes: how many classes there are; needed where the predictions hold no ``scores`` (N, C, ...).
        ignore: a target value that is left out, together with what was predicted there.

    Attributes:
        matrix: counts as of the last `compute`, int64 (C, C) on the CPU: a row for each true class, a column for
            each predicted one; None where the number of classes is unknown.

    >>> metric = ConfusionMatrix(num_classes=2)
    >>> metric.update({"label": torch.tensor([0, 1, 1])}, {"label": torch.tensor([0, 0, 1])})
    >>> metric.compute()
    {}
    >>> metric.per_class()
    {'as 0': [1.0, 0.0], 'as 1': [1.0, 1.0]}
    """

    matrix: Tensor | None = field(default=None, init=False, repr=False)

    def names(self) -> tuple[str, ...]:
        return ()

    def num_bins(self, classes: int) -> int:
        return classes * classes

    def bins(self, prediction: Tensor, target: Tensor, classes: int) -> tuple[Tensor, ...]:
        return (target * classes + prediction,)

    def compute(self) -> dict[str, float]:
        counts = self.merged()
        self.matrix = None if counts is None else counts.view(round(len(counts) ** 0.5), -1)
        return {}

    def per_class(self) -> dict[str, list[float]]:
        if self.matrix is None:
            return {}
        return {f"as {index}": column for index, column in enumerate(self.matrix.T.double().tolist())}


@define(kw_only=True, eq=False)
class ClassAverage(Outcomes):
    """A fraction of hits, misses and false alarms, averaged over the classes, from 0 to 1.

    The definition is scikit-learn's (``sklearn.metrics.precision_recall_fscore_support``), with
    ``zero_division=0`` and ``labels`` left to the data: a fraction with nothing below the line is 0 and
    counts, but a class that is neither among the targets nor among the predictions is left out of the macro
    average, and has NaN in `per_class`. Where nothing at all was seen the score is NaN.

    Args:
        key: the prediction and the target to compare: class indices of any shape, int64.
        average: ``macro`` for the plain mean over classes, ``weighted`` for a mean weighted by the number of
            targets of each class, ``micro`` for the fraction of the sums over all classes, which is the
            accuracy where each image has one class.
        num_classes: how many classes there are; needed where the predictions hold no ``scores`` (N, C, ...).
        ignore: a target value that is left out, together with what was predicted there.
        name: what to call the score and the column of `per_class`; where not given, the lower-case name of
            the class, such as ``precision``, followed by ``_micro`` or ``_weighted`` for those averages.
    """

    title: ClassVar[str]

    average: Literal["macro", "micro", "weighted"] = field(
        default="macro", validator=in_(("macro", "micro", "weighted"))
    )
    name: str | None = field(default=None, validator=optional(and_(instance_of(str), min_len(1))))
    column: list[float] = field(factory=list, init=False, repr=False)

    @abstractmethod
    def fraction(self, hits: Tensor, misses: Tensor, alarms: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is above and what is below the line; all are float64 of one shape."""

    def names(self) -> tuple[str, ...]:
        return (self.name or (self.title if self.average == "macro" else f"{self.title}_{self.average}"),)

    def compute(self) -> dict[str, float]:
        self.column, score = [], float("nan")
        outcomes = self.outcomes()
        if outcomes is not None:
            self.column = self._ratio(outcomes).where(outcomes.sum(dim=0) > 0, float("nan")).tolist()
            if outcomes.any():
                score = self._average(outcomes).item()
        return {self.names()[0]: score}

    def _average(self, outcomes: Tensor) -> Tensor:
        if self.average == "micro":
            return self._ratio(outcomes.sum(dim=1))
        hits, misses, _ = outcomes
        weight = hits + misses if self.average == "weighted" else (outcomes.sum(dim=0) > 0).double()
        return (self._ratio(outcomes) * weight).sum() / weight.sum()

    def _ratio(self, outcomes: Tensor) -> Tensor:
        above, below = self.fraction(*outcomes)
        return above / below.where(below > 0, 1)

    def per_class(self) -> dict[str, list[float]]:
        return {self.names()[0]: list(self.column)} if self.column else {}


@define(kw_only=True, eq=False)
class Precision(ClassAverage):
    """The share of what was predicted to be a class that is of that class; `ClassAverage` has the options.

    >>> metric = Precision(num_classes=3)
    >>> metric.update({"label": torch.tensor([0, 0, 1])}, {"label": torch.tensor([0, 1, 1])})
    >>> metric.compute()
    {'precision': 0.75}
    >>> metric.per_class()
    {'precision': [0.5, 1.0, nan]}
    """

    title: ClassVar[str] = "precision"

    def fraction(self, hits: Tensor, misses: Tensor, alarms: Tensor) -> tuple[Tensor, Tensor]:
        return hits, hits + alarms


@define(kw_only=True, eq=False)
class Recall(ClassAverage):
    """The share of a class that was predicted to be of that class; `ClassAverage` has the options.

    >>> metric = Recall(num_classes=2, average="weighted")
    >>> metric.update({"label": torch.tensor([0, 0, 0, 1])}, {"label": torch.tensor([0, 1, 1, 1])})
    >>> metric.compute()
    {'recall_weighted': 0.5}
    """

    title: ClassVar[str] = "recall"

    def fraction(self, hits: Tensor, misses: Tensor, alarms: Tensor) -> tuple[Tensor, Tensor]:
        return hits, hits + misses


@define(kw_only=True, eq=False)
class F1(ClassAverage):
    """The harmonic mean of a class's precision and recall, or Dice coefficient; `ClassAverage` has the options.

    >>> metric = F1(num_classes=2)
    >>> metric.update({"label": torch.tensor([0, 0, 1, 1])}, {"label": torch.tensor([0, 1, 0, 1])})
    >>> metric.compute()
    {'f1': 0.5}
    """

    title: ClassVar[str] = "f1"

    def fraction(self, hits: Tensor, misses: Tensor, alarms: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * hits, 2 * hits + misses + alarms


@define(kw_only=True, eq=False)
class MeanClassAccuracy(Outcomes):
    """The mean over classes of the share that was predicted right, from 0 to 1; NaN where nothing was seen.

    It is ``sklearn.metrics.balanced_accuracy_score``. Unlike the macro average of `Recall`, it leaves out a
    class that was predicted but has no target, instead of taking it for 0.

    Args:
        key: the prediction and the target to compare: class indices of any shape, int64.
        num_classes: how many classes there are; needed where the predictions hold no ``scores`` (N, C, ...).
        ignore: a target value that is left out, together with what was predicted there.
        name: what to call the score and the column of `per_class`, which holds NaN for a class without targets.

    >>> metric = MeanClassAccuracy(num_classes=2)
    >>> metric.update({"label": torch.tensor([0, 0, 0, 0])}, {"label": torch.tensor([0, 0, 0, 1])})
    >>> metric.compute()
    {'mean_class_accuracy': 0.5}
    """

    name: str = field(default="mean_class_accuracy", validator=[instance_of(str), min_len(1)])
    column: list[float] = field(factory=list, init=False, repr=False)

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def compute(self) -> dict[str, float]:
        outcomes = self.outcomes()
        hits, misses, _ = torch.zeros(3, 0) if outcomes is None else outcomes
        shares = hits / (hits + misses)  # NaN where a class has no target
        self.column = shares.tolist()
        return {self.name: shares.nanmean().item()}

    def per_class(self) -> dict[str, list[float]]:
        return {self.name: list(self.column)} if self.column else {}
