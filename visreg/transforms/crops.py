"""Cutting a piece out of each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from attrs import define, field
from torch import Tensor
from torch.nn.functional import pad

from visreg.picture import Box, Picture, fraction, resize
from visreg.random_draws import Draws
from visreg.transform import Drawn, OfPart
from visreg.transforms.images import Fill, Move, filled_like, is_fill, is_range, is_size, name_of, sides_of, to_bytes

TRIES = 10  # to find a rectangle that fits
SMALL = 96  # pixels: on the CPU, resizing larger images one by one is quicker than all at once
STEPS = 1 << 14  # of a weight: sums of bytes with such weights are exact in float32, in any order


@define(kw_only=True, eq=False)
class RandomCrop(Move):
    """Cuts out a piece of a given size at a random place, of the image with a border around it.

    Objects that it leaves less than a pixel of are taken out of the sample.

    Args:
        size: height and width of the piece in pixels.
        padding: width of the border in pixels: one number, (left and right, top and bottom) or (left, top, right,
            bottom).
        pad_if_needed: add a border where the image is smaller than the piece.
        fill: colour of the border, one number or one for each channel, on the scale of the image.
        padding_mode: what the border shows: ``"constant"`` the ``fill``, ``"edge"`` the outermost pixels,
            ``"reflect"`` and ``"symmetric"`` the image mirrored, without and with its outermost pixels.
    """

    resizes = True
    size: int | Sequence[int] = field(validator=is_size)
    padding: int | Sequence[int] | None = field(default=None)
    pad_if_needed: bool = False
    fill: Fill = field(default=0, validator=is_fill)
    padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant"

    @padding.validator
    def _is_padding(self, attribute: Any, value: Any) -> None:
        widths = [] if value is None else value if isinstance(value, (list, tuple)) else [value]
        wrong = len(widths) not in (1, 2, 4) or not all(type(width) is int and width >= 0 for width in widths)
        if value is not None and wrong:
            raise ValueError(f"padding: must be one, two or four numbers of pixels, got {value!r}")

    def borders(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the width of the border (left, top, right, bottom) of images of this size.

        Raises:
            ValueError: if they are too small even with it.
        """
        given = [0] if self.padding is None else [self.padding] if isinstance(self.padding, int) else [*self.padding]
        left, top, right, bottom = (given * (4 // len(given)))[:4]
        wanted = sides_of(self.size)
        down, across = wanted[0] - (height + top + bottom), wanted[1] - (width + left + right)
        if self.pad_if_needed:
            down, across = max(0, down), max(0, across)
            return left + across, top + down, right + across, bottom + down
        if down > 0 or across > 0:
            found = (height + top + bottom, width + left + right)
            padded = "padded " if self.padding else ""
            advice = "set pad_if_needed=True, or resize it before"
            raise ValueError(f"crop size {wanted} is larger than the {padded}image, {found}; {advice}")
        return left, top, right, bottom

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        height, width = image.shape[-2:]
        left, top, right, bottom = self.borders(height, width)
        least = sides_of(self.size)
        return {"place": draws.integers(height + top + bottom - least[0] + 1, width + left + right - least[1] + 1)}

    def move(self, values: Tensor, fill: Fill, blend: bool, drawn: Drawn) -> Tensor:
        """Cut out the pieces whose upper left corners are at ``place``: row and column, int64 (N, 2)."""
        place, (height, width) = drawn["place"], sides_of(self.size)
        framed = with_border(values, self.borders(*values.shape[-2:]), self.padding_mode, fill)
        return windows(framed.contiguous(), place, height, width)


def with_border(values: Tensor, borders: Sequence[int], mode: str, fill: Fill) -> Tensor:
    """Return values (N, C, H, W) with a border of (left, top, right, bottom) pixels."""
    left, top, right, bottom = borders
    if mode == "constant":
        if isinstance(fill, (int, float)):
            return pad(values, (left, right, top, bottom), value=fill)
        inside = pad(torch.ones_like(values[:1, :1], dtype=torch.bool), (left, right, top, bottom))
        return torch.where(inside, pad(values, (left, right, top, bottom)), filled_like(values, fill))
    for dim, (before, after) in ((2, (top, bottom)), (3, (left, right))):
        length = values.shape[dim]
        place = torch.arange(-before, length + after, device=values.device)
        if mode == "edge":
            place = place.clamp(0, length - 1)
        else:
            twice = int(mode == "symmetric")  # whether the outermost pixels come twice
            period = max(2 * (length - 1 + twice), 1)
            place = torch.minimum(place % period, period - twice - place % period)
        values = values.index_select(dim, place)
    return values


def windows(values: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """Return pieces of values (N, C, H, W), contiguous, whose upper left corners are at ``place``, int64 (N, 2).

    All pieces that there could be are one view, without a copy: each begins one number after the one before.
    """
    count, channels, *sides = values.shape
    steps = (sides[0] * sides[1], sides[1], 1)
    behind = sum(step * (side - 1) for step, side in zip(steps, (channels, height, width), strict=True))
    pieces = values.as_strided((max(0, values.numel() - behind), channels, height, width), (1, *steps))
    image = torch.arange(count, device=values.device) * (channels * steps[0])
    return pieces.index_select(0, image + place[:, 0] * steps[1] + place[:, 1])


def cut(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels of values (N, C, H, W) in ``rows``, int64 (N, h), and ``columns``, (N, w): (N, C, h, w)."""
    count, channels, height, width = values.shape
    first = torch.arange(count * channels, device=values.device).view(count, channels, 1) * height
    lines = values.flatten(0, 2).index_select(0, (first + rows[:, None]).flatten())
    found = lines.view(count, -1, width).gather(2, columns[:, None].expand(-1, channels * rows.shape[1], -1))
    return found.view(count, channels, rows.shape[1], columns.shape[1])


def pick(values: Tensor, place: Tensor) -> Tensor:
    """Return the pixels of values (N, C, H, W) at ``place``, row × W + column, int64 (N, h, w): (N, C, h, w)."""
    count, channels = values.shape[:2]
    flat = place.flatten(1)[:, None].expand(-1, channels, -1)
    return values.flatten(2).gather(2, flat).view(count, channels, *place.shape[1:])


@define(kw_only=True, eq=False)
class RandomResizedCrop(Move, OfPart):
    """Cuts out a piece of random area and shape, and resizes it.

    Objects that it leaves less than a pixel of are taken out of the sample.

    Source: Szegedy et al., "Going Deeper with Convolutions", 2015.

    Args:
        size: height and width of what is returned, in pixels.
        scale: least and greatest area of the piece, as a share of the image's.
        ratio: least and greatest width ÷ height of the piece.
        interpolation: ``"bilinear"`` or ``"nearest"``; torchvision's others are left to torchvision.
        antialias: take the mean of all the pixels that come together where the piece is made smaller.
    """

    resizes = True
    heavy = True
    size: int | Sequence[int] = field(validator=is_size)
    scale: Sequence[float] = field(default=(0.08, 1.0), validator=is_range)
    ratio: Sequence[float] = field(default=(3 / 4, 4 / 3), validator=is_range)
    interpolation: str = field(default="bilinear", converter=name_of)
    antialias: bool | None = True

    def obstacle(self, keys: Any) -> str:
        if self.interpolation not in ("bilinear", "nearest"):
            return f"interpolation {self.interpolation!r} is torchvision's"
        return super().obstacle(keys)

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        sides = [torch.full((len(draws),), side, device=image.device) for side in image.shape[-2:]]
        return {"box": self.boxes(draws, torch.stack(sides, dim=1))}

    def boxes(self, draws: Draws, sizes: Tensor) -> Tensor:
        areas, shapes = draws.uniform(TRIES, 2).unbind(dim=2)
        height, width = sizes[:, :1], sizes[:, 1:]
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * areas)
        ratio = log_uniform(shapes, self.ratio)
        high, wide = (area / ratio).sqrt().round().long(), (area * ratio).sqrt().round().long()
        fits = (high > 0) & (high <= height) & (wide > 0) & (wide <= width)
        found = torch.stack([first_that(fits, *pair) for pair in zip((high, wide), self.whole(sizes), strict=True)], 1)
        free = sizes - found
        place = torch.where(fits.any(dim=1)[:, None], draws.integers(*(free + 1).unbind(dim=1)), free // 2)
        return torch.cat([place, found], dim=1)

    def whole(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return heights and widths of the largest pieces of a right shape, which are taken if no other is found."""
        height, width = sizes.unbind(dim=1)
        narrow = width.double() / height < self.ratio[0]
        high, wide = (width.double() / self.ratio[0]).round(), (height.double() * self.ratio[1]).round()
        return torch.where(narrow, high.long(), height), torch.where(narrow, width, torch.minimum(width, wide.long()))

    def of_part(self, image: Tensor | Picture, box: Box) -> Tensor:
        if isinstance(image, Picture):
            if self._blends and self.antialias and max(image.shape[1:]) > SMALL:
                return image.resized(box, sides_of(self.size))
            image = image.whole()
        return self.move(image[None], 0, True, {"box": torch.tensor([box])})[0]

    def shrinks(self, height: int, width: int) -> bool:
        return fraction((0, 0, height, width), sides_of(self.size)) > 1

    @property
    def _blends(self) -> bool:
        return self.interpolation != "nearest"

    def move(self, values: Tensor, fill: Fill, blend: bool, drawn: Drawn) -> Tensor:
        """Resize the pieces ``box``: top, left, height and width, int64 (N, 4)."""
        box, size = drawn["box"], sides_of(self.size)
        if not (blend and self._blends):
            rows, columns = (_nearest(box[:, side], box[:, side + 2], size[side]) for side in (0, 1))
            return cut(values, rows, columns)
        if values.device.type == "cpu" and max(values.shape[-2:]) > SMALL:
            return self._one_by_one(values, box, size)
        antialias = bool(self.antialias)
        down, across = (
            weights(box[:, side], box[:, side + 2], values.shape[side - 2], size[side], antialias) for side in (0, 1)
        )
        count, channels, height, width = values.shape
        whole = values.dtype == torch.uint8  # rounded twice, as Pillow does, and so that no sum depends on its order
        pixels = torch.bmm(values.to(torch.float32).reshape(count, channels * height, width), across.mT)
        pixels = (pixels.round_() if whole else pixels).view(count, channels, height, -1).transpose(1, 2)
        pixels = torch.bmm(down, pixels.reshape(count, height, -1)).view(count, size[0], channels, size[1])
        pixels = pixels.transpose(1, 2).contiguous()
        return to_bytes(pixels.round_().clamp_(0, 255)) if whole else pixels.to(values.dtype)

    def _one_by_one(self, values: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
        resized = [
            resize(image[:, top : top + height, left : left + width], size, bool(self.antialias))
            for image, (top, left, height, width) in zip(values.unbind(), box.tolist(), strict=True)
        ]
        return torch.stack(resized)


def first_that(fits: Tensor, values: Tensor, otherwise: int | Tensor) -> Tensor:
    """Return of each row of values (N, K) the first that fits, or else ``otherwise``, (N,)."""
    first = fits.to(torch.int8).argmax(dim=1, keepdim=True)
    return torch.where(fits.any(dim=1), values.gather(1, first)[:, 0], otherwise)


def log_uniform(numbers: Tensor, ends: Sequence[float]) -> Tensor:
    """Return uniform numbers 0..1 as numbers between two ends whose logarithm is uniform."""
    low, high = (math.log(end) for end in ends)
    return torch.exp(low + (high - low) * numbers)


def _nearest(start: Tensor, length: Tensor, count: int) -> Tensor:
    """Return the pixels nearest to ``count`` places in pieces of a line, int64 (N, count)."""
    place = torch.arange(count, device=start.device) * (length.float() / count)[:, None]
    return start[:, None] + torch.minimum(place.long(), length[:, None] - 1)


def weights(start: Tensor, length: Tensor, size: int, count: int, antialias: bool) -> Tensor:
    """Return the matrices that resize pieces of a line of ``size`` pixels to ``count``, float32 (N, count, size).

    A pixel counts by its distance from the place, as in Pillow; its weight is a multiple of ``1 / STEPS``.
    """
    scale = length.float()[:, None, None] / count
    reach = scale.clamp(min=1) if antialias else torch.ones_like(scale)
    centre = (torch.arange(count, device=start.device)[:, None] + 0.5) * scale
    pixel = torch.arange(size, device=start.device) - start[:, None, None]
    within = (pixel >= 0) & (pixel < length[:, None, None])
    if not antialias:  # the outermost pixels stand for what is beyond them
        centre = torch.minimum(centre.clamp(min=0.5), length[:, None, None] - 0.5)
    found = (1 - ((pixel + 0.5 - centre) / reach).abs()).clamp(min=0) * within
    return (found * (STEPS / found.sum(dim=2, keepdim=True))).round_() / STEPS
