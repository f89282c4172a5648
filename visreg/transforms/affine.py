"""Turning, shifting, scaling and shearing images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import define, field
from attrs.validators import instance_of
from torch import Tensor
from torch.nn.functional import grid_sample

from visreg.random_draws import Draws
from visreg.transform import Drawn
from visreg.transforms.crops import pick
from visreg.transforms.images import Fill, Move, choose, filled_like, is_fill, name_of

Degrees = float | Sequence[float]


@define(kw_only=True, eq=False)
class _Warp(Move):
    """What the affine transforms share."""

    heavy = True
    interpolation: str = field(default="nearest", converter=name_of)
    fill: Fill = field(default=0, validator=is_fill)
    center: Sequence[float] | None = None

    def obstacle(self, keys: Any) -> str:
        if self.interpolation not in ("nearest", "bilinear"):
            return f"interpolation {self.interpolation!r} is torchvision's"
        return super().obstacle(keys)

    def move(self, values: Tensor, fill: Fill, blend: bool, drawn: Drawn) -> Tensor:
        """Turn by ``angle`` (N,) and ``shear`` (N, 2), in degrees, ``scale`` (N,), and ``shift`` by pixels (N, 2)."""
        height, width = values.shape[-2:]
        centre = [0.0, 0.0] if self.center is None else [self.center[0] - width / 2, self.center[1] - height / 2]
        matrix = _inverse(centre, drawn["angle"], drawn["shift"], drawn["scale"], drawn["shear"])
        return warp(values, matrix.to(torch.float32), fill, blend and self.interpolation == "bilinear")


@define(kw_only=True, eq=False)
class RandomAffine(_Warp):
    """Turns, shifts, scales and shears images about their centre.

    Objects that it leaves less than a pixel of are taken out of the sample.

    Args:
        degrees: by how much to turn at most, to either side, or from least to most; positive is clockwise.
        translate: by how much to shift at most, to either side: shares of the width and of the height.
        scale: least and greatest scale.
        shear: by how many degrees to shear at most, to either side; or from least to most, along x, or x and y.
        interpolation: ``"nearest"`` or ``"bilinear"``.
        fill: colour of what comes in from outside, one number or one for each channel, on the scale of the image.
        center: the point that stays, (x, y) in pixels from the upper left corner.
    """

    degrees: Degrees = field()
    translate: Sequence[float] | None = field(default=None)
    scale: Sequence[float] | None = field(default=None)
    shear: Degrees | None = field(default=None)

    @degrees.validator
    def _are_degrees(self, attribute: Any, value: Any) -> None:
        _ends("degrees", value)

    @shear.validator
    def _is_shear(self, attribute: Any, value: Any) -> None:
        if value is not None:
            four = isinstance(value, (list, tuple)) and len(value) == 4
            for pair in (value[:2], value[2:]) if four else (value,):
                _ends("shear", pair)

    @translate.validator
    def _is_translate(self, attribute: Any, value: Any) -> None:
        if value is not None and (len(value) != 2 or not all(0 <= share <= 1 for share in value)):
            raise ValueError(f"translate: must be two shares from 0 to 1, of the width and of the height, got {value}")

    @scale.validator
    def _is_scale(self, attribute: Any, value: Any) -> None:
        if value is not None and (len(value) != 2 or not 0 < value[0] <= value[1]):
            raise ValueError(f"scale: must be two numbers above 0, the least and the most, got {value}")

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        numbers = draws.uniform(6).double().unbind(dim=1)
        height, width = image.shape[-2:]
        across, down = (0.0, 0.0) if self.translate is None else self.translate
        shift = [
            _between(numbers[1], -across * width, across * width),
            _between(numbers[2], -down * height, down * height),
        ]
        shear = [_between(number, *ends) for number, ends in zip(numbers[4:], self._shears(), strict=True)]
        return {
            "angle": _between(numbers[0], *_ends("degrees", self.degrees)),
            "shift": torch.stack(shift, dim=1).round(),
            "scale": _between(numbers[3], *(self.scale or (1.0, 1.0))),
            "shear": torch.stack(shear, dim=1),
        }

    def _shears(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the least and the most along x, and along y."""
        shear = 0.0 if self.shear is None else self.shear
        if isinstance(shear, (int, float)) or len(shear) == 2:
            return _ends("shear", shear), (0.0, 0.0)
        return (shear[0], shear[1]), (shear[2], shear[3])


