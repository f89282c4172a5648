"""A metric that counts."""

from __future__ import annotations

import torch
from attrs import define, field
from attrs.validators import and_, ge, le
from torch import Tensor

from visreg import Metric, dist


@define(kw_only=True, eq=False)
class CountError(Metric):
    """By how many the number of objects found in an image is off, on average; NaN where nothing was seen.

    Args:
        min_score: what an object must score, from 0 to 1, to count as found.
    """

    min_score: float = field(default=0.5, validator=and_(ge(0), le(1)))
    errors: list[Tensor] = field(factory=list, init=False, repr=False)  # of each image, int64 ()

    def names(self) -> tuple[str, ...]:
        return ("count_error",)

    def reset(self) -> None:
        self.errors = []

    def update(self, predictions: dict[str, list[Tensor]], batch: dict[str, list[Tensor]]) -> None:
        for scores, labels in zip(predictions["scores"], batch["labels"], strict=True):
            self.errors.append(((scores >= self.min_score).sum() - len(labels)).abs())

    def compute(self) -> dict[str, float]:
        counts = torch.tensor([float(sum(self.errors)), len(self.errors)])
        errors, images = dist.total(counts).tolist()  # over all processes
        return {"count_error": errors / images if images else float("nan")}
