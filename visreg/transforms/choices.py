"""Transforms that are applied to some images, or of which each image gets one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from attrs.validators import min_len
from torch import Tensor
from torch.nn.functional import one_hot

from visreg.data import Batch, Transform
from visreg.random_draws import Draws
from visreg.transform import Drawn, RandomTransform, name_of, obstacle
from visreg.transforms.images import choose, is_probability, torchvisions


@define(kw_only=True, eq=False)
class _Choice(RandomTransform):
    """What the transforms made of others share."""

    transforms: Sequence[Transform] = field(validator=min_len(1))
    _theirs: Transform | None = field(default=None, init=False, repr=False)

    def obstacle(self, keys: Any) -> str:
        for transform in self.transforms:
            name = name_of(transform)
            if getattr(transform, "resizes", True):
                return f"{name}, inside, may change the size of an image"
            if reason := obstacle(transform, keys):
                return f"{name}, inside: {reason}"
        return ""

    def alone(self, values: dict[str, Any]) -> dict[str, Any]:
        if self._theirs is None:
            self._theirs = torchvisions(self)
        changed: dict[str, Any] = self._theirs(values)
        return changed

    def _inside(self, number: int, batch: Batch, draws: Draws) -> Batch:
        transform = self.transforms[number]
        made: Batch = (
            transform.batch(batch, draws.inside(number)) if isinstance(transform, RandomTransform) else transform(batch)
        )
        return made

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        return {"draws": draws}


@define(kw_only=True, eq=False)
class RandomApply(_Choice):
    """Applies all of its transforms to some of the images, and none to the others.

    Args:
        transforms: to apply, one after another.
        p: how probable that is.
    """

    p: float = field(default=0.5, validator=is_probability)

    def apply(self, batch: Batch, drawn: Drawn) -> Batch:
        draws: Draws = drawn["draws"]
        made, chosen = batch, draws.uniform() < self.p
        for number in range(len(self.transforms)):
            made = self._inside(number, made, draws)
        return _merged(chosen, made, batch)


@define(kw_only=True, eq=False)
class RandomChoice(_Choice):
    """Applies one of its transforms to each image.

    Args:
        transforms: to choose from.
        p: how probable each is; equally where not given.
    """

    p: Sequence[float] | None = field(default=None)

    @p.validator
    def _are_probabilities(self, attribute: Any, value: Any) -> None:
        if value is not None and (len(value) != len(self.transforms) or min(value) < 0 or sum(value) <= 0):
            raise ValueError(f"p: must be a number from 0 up for each of {len(self.transforms)}, got {value!r}")

    def apply(self, batch: Batch, drawn: Drawn) -> Batch:
        draws: Draws = drawn["draws"]
        shares = [1.0] * len(self.transforms) if self.p is None else list(self.p)
        number, made, below = draws.uniform(), None, 0.0
        for place, share in enumerate(shares):
            other = self._inside(place, batch, draws)
            made = other if made is None else _merged(number >= below, other, made)
            below += share / sum(shares)
        assert made is not None, "there is one at least"
        return made


def _merged(where: Tensor, yes: Batch, no: Batch) -> Batch:
    """Return a batch of the samples of ``yes`` where the bool tensor (N,) says so, else of ``no``."""
    merged = dict(yes)
    for key, value in yes.items():
        if value is not no[key]:
            one = no[key]
            if key == "label" and one.ndim < value.ndim:
                one = one_hot(one, value.shape[1]).to(value.dtype)
            merged[key] = choose(where.view(-1, *[1] * (value.ndim - 1)), value, one)
    return merged