@define(kw_only=True, eq=False)
class RandomRotation(_Warp):
    """Turns images about their centre.

    Objects that it leaves less than a pixel of are taken out of the sample.

    Args:
        degrees: by how much at most, to either side, or from least to most; positive is anticlockwise.
        interpolation: ``"nearest"`` or ``"bilinear"``.
        expand: make the image large enough for all of it; this is torchvision's, for one sample at a time.
        center: the point that stays, (x, y) in pixels from the upper left corner.
        fill: colour of what comes in from outside, one number or one for each channel, on the scale of the image.
    """

    degrees: Degrees = field()
    expand: bool = field(default=False, validator=instance_of(bool))

    @degrees.validator
    def _are_degrees(self, attribute: Any, value: Any) -> None:
        _ends("degrees", value)

    def obstacle(self, keys: Any) -> str:
        return "expand=True makes images of different sizes" if self.expand else super().obstacle(keys)

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        numbers = draws.uniform().double()
        angle = -_between(numbers, *_ends("degrees", self.degrees))
        none = torch.zeros(len(draws), 2, dtype=torch.float64, device=numbers.device)
        return {"angle": angle, "shift": none, "scale": torch.ones_like(angle), "shear": none}


def _ends(name: str, value: Any) -> tuple[float, float]:
    """Return the least and the most.

    Raises:
        ValueError: if ``value`` is neither a number from 0 up nor a pair.
    """
    pair = value if isinstance(value, (list, tuple)) else (-value, value)
    if len(pair) != 2 or not pair[0] <= pair[1]:
        raise ValueError(f"{name}: must be a number of degrees from 0 up, or the least and the most, got {value!r}")
    return float(pair[0]), float(pair[1])


def _between(numbers: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * numbers


def _inverse(centre: Sequence[float], angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Return what leads from a place in the result to one in the image, both from its centre: float64 (N, 2, 3).

    The forward way is torchvision's: scaled and sheared, turned about ``centre``, then shifted.
    """
    turn, tilt = torch.deg2rad(angle.double()), torch.deg2rad(shear.double())
    a = torch.cos(turn - tilt[:, 1]) / torch.cos(tilt[:, 1])
    c = torch.sin(turn - tilt[:, 1]) / torch.cos(tilt[:, 1])
    b = -a * torch.tan(tilt[:, 0]) - torch.sin(turn)
    d = -c * torch.tan(tilt[:, 0]) + torch.cos(turn)
    rows = []
    for (x, y), middle in zip(((d, -b), (-c, a)), centre, strict=True):
        x, y = x / scale, y / scale
        rows.append(torch.stack([x, y, middle - x * (centre[0] + shift[:, 0]) - y * (centre[1] + shift[:, 1])], dim=1))
    return torch.stack(rows, dim=1)


def warp(values: Tensor, matrix: Tensor, fill: Fill, smooth: bool) -> Tensor:
    """Return what is to be seen of values (N, C, H, W) at the places that ``matrix`` leads to from each pixel.

    Args:
        values: of pixels.
        matrix: from a place in the result to one in ``values``, both in pixels from the centre: float32 (N, 2, 3).
        fill: what is outside.
        smooth: take the mean of the four pixels around a place, by their distance, and not the nearest one.
    """
    height, width = values.shape[-2:]
    middle = ((width - 1) / 2, (height - 1) / 2)
    across = torch.arange(width, device=values.device) - middle[0]
    down = torch.arange(height, device=values.device)[:, None] - middle[1]
    x, y = (row[..., :1] * across + (row[..., 1:2] * down + row[..., 2:]) for row in matrix[:, :, None].unbind(dim=1))
    if smooth:
        return _blended(values, torch.stack([x / (width / 2), y / (height / 2)], dim=-1), fill)
    x, y = x.add_(middle[0]).round_(), y.add_(middle[1]).round_()
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height))[:, None]
    place = y.clamp_(0, height - 1).mul_(width).add_(x.clamp_(0, width - 1)).long()
    return choose(inside, pick(values, place), filled_like(values, fill))


def _blended(values: Tensor, grid: Tensor, fill: Fill) -> Tensor:
    pixels = values.to(torch.float32)
    pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)  # which tells how much of each is inside
    found = grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    colour = filled_like(pixels[:, :-1], fill)
    mixed = found[:, :-1].sub_(colour).mul_(found[:, -1:]).add_(colour)
    return mixed.round_().to(torch.int32).to(torch.uint8) if values.dtype == torch.uint8 else mixed.to(values.dtype)
