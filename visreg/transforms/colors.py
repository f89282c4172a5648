"""Changing the colours of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import Attribute, define, field
from torch import Tensor

from visreg.random_draws import Draws
from visreg.transform import Drawn
from visreg.transforms.images import Recolouring, choose, each, is_probability, to_bytes

GREY = (0.2989, 0.587, 0.114)  # how bright red, green and blue are (ITU-R BT.601)
Strength = float | Sequence[float] | None


def _is_strength(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None:
        _factors(attribute.name, value)


def _factors(name: str, value: Any) -> tuple[float, float]:
    """Return the least and the greatest factor.

    Raises:
        ValueError: if there are none.
    """
    middle, most = (0.0, 0.5) if name == "hue" else (1.0, float("inf"))
    pair = value if isinstance(value, (list, tuple)) else (middle - value, middle + value)
    if name != "hue" and not isinstance(value, (list, tuple)):
        pair = (max(0.0, pair[0]), pair[1])
    least = -most if name == "hue" else 0.0
    if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
        bounds = "within -0.5 and 0.5" if name == "hue" else "of 0 or more"
        raise ValueError(f"{name}: must be one number from 0 up, or the least and the most {bounds}, got {value!r}")
    return float(pair[0]), float(pair[1])


@define(kw_only=True, eq=False)
class ColorJitter(Recolouring):
    """Changes brightness, contrast, saturation and hue, in random order; channels after the third stay as they are.

    Each is one number, by how much at most, or the least and the most.

    Args:
        brightness: what to multiply colours by: from ``1 - brightness`` to ``1 + brightness``.
        contrast: what to multiply their distance from the image's mean grey by, likewise.
        saturation: what to multiply their distance from their own grey by, likewise.
        hue: by what share of the colour circle to turn them, 0 to 0.5.
    """

    heavy = True
    brightness: Strength = field(default=None, validator=_is_strength)
    contrast: Strength = field(default=None, validator=_is_strength)
    saturation: Strength = field(default=None, validator=_is_strength)
    hue: Strength = field(default=None, validator=_is_strength)

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        ends = [_factors(name, value) for name, value in self._used()] or [(1.0, 1.0)]
        numbers, order = draws.uniform(2, len(ends)).unbind(dim=1)
        factors = [low + (high - low) * number for (low, high), number in zip(ends, numbers.unbind(dim=1), strict=True)]
        return {"factor": torch.stack(factors, dim=1), "order": order.argsort(dim=1)}

    def _used(self) -> list[tuple[str, Any]]:
        named = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        return [(name, value) for name, value in named.items() if value is not None]

    def change(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Apply ``factor`` (N, K) of the K changes in use in ``order`` (N, K): which of them is first, and so on."""
        if image.shape[1] > 3:
            return torch.cat([self.change(image[:, :3], drawn), image[:, 3:]], dim=1)
        factor, order = drawn["factor"], drawn["order"]
        names = [name for name, _ in self._used()]
        whole, top = image.dtype == torch.uint8, 255.0 if image.dtype == torch.uint8 else 1.0
        pixels = image.to(torch.float32, copy=True)
        if "hue" not in names:
            for turn in range(len(names)):
                pixels = self._turn(pixels, names, factor, order[:, turn], whole)
        else:
            hue = names.index("hue")
            late = (order == hue).cumsum(dim=1) > 0  # those that come after it, and itself
            for after in (False, True):
                for turn in range(len(names)):
                    mine = (late[:, turn] == after) & (order[:, turn] != hue)
                    pixels = self._turn(pixels, names, torch.where(mine[:, None], factor, 1.0), order[:, turn], whole)
                if not after and image.shape[1] == 3:
                    pixels = _rotate_hue(pixels, factor[:, hue], top)
        return to_bytes(pixels) if whole else pixels.to(image.dtype)

    def _turn(self, pixels: Tensor, names: Sequence[str], factor: Tensor, which: Tensor, whole: bool) -> Tensor:
        """Return float pixels after one change each, ``which`` (N,) of the ``names``: all but hue are of one form."""
        ratio = factor.gather(1, which[:, None])
        grey = _grey(pixels, whole)
        toward = torch.zeros_like(grey)
        if "contrast" in names:
            mean = grey.mean(dim=(1, 2, 3), keepdim=True)
            toward = toward + mean * each(which == names.index("contrast"))
        if "saturation" in names:
            mine = each(which == names.index("saturation"))
            toward = toward + grey * mine
            ratio = torch.where(mine.view(-1, 1), 1.0, ratio) if pixels.shape[1] == 1 else ratio
        mixed = pixels.mul_(each(ratio)).add_(toward.mul_(each(1 - ratio))).clamp_(0, 255.0 if whole else 1.0)
        return mixed.floor_() if whole else mixed


def _grey(pixels: Tensor, whole: bool) -> Tensor:
    """Return float images (N, C, H, W) in grey, (N, 1, H, W), rounded down if they are ``whole`` numbers."""
    if pixels.shape[1] == 1:
        return pixels.clone()
    red, green, blue = (pixels[:, channel : channel + 1] for channel in range(3))
    grey = red.mul(GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    return grey.floor_() if whole else grey


def _rotate_hue(pixels: Tensor, turn: Tensor, top: float) -> Tensor:
    """Return float images (N, 3, H, W) up to ``top`` with their hue moved by a share of the circle, (N,).

    Source of the formula: Smith, "Color Gamut Transform Pairs", 1978; of its closed form: Wikipedia, "HSL and HSV".
    """
    red, green, blue = (pixels[:, channel : channel + 1] for channel in range(3))
    high = torch.maximum(torch.maximum(red, green), blue)  # many times as fast as aminmax
    wide = high - torch.minimum(torch.minimum(red, green), blue)
    per = wide.clamp(min=1e-12).reciprocal_()
    of_green, of_blue = torch.sub(blue, red).mul_(per).add_(2), torch.sub(red, green).mul_(per).add_(4)
    place = torch.sub(green, blue).mul_(per)
    place = choose(high == red, place, choose(high == green, of_green, of_blue)).add_(each(turn * 6))
    offsets = torch.arange(5, -1, -2, device=pixels.device).view(1, 3, 1, 1)  # of red, green and blue on the circle
    away = place + offsets
    away.sub_(away.mul(1 / 6).floor_().mul_(6))
    away.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
    changed = high - away.mul_(wide)
    return changed.mul_(255.999 / 255).floor_() if top == 255 else changed


@define(kw_only=True, eq=False)
class RandomGrayscale(Recolouring):
    """Takes the colour out of images, which keep their channels; those after the third stay as they are.

    Args:
        p: how probable that is.
    """

    p: float = field(default=0.1, validator=is_probability)

    def draw(self, draws: Draws, image: Tensor) -> Drawn:
        return {"grey": draws.uniform() < self.p}

    def change(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Make those grey for which ``grey``, bool (N,), says so."""
        if image.shape[1] == 1:
            return image
        if image.shape[1] > 3:
            return torch.cat([self.change(image[:, :3], drawn), image[:, 3:]], dim=1)
        made = _grey(image, False)
        made = to_bytes(made) if image.dtype == torch.uint8 else made
        return choose(each(drawn["grey"]), made, image)
