"""Lets torchvision's transforms see what is an image, a clip, a mask or a box, and gives back plain tensors.

torchvision moves what is one of its ``tv_tensors``; of plain tensors it takes the first for an image and leaves the
others where they were. All frames of a clip are changed alike. Objects whose boxes leave the picture leave the sample.
Outside of torchvision's transforms a sample or batch holds plain tensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from attrs import define
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image, Mask, TVTensor, Video, wrap

from visreg.data import IGNORE, PLACED, RAGGED, Transform, pixels
from visreg.picture import Picture, fraction
from visreg.transforms.images import name_of

TYPED = PLACED | {"clip"}  # what torchvision would not know for what it is
OF_OBJECTS = ("labels", "crowd", "area")  # what has an entry for each box and does not move
LEAST = 1.0  # pixels that a random transform must leave of a box in both directions, as of SanitizeBoundingBoxes
# Those that make of an image always the same, alone or in a batch; those of the second kind leave its size as it is.
FIXED_SIZES = frozenset({"CenterCrop", "Grayscale", "Pad", "RGB", "Resize"})
FIXED_PIXELS = frozenset({"ConvertImageDtype", "Identity", "Normalize", "ToDtype", "ToImage", "ToPureTensor"})


def adopt(factory: type[v2.Transform], **arguments: Any) -> Moving:
    """Return one of torchvision's transforms, made with ``arguments``, for plain samples."""
    if isinstance(arguments.get("fill"), (int, float, list, tuple)):  # a colour, which a mask has none of
        arguments["fill"] = {Mask: 0, "others": arguments["fill"]}
    if "transforms" in arguments:
        arguments["transforms"] = [
            inner if isinstance(inner, Moving) else _Plain(inner) for inner in arguments["transforms"]
        ]
    if issubclass(factory, v2.SanitizeBoundingBoxes):
        return Moving(factory(**{"labels_getter": _of_objects} | arguments), hidden=("mask",))
    return Moving(factory(**arguments))


@define(eq=False)
class Moving:
    """One of torchvision's transforms, called on a sample or a batch of plain tensors.

    What a transform moves into the picture from outside is black in the image, unless it has a ``fill``; in ``mask`` it
    is `IGNORE`, and in ``masks`` it belongs to no object. An object of whose box it leaves nothing, or by chance less
    than `LEAST`, is taken out; a box that had no area before stays, since that is a mistake in the data.

    Args:
        inner: torchvision's.
        hidden: keys that it does not get to see.
    """

    inner: v2.Transform
    hidden: Collection[str] = ()

    @property
    def fixed(self) -> bool:
        """Whether it makes of a sample always the same."""
        return type(self.inner).__name__ in FIXED_SIZES | FIXED_PIXELS

    @property
    def batched(self) -> bool:
        """Whether it makes of a batch what it makes of each sample."""
        return self.fixed

    @property
    def resizes(self) -> bool:
        """Whether the images may have another shape afterwards."""
        return type(self.inner).__name__ not in FIXED_PIXELS

    def of_picture(self, picture: Picture) -> Tensor:
        """Return what it makes of an image that is not read yet, which a Resize may get at a fraction of its size."""
        whole = (0, 0, *picture.shape[1:])
        if isinstance(self.inner, v2.Resize) and picture.fractions and fraction(whole, (1, 1)) > 1:
            size = self.inner(torch.empty(picture.shape, dtype=torch.uint8, device="meta")).shape[-2:]
            smooth = name_of(self.inner.interpolation) == "bilinear" and self.inner.antialias
            if smooth and fraction(whole, size) > 1:
                return picture.resized(whole, tuple(size))
        resized: Tensor = self({"image": picture.whole()})["image"]
        return resized

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Return ``values`` changed; as part of another transform it gets them typed, and leaves them so.

        Raises:
            ValueError: if the boxes are no longer x1, y1, x2, y2.
        """
        held = {key: values[key] for key in self.hidden if key in values}
        shown = {key: value for key, value in values.items() if key not in held} if held else values
        if TYPED.isdisjoint(shown) or isinstance(pixels(shown), TVTensor):
            if next(iter(shown)) != "image" and "image" in shown:
                shown = {"image": shown["image"], **shown}
            made = self.inner(shown)
        else:
            made = _plain(self.inner(_typed(shown)))
        made = {**made, **held} if held else made
        return _without_lost(made, values, 0.0 if self.fixed else LEAST)


@define(eq=False)
class _Plain:
    """Another's transform inside of one of torchvision's, such as RandomApply."""

    inner: Transform

    def __call__(self, values: Mapping[str, Any]) -> Any:
        if not isinstance(pixels(values), TVTensor):
            return self.inner(values)
        return _typed(self.inner(_plain(values)))


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values as torchvision's tensors; 0 in a mask is then what is to be ignored, as what is outside."""
    image = pixels(values)
    size = tuple(image.shape[-2:]) if isinstance(image, Tensor) else (image.height, image.width)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "image": Image,
        "clip": Video,
        "mask": lambda mask: Mask((mask + 1).masked_fill(mask == IGNORE, 0)),
        "masks": Mask,
        "boxes": lambda boxes: BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=size),
    }
    return {key: _each(kinds[key], value) if key in kinds else value for key, value in values.items()}


