"""Mirroring images."""

from __future__ import annotations

from typing import ClassVar

from attrs import define, field
from torch import Tensor

from visreg.random_draws import Draws
from visreg.transform import Drawn
from visreg.transforms.images import Fill, Move, choose, each, is_probability


@define(kw_only=True, eq=False)
class RandomHorizontalFlip(Move):
    """Mirrors left and right.

    Args:
        p: how probable that is.
    """

    p: float = field(default=0.5, validator=is_probability)
    dim: ClassVar[int] = -1

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        return {"flip": draws.uniform() < self.p}

    def move(self, values: Tensor, fill: Fill, blend: bool, drawn: Drawn) -> Tensor:
        """Mirror each image for which ``flip``, bool (N,), says so."""
        return choose(each(drawn["flip"]), values.flip(self.dim), values)


@define(kw_only=True, eq=False)
class RandomVerticalFlip(RandomHorizontalFlip):
    """Mirrors top and bottom.

    Args:
        p: how probable that is.
    """

    dim = -2
