"""Covering a part of each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from attrs import define, field
from attrs.validators import ge, instance_of
from torch import Tensor

from visreg.random_draws import Draws
from visreg.transform import Drawn
from visreg.transforms.crops import TRIES, first_that, log_uniform
from visreg.transforms.images import Fill, Recolouring, choose, filled_like, is_fill, is_probability, is_range, to_bytes


@define(kw_only=True, eq=False)
class RandomErasing(Recolouring):
    """Covers a rectangle of random area and shape at a random place.

    Source: Zhong et al., "Random Erasing Data Augmentation", 2020.

    Args:
        p: how probable that is.
        scale: least and greatest area of the rectangle, as a share of the image's.
        ratio: least and greatest height ÷ width of the rectangle.
        value: its colour, one number or one for each channel, on the scale of the image; or ``"random"``: noise, of
            which each pixel is normal with mean 0 and deviation 1, and in uint8 images uniform from 0 to 255.
        inplace: of no effect.
    """

    p: float = field(default=0.5, validator=is_probability)
    scale: Sequence[float] = field(default=(0.02, 0.33), validator=is_range)
    ratio: Sequence[float] = field(default=(0.3, 3.3), validator=is_range)
    value: Fill | Literal["random"] = field(default=0.0)
    inplace: bool = False

    @scale.validator
    def _is_share(self, attribute: Any, value: Any) -> None:
        if value[1] > 1:
            raise ValueError(f"scale: must be at most 1, the whole image, got {value!r}")

    @ratio.validator
    def _is_ratio(self, attribute: Any, value: Any) -> None:
        if value[0] <= 0:
            raise ValueError(f"ratio: must be above 0, got {value!r}")

    @value.validator
    def _is_value(self, attribute: Any, value: Any) -> None:
        if value != "random":
            is_fill(self, attribute, value)

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        height, width = image.shape[-2:]
        areas, shapes = draws.uniform(TRIES, 2).unbind(dim=2)
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * areas)
        ratio = log_uniform(shapes, self.ratio)
        high, wide = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (high < height) & (wide < width)
        high, wide = first_that(fits, high, 0), first_that(fits, wide, 0)
        place, shown = draws.integers(height - high + 1, width - wide + 1), draws.uniform() < self.p
        box = torch.cat([place, torch.stack([high, wide * shown], dim=1)], dim=1)
        return {"box": box, "noise": _noise(draws, image)} if self.value == "random" else {"box": box}

    def change(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Cover what is in ``box``: top, left, height and width, int64 (N, 4), with the value or ``noise``."""
        colour = drawn["noise"] if self.value == "random" else filled_like(image, self.value)
        return choose(within(image, drawn["box"]), colour, image)


@define(kw_only=True, eq=False)
class Cutout(Recolouring):
    """Covers squares, whose centres are anywhere in the image, so that they may reach beyond it.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.

    Args:
        length: side of a square in pixels.
        n_holes: how many there are.
        fill: their colour, one number or one for each channel, on the scale of the image.
    """

    length: int = field(validator=[instance_of(int), ge(1)])
    n_holes: int = field(default=1, validator=[instance_of(int), ge(1)])
    fill: Fill = field(default=0, validator=is_fill)

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        centre = draws.integers(*[*image.shape[-2:]] * self.n_holes).view(len(draws), self.n_holes, 2)
        return {"place": centre - self.length // 2}

    def change(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Cover the squares whose upper left corners are at ``place``: row and column, int64 (N, n_holes, 2)."""
        for corner in drawn["place"].unbind(dim=1):
            box = torch.cat([corner, torch.full_like(corner, self.length)], dim=1)
            image = choose(within(image, box), filled_like(image, self.fill), image)
        return image


def within(image: Tensor, box: Tensor) -> Tensor:
    """Return which pixels of images (N, C, H, W) are in ``box``: top, left, height, width (N, 4); (N, 1, H, W)."""
    height, width = (torch.arange(side, device=image.device) for side in image.shape[-2:])
    rows, columns = height - box[:, :1], width - box[:, 1:2]
    down, across = (rows >= 0) & (rows < box[:, 2:3]), (columns >= 0) & (columns < box[:, 3:4])
    if across.shape[1] % 8:
        return (down[:, :, None] & across[:, None, :])[:, None]
    eights = across.view(torch.int64)[:, None]  # of pixels, several times as quick as one by one
    return (down.to(torch.int64).neg_()[:, :, None] & eights).view(torch.bool)[:, None]


def _noise(draws: Draws, image: Tensor) -> Tensor:
    """Return a random number for every value of the images (N, C, H, W): any byte, or a normal number (Box-Muller)."""
    shape = image.shape[1:]
    if image.dtype == torch.uint8:
        return to_bytes(draws.uniform(*shape) * 256)
    one, two = draws.uniform(2, *shape).unbind(dim=1)
    return ((1 - one).log().mul(-2).sqrt() * (two * (2 * math.pi)).cos()).to(image.dtype)