def _plain(values: Any) -> Any:
    """Return torchvision's tensors as plain ones; what a transform returns that is no dict is somebody else's to mind.

    Raises:
        ValueError: if the boxes are no longer x1, y1, x2, y2.
    """
    if not isinstance(values, Mapping):
        return values
    made = {key: _each(_untyped, value) for key, value in values.items()}
    if isinstance(made.get("mask"), Tensor):
        mask = made["mask"]
        made["mask"] = (mask - 1).masked_fill(mask == 0, IGNORE)
    return made


def _without_lost(made: Any, before: Mapping[str, Any], least: float) -> Any:
    """Return a sample or batch without the objects whose boxes a transform has cut away, to less than ``least`` pixels.

    Where it took out objects itself, or is made of others, which have done so, nothing is left to do.
    """
    if not isinstance(made, Mapping) or "boxes" not in before or "boxes" not in made:
        return made
    listed = isinstance(made["boxes"], list)
    pairs = zip(before["boxes"], made["boxes"], strict=True) if listed else [(before["boxes"], made["boxes"])]
    kept = [_kept(*pair, least) for pair in pairs]
    if all(which is None or bool(which.all()) for which in kept):
        return made
    cut = dict(made)
    for key in RAGGED & made.keys():
        values = made[key] if listed else [made[key]]
        chosen = [_chosen(value, which) for value, which in zip(values, kept, strict=True)]
        cut[key] = chosen if listed else chosen[0]
    return cut


def _kept(before: Tensor, after: Tensor, least: float) -> Tensor | None:
    """Return, bool (M,), which boxes (M, 4) have something left, and ``least`` pixels if they had; None if unknown."""
    if before.shape != after.shape or before.shape[1:] != (4,):
        return None
    was, left = (boxes.as_subclass(Tensor)[:, 2:] - boxes.as_subclass(Tensor)[:, :2] for boxes in (before, after))
    lost = ((left <= 0) | ((left < least) & (was >= least))).any(dim=1)
    return ~(lost & (was > 0).all(dim=1))


def _chosen(value: Tensor, which: Tensor | None) -> Tensor:
    """Return those entries that the bool tensor (M,) says; all if there is none, or it is of another number."""
    if which is None or len(value) != len(which):
        return value
    chosen = value.as_subclass(Tensor)[which]
    return wrap(chosen, like=value) if isinstance(value, TVTensor) else chosen


def _each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return what ``function`` makes of a tensor, or of each in a list; other values as they are."""
    if isinstance(value, Tensor):
        return function(value)
    return [_each(function, item) for item in value] if isinstance(value, list) else value


def _untyped(value: Tensor) -> Tensor:
    if not isinstance(value, TVTensor):
        return value
    if isinstance(value, BoundingBoxes) and value.format != BoundingBoxFormat.XYXY:
        raise ValueError(f"it leaves the boxes as {value.format.value}; they must stay x1, y1, x2, y2, which is XYXY")
    plain: Tensor = value.as_subclass(Tensor)
    return plain


def _of_objects(values: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return what SanitizeBoundingBoxes is to cut like the boxes."""
    return tuple(values[key] for key in OF_OBJECTS if key in values)
