"""Mixing each image of a batch with another one, and their labels with them."""

from __future__ import annotations

from abc import abstractmethod

import torch
from attrs import define, field
from attrs.validators import ge, gt, instance_of, optional
from torch import Tensor
from torch.nn.functional import one_hot

from visreg.data import Batch
from visreg.random_draws import Draws
from visreg.transform import Drawn, OfBatchesError, RandomTransform
from visreg.transforms.erasing import within
from visreg.transforms.images import choose, each, to_bytes

POINTS = 4096  # of a table of a distribution


@define(kw_only=True, eq=False)
class _Mix(RandomTransform):
    """What MixUp and CutMix share."""

    alpha: float = field(default=1.0, validator=gt(0))
    num_classes: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    _table: Tensor = field(init=False, repr=False)  # from a uniform number to a share

    def __attrs_post_init__(self) -> None:
        self._table = beta_table(float(self.alpha))

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        count = len(draws)
        others = draws.integers(max(1, count - 1))[:, 0] + 1  # how many places further on; never an image itself
        self._table = self._table.to(image.device)
        place = draws.uniform() * (POINTS - 1)
        share = torch.lerp(self._table[place.long()], self._table[place.long() + 1], place.frac())
        return {"partner": (torch.arange(count, device=image.device) + others) % count, "share": share}

    def apply(self, batch: Batch, drawn: Drawn) -> Batch:
        """Return a batch whose ``label`` is float32 (N, num_classes).

        Raises:
            OfBatchesError: if there is no label, or something beside it that cannot be mixed.
            ValueError: if labels are not those of ``num_classes``.
        """
        label = batch.get("label")
        unmixed = sorted(key for key in batch if key not in ("image", "label", "index"))
        if not isinstance(label, Tensor) or label.ndim > 2 or unmixed:
            what = f"it cannot mix {', '.join(unmixed)}" if unmixed else "there is none"
            reason = f"mixes the samples of a batch by their one label each, and {what}"
            raise OfBatchesError(f"{type(self).__name__} {reason}; is it in batch_transforms?")
        if label.ndim == 1:
            if self.num_classes is None:
                raise ValueError("num_classes: missing; the labels are class indices")
            label = one_hot(label, self.num_classes)
        elif self.num_classes not in (None, label.shape[1]):
            raise ValueError(f"num_classes: is {self.num_classes}, and the labels are of {label.shape[1]} classes")
        image, share = self.mix(batch["image"], drawn)
        label = label.to(torch.float32)
        mixed = label * share[:, None] + label.index_select(0, drawn["partner"]) * (1 - share[:, None])
        return {**batch, "image": image, "label": mixed}

    @abstractmethod
    def mix(self, image: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return the images (N, C, H, W) mixed, each with its ``partner``, and how much of each label is left, (N,)."""


@define(kw_only=True, eq=False)
class MixUp(_Mix):
    """Takes the mean of each image and a random other one of the batch, weighted at random; of their labels too.

    Labels become float32 (N, num_classes). Each image has a weight and a partner of its own.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018.

    Args:
        alpha: of the Beta(alpha, alpha) distribution of the weights; the lower, the more is left of one of the two.
        num_classes: how many classes there are; needed unless labels are (N, num_classes) already.
    """

    def mix(self, image: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Leave ``share`` (N,) of each image."""
        partner, share = drawn["partner"], drawn["share"]
        mixed = torch.lerp(image.index_select(0, partner).to(torch.float32), image.to(torch.float32), each(share))
        return (to_bytes(mixed.round_()) if image.dtype == torch.uint8 else mixed.to(image.dtype)), share


@define(kw_only=True, eq=False)
class CutMix(_Mix):
    """Covers a rectangle of each image with that of a random other one of the batch; labels are mixed by area.

    Labels become float32 (N, num_classes). Each image has a rectangle and a partner of its own.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019.

    Args:
        alpha: of the Beta(alpha, alpha) distribution of the area that is left.
        num_classes: how many classes there are; needed unless labels are (N, num_classes) already.
    """

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        drawn = _Mix.draw(self, draws, image)
        half = 0.5 * (1 - drawn.pop("share")).sqrt()
        sides = image.shape[-2:]
        middle, reach = draws.integers(*sides), torch.stack([half * side for side in sides], dim=1).long()
        start = (middle - reach).clamp(min=0)
        end = torch.stack([end.clamp(max=side) for end, side in zip((middle + reach).unbind(1), sides, strict=True)], 1)
        return {**drawn, "box": torch.cat([start, end - start], dim=1)}

    def mix(self, image: Tensor, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Cover ``box``: top, left, height and width, int64 (N, 4)."""
        box = drawn["box"]
        mixed = choose(within(image, box), image.index_select(0, drawn["partner"]), image)
        return mixed, 1 - box[:, 2] * box[:, 3] / (image.shape[-2] * image.shape[-1])


def beta_table(alpha: float) -> Tensor:
    """Return the quantiles of Beta(alpha, alpha) at ``POINTS + 1`` equal steps from 0 to 1, float32.

    >>> [round(float(beta_table(alpha)[POINTS // 4]), 3) for alpha in (0.2, 1, 8)]
    [0.024, 0.25, 0.415]
    """
    # Up to the middle, by symmetry. In t = x^alpha the density is (1 - x)^(alpha - 1) / alpha, without a pole at 0.
    ends = torch.linspace(0, 1, 8 * POINTS + 1, dtype=torch.float64) * 0.5**alpha
    middle = (ends[1:] + ends[:-1]) / 2
    mass = (1 - middle ** (1 / alpha)) ** (alpha - 1)
    total = torch.cat([torch.zeros(1, dtype=torch.float64), mass.cumsum(0)])
    total = total / (2 * total[-1])
    wanted = torch.linspace(0, 0.5, POINTS // 2 + 1, dtype=torch.float64)
    above = torch.searchsorted(total, wanted).clamp(1, len(total) - 1)
    part = (wanted - total[above - 1]) / (total[above] - total[above - 1])
    lower = torch.lerp(ends[above - 1], ends[above], part.clamp(0, 1)) ** (1 / alpha)
    return torch.cat([lower, 1 - lower[:-1].flip(0)]).to(torch.float32)
