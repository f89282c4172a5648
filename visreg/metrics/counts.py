"""Counts of predicted against true classes, which the metrics beside this file are fractions of."""

from __future__ import annotations

from abc import abstractmethod

import torch
from attrs import define, field
from attrs.validators import and_, ge, instance_of, min_len, optional
from torch import Tensor

from visreg import dist
from visreg.data import Batch, Predictions
from visreg.errors import ConfigError, DistributedError, Problem
from visreg.metric import Metric
from visreg.metrics.labels import NOTHING, check_span, class_pair, span


@define(kw_only=True, eq=False)
class ClassCounts(Metric):
    """Counts pairs of predicted and true class in bins that a subclass lays out.

    Nothing waits for the device until `merged`. The number of classes is needed to make the bins: it is
    ``num_classes``, or the width of the predicted ``scores`` of the first batch, where there is one vector of
    scores for each prediction. A process that saw no batch learns it from the others before they add their bins
    up. A class index outside the classes goes to a spare bin, and the span of all indices lets `merged` complain.

    Args:
        key: the prediction and the target to compare: class indices of any shape, such as int64 (N,) or (N, H, W).
        num_classes: how many classes there are; needed where the predictions hold no ``scores`` (N, C, ...).
        ignore: a target value that is left out, together with what was predicted there.
    """

    key: str = field(default="label", validator=[instance_of(str), min_len(1)])
    num_classes: int | None = field(default=None, validator=optional(and_(instance_of(int), ge(1))))
    ignore: int | None = field(default=None, validator=optional(instance_of(int)))
    counts: Tensor | None = field(default=None, init=False, repr=False)  # int64 (bins + 1,), the last to be left out
    ends: Tensor | None = field(default=None, init=False, repr=False)  # spans of targets and predictions: int64 (4,)
    classes: int = field(default=0, init=False, repr=False)

    @abstractmethod
    def num_bins(self, classes: int) -> int:
        """Return how many bins ``classes`` classes need."""

    @abstractmethod
    def bins(self, prediction: Tensor, target: Tensor, classes: int) -> tuple[Tensor, ...]:
        """Return the bins that each pair falls in, one tensor (N,) for each bin of a pair; -1 for none.

        Pairs that are to be left out may get any value.

        Args:
            prediction: class indices, int64 (N,).
            target: class indices, int64 (N,).
            classes: how many classes there are.
        """

    def reset(self) -> None:
        self.counts = self.ends = None
        self.classes = 0

    def update(self, predictions: Predictions, batch: Batch) -> None:
        prediction, target = (part.flatten() for part in class_pair(self, predictions, batch, self.key))
        counts, ends = self._state(predictions, target.device)
        out = torch.zeros_like(target, dtype=torch.bool) if self.ignore is None else target == self.ignore
        self.ends = torch.maximum(ends, torch.cat([span(part.masked_fill(out, 0)) for part in (target, prediction)]))
        for part in (target, prediction):
            out = out | (part < 0) | (part >= self.classes)
        for bins in self.bins(prediction, target, self.classes):
            bins = bins.masked_fill(out | (bins < 0), len(counts) - 1)
            counts.scatter_add_(0, bins, torch.ones_like(bins))  # bincount would wait for the device

    def _state(self, predictions: Predictions, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the counts and the spans so far; make them on ``device`` for the first batch."""
        if self.counts is None or self.ends is None:
            self.classes = self.num_classes or self._num_scores(predictions)
            with torch.inference_mode(False):  # or they could be added to in inference mode only
                self.counts = torch.zeros(self.num_bins(self.classes) + 1, dtype=torch.int64, device=device)
                self.ends = torch.full((4,), NOTHING, device=device)
        return self.counts, self.ends

    def _num_scores(self, predictions: Predictions) -> int:
        """Return for how many classes there are predicted scores (N, C, ...), as many vectors as predictions."""
        scores, predicted = predictions.get("scores"), predictions[self.key]
        if isinstance(scores, Tensor) and scores.shape[:1] + scores.shape[2:] == predicted.shape:
            return scores.shape[1]
        problem = f"{type(self).__name__}: no predicted 'scores' tell how many classes {self.key!r} has; set it here"
        raise ConfigError([Problem("num_classes", problem)])

    def merged(self) -> Tensor | None:
        """Return the bins over every process, int64 on the CPU; None where no process knows the number of classes.

        Raises:
            DataError: a class index lies outside the classes.
            DistributedError: the processes disagree on the number of classes.
        """
        classes, *ends = self._agree()
        if not classes:
            return None
        check_span(self, f"true {self.key!r}", (ends[0], ends[1]), classes)
        check_span(self, f"predicted {self.key!r}", (ends[2], ends[3]), classes)
        counts = torch.zeros(self.num_bins(classes) + 1, dtype=torch.int64) if self.counts is None else self.counts
        return dist.total(counts)[:-1].to("cpu", copy=True)

    def _agree(self) -> list[int]:
        """Return the number of classes, 0 where unknown, and the four ends of the spans, over every process."""
        known = self.num_classes or self.classes
        ends = torch.full((4,), NOTHING) if self.ends is None else self.ends.cpu()
        # The second is the least number of classes, negated; a process that knows none has no say.
        mine = torch.cat([torch.tensor([known, -known or NOTHING]), ends])
        most, least, *all_ends = dist.largest(mine).tolist()
        if most and most != -least:
            raise DistributedError(
                f"{type(self).__name__}: one process scores {-least} classes, another {most}; give all the same model"
            )
        return [most, *all_ends]


@define(kw_only=True, eq=False)
class Outcomes(ClassCounts):
    """Counts hits, misses and false alarms of each class, which takes memory linear in the number of classes."""

    def num_bins(self, classes: int) -> int:
        return 3 * classes

    def bins(self, prediction: Tensor, target: Tensor, classes: int) -> tuple[Tensor, ...]:
        wrong = prediction != target
        return target + classes * wrong, (2 * classes + prediction).masked_fill(~wrong, -1)

    def outcomes(self) -> Tensor | None:
        """Return the hits, the misses and the false alarms of every class over every process.

        Returns:
            float64 (3, C) on the CPU; None where no process knows the number of classes.
        """
        counts = self.merged()
        return None if counts is None else counts.view(3, -1).double()
