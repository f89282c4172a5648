"""How good predictions are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from visreg.data import Batch, Predictions

Columns = dict[str, list[float]]  # of one value for each class, by name


class Metric(ABC):
    """A score accumulated over the batches of one evaluation, on whatever device the predictions are.

    Attributes:
        key: what of a sample its classes are those of, which gives `per_class` its rows' names.
    """

    key: str = "label"

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Return the names of the scores that `compute` returns; hooks may monitor any of them."""

    @abstractmethod
    def reset(self) -> None:
        """Forget every batch seen."""

    @abstractmethod
    def update(self, predictions: Predictions, batch: Batch) -> None:
        """Take one batch into account; the tensors stay on their device."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the scores over every batch seen by every process, by name; NaN where nothing was seen.

        Every process must call it, since their counts are added up here.
        """

    def per_class(self) -> Columns:
        """Return columns of one value for each class, by the column's name, as of the last `compute`.

        Empty where the metric has no such thing.
        """
        return {}

    def tables(self) -> Iterable[tuple[str, Columns]]:
        """Return what `per_class` does, with ``key``; several such tables where a metric is made of others."""
        return [(self.key, self.per_class())]


def known(scores: Mapping[str, float]) -> Mapping[str, float]:
    """Return the scores that are numbers: without those of which nothing was seen, unless that is all of them.

    >>> known({"mAP": 0.5, "mAP_large": math.nan}), known({"mAP": math.nan})
    ({'mAP': 0.5}, {'mAP': nan})
    """
    return {name: score for name, score in scores.items() if not math.isnan(score)} or scores
