"""The share of predictions that are right: the one prediction, or one of the few that score highest."""

from __future__ import annotations

import torch
from attrs import define, field
from attrs.validators import and_, ge, instance_of, min_len, optional
from torch import Tensor

from visreg import dist
from visreg.data import Batch, Predictions
from visreg.errors import ConfigError, DataError, Problem
from visreg.metric import Metric
from visreg.metrics.labels import NOTHING, check_span, pair, span, tensor, whole_numbers


@define(kw_only=True, eq=False)
class Accuracy(Metric):
    """The share of predictions that equal their target, from 0 to 1; NaN where nothing was seen.

    It is ``sklearn.metrics.accuracy_score``. Prediction and target may have any shape, so that
    ``Accuracy(key="mask", ignore=255)`` is pixel accuracy.

    Args:
        key: the prediction, and the target, to compare.
        name: what to call the score.
        ignore: a target value that is left out.

    >>> metric = Accuracy()
    >>> metric.update({"label": torch.tensor([1, 2, 3])}, {"label": torch.tensor([1, 2, 0])})
    >>> metric.update({"label": torch.tensor([4])}, {"label": torch.tensor([4])})
    >>> metric.compute()
    {'accuracy': 0.75}
    """

    key: str = field(default="label", validator=[instance_of(str), min_len(1)])
    name: str = field(default="accuracy", validator=[instance_of(str), min_len(1)])
    ignore: int | None = field(default=None, validator=optional(instance_of(int)))
    counts: Tensor | None = field(default=None, init=False, repr=False)  # right, seen: int64 (2,)

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def reset(self) -> None:
        self.counts = None

    def update(self, predictions: Predictions, batch: Batch) -> None:
        prediction, target = pair(self, predictions, batch, self.key)
        kept = torch.ones_like(target, dtype=torch.bool) if self.ignore is None else target != self.ignore
        counts = torch.stack([((prediction == target) & kept).sum(), kept.sum()])
        self.counts = counts if self.counts is None else self.counts + counts

    def compute(self) -> dict[str, float]:
        counts = torch.zeros(2, dtype=torch.int64) if self.counts is None else self.counts
        right, seen = dist.total(counts).tolist()
        return {self.name: right / seen if seen else float("nan")}


@define(kw_only=True, eq=False)
class TopKAccuracy(Metric):
    """The share of targets among the ``k`` classes of highest score, from 0 to 1; NaN where nothing was seen.

    Of two classes with the same score, as are common in float16, the one with the lower index comes
    first. That is the choice of ``argmax``, so that ``k=1`` is `Accuracy`, and a model that scores all
    classes alike gets no more than chance. ``sklearn.metrics.top_k_accuracy_score`` puts the higher index
    first and otherwise agrees. A target whose score is NaN is wrong, and other NaNs come before it.

    Args:
        k: how many classes may be named, from 1 to the number of classes.
        key: the target in the batch: class indices, int64 (N,).
        scores: the prediction: one score for each class, floating point (N, C), larger is likelier.
        name: what to call the score; ``top5_accuracy`` for ``k=5`` where not given.

    >>> metric = TopKAccuracy(k=2)
    >>> scores = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3]])
    >>> metric.update({"scores": scores}, {"label": torch.tensor([1, 1])})
    >>> metric.compute()
    {'top2_accuracy': 0.5}
    """

    k: int = field(default=5, validator=[instance_of(int), ge(1)])
    key: str = field(default="label", validator=[instance_of(str), min_len(1)])
    scores: str = field(default="scores", validator=[instance_of(str), min_len(1)])
    name: str | None = field(default=None, validator=optional(and_(instance_of(str), min_len(1))))
    counts: Tensor | None = field(default=None, init=False, repr=False)  # right, seen: int64 (2,)
    ends: Tensor | None = field(default=None, init=False, repr=False)  # the targets' span: int64 (2,)
    classes: int = field(default=0, init=False, repr=False)

    def names(self) -> tuple[str, ...]:
        return (self.name or f"top{self.k}_accuracy",)

    def reset(self) -> None:
        self.counts = self.ends = None
        self.classes = 0

    def update(self, predictions: Predictions, batch: Batch) -> None:
        scores, target = self._inputs(predictions, batch)
        own = scores.gather(1, target.clamp(0, self.classes - 1)[:, None])
        index = torch.arange(self.classes, device=scores.device)
        ahead = ~((scores < own) | ((scores == own) & (index >= target[:, None])))  # so written, NaN is ahead
        right = (ahead.sum(dim=1) < self.k).sum()
        counts = torch.stack([right, torch.full_like(right, target.numel())])
        ends = span(target)
        self.counts = counts if self.counts is None else self.counts + counts
        self.ends = ends if self.ends is None else torch.maximum(self.ends, ends)

    def _inputs(self, predictions: Predictions, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return scores (N, C) and targets (N,), whose shapes are checked."""
        scores = tensor(self, "predictions", predictions, self.scores)
        target = tensor(self, "batch", batch, self.key).to(scores.device)
        whole_numbers(self, f"true {self.key!r}", target)
        if scores.ndim != 2 or target.shape != scores.shape[:1] or self.classes not in (0, scores.shape[1]):
            raise DataError(
                f"TopKAccuracy: {self.scores!r} has shape {tuple(scores.shape)} and {self.key!r} "
                f"{tuple(target.shape)}; expected (N, {self.classes or 'C'}) and (N,)"
            )
        self.classes = scores.shape[1]
        if self.k > self.classes:
            raise ConfigError(
                [Problem("k", f"TopKAccuracy: the {self.k} best of {self.classes} classes are asked for; lower k")]
            )
        return scores, target.long()

    def compute(self) -> dict[str, float]:
        ends = torch.full((2,), NOTHING) if self.ends is None else self.ends.cpu()
        mine = torch.cat([ends, torch.tensor([self.classes])])
        low, high, classes = dist.largest(mine).tolist()
        check_span(self, f"true {self.key!r}", (low, high), classes)
        counts = torch.zeros(2, dtype=torch.int64) if self.counts is None else self.counts
        right, seen = dist.total(counts).tolist()
        return {self.names()[0]: right / seen if seen else float("nan")}
