"""What visreg's own transforms share: how they treat what is not an image, and choosing between two for each image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from attrs import Attribute, define, field
from torch import Tensor

from visreg.data import IGNORE, Batch, Transform
from visreg.transform import Drawn, RandomTransform

Fill = float | Sequence[float]
AT_ONCE = 3 << 17  # values of images that are computed with at once
WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@define(kw_only=True, eq=False)
class Recolouring(RandomTransform):
    """A change of colours; what belongs to the image stays where it is.

    Samples that there is an obstacle to are left to torchvision's transform of the same name.
    """

    _theirs: Transform | None = field(default=None, init=False, repr=False)

    heavy: ClassVar[bool] = False  # whether it computes with floats, of which fewer fit into a processor's cache

    @abstractmethod
    def change(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Return the images (N, C, H, W) changed as drawn."""

    def apply(self, batch: Batch, drawn: Drawn) -> Batch:
        return {**batch, "image": self._by_parts(batch["image"], drawn)}

    def _by_parts(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Return the images changed, on a processor not too many at once."""
        count = max(1, AT_ONCE // image[0].numel()) if self.heavy and image.device.type == "cpu" else len(image)
        if len(image) <= count:
            return self.change(image, drawn)
        cuts = [slice(start, start + count) for start in range(0, len(image), count)]
        return torch.cat([self.change(image[cut], {name: drawn[name][cut] for name in drawn}) for cut in cuts])

    def alone(self, values: dict[str, Any]) -> dict[str, Any]:
        if self._theirs is None:
            self._theirs = torchvisions(self)
        changed: dict[str, Any] = self._theirs(values)
        return changed


@define(kw_only=True, eq=False)
class Move(Recolouring):
    """A change of where things are; ``mask`` moves with the image, and `IGNORE` comes in where ``fill`` does."""

    moves = True

    def change(self, image: Tensor, drawn: Drawn) -> Tensor:
        return self.move(image, getattr(self, "fill", 0), True, drawn)

    @abstractmethod
    def move(self, values: Tensor, fill: Fill, blend: bool, drawn: Drawn) -> Tensor:
        """Return values (N, C, H, W) moved as drawn.

        Args:
            values: of pixels.
            fill: what comes in from outside.
            blend: whether a mean of two values means something, as it does of colours, and not of classes.
            drawn: what `draw` returned.
        """

    def apply(self, batch: Batch, drawn: Drawn) -> Batch:
        moved = {**batch, "image": self._by_parts(batch["image"], drawn)}
        if "mask" in batch:
            moved["mask"] = self.move(batch["mask"][:, None], IGNORE, False, drawn)[:, 0]
        return moved


def torchvisions(transform: Any) -> Transform:
    """Return torchvision's transform of the same name and options.

    Raises:
        ValueError: if there is none.
    """
    from torchvision.transforms import v2

    from visreg.transforms.adopted import adopt

    if not hasattr(v2, type(transform).__name__):
        raise ValueError(f"{type(transform).__name__} is for images alone, and not for clips")
    options = {each.name: getattr(transform, each.name) for each in attrs.fields(type(transform)) if each.init}
    if "interpolation" in options:  # of which not every torchvision takes the name
        options["interpolation"] = v2.InterpolationMode(options["interpolation"])
    return adopt(getattr(v2, type(transform).__name__), **options)


def choose(where: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return ``yes`` where the bool tensor says so, else ``no``; several times as fast as `torch.where` on bytes.

    >>> choose(torch.tensor([True, False]), torch.tensor([1, 2]), torch.tensor([3, 4])).tolist()
    [1, 4]
    """
    if not where.numel():
        return torch.where(where, yes, no)
    shape = max(yes, no, key=Tensor.numel).shape
    kept = next(dim for dim in range(len(shape)) if all(_is_plain(of, shape, dim) for of in (where, yes, no)))
    ours, theirs = (of.expand(*of.shape[:kept], *shape[kept:]).flatten(kept).contiguous() for of in (yes, no))
    narrow = WORDS[no.element_size()]
    odd = theirs.shape[-1] % 8 or any(of.storage_offset() % 8 for of in (ours, theirs))
    word = narrow if odd else torch.int64  # the more at once, the quicker
    ours, theirs = ours.view(word), theirs.view(word)
    if where.shape[kept:] != shape[kept:]:
        chosen = torch.where(where.flatten(kept), ours, theirs)
    else:
        mask = where.flatten(kept).to(narrow).neg_().view(word)
        chosen = (ours ^ theirs).bitwise_and_(mask).bitwise_xor_(theirs)
    return chosen.view(no.dtype).view(shape)


def _is_plain(values: Tensor, shape: torch.Size, dim: int) -> bool:
    """Return whether from a dimension on there is one value for all, or one for each place of ``shape``."""
    return values.shape[dim:] in (shape[dim:], (1,) * (len(shape) - dim))


def each(values: Tensor) -> Tensor:
    """Return one value for each image, (N,), so that it goes with images (N, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def filled_like(values: Tensor, fill: Fill) -> Tensor:
    """Return ``fill``, a number or one for each channel, as (1, C, 1, 1) of the dtype of ``values``.

    Raises:
        ValueError: if it is for another number of channels.
    """
    numbers = [fill] if isinstance(fill, (int, float)) else list(fill)
    if len(numbers) not in (1, values.shape[1]):
        raise ValueError(f"fill: has {len(numbers)} values, and the images have {values.shape[1]} channels")
    # Numbers become a tensor on the device without a wait, one by one; a list would be copied there.
    colours = [torch.full((1, 1, 1, 1), number, device=values.device).to(values.dtype) for number in numbers]
    return torch.cat(colours, dim=1).expand(1, values.shape[1], 1, 1)


def to_bytes(values: Tensor) -> Tensor:
    """Return floats 0..255 as uint8, cut off; it is quicker by way of int32."""
    return values.to(torch.int32).to(torch.uint8)


def is_probability(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Raise ValueError unless ``value`` is from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{attribute.name}: must be from 0 to 1, got {value!r}")


def is_range(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Raise ValueError unless ``value`` is a pair of numbers, of which neither is below 0 nor the second the first."""
    pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(end) in (int, float) for end in value)
    if not pair or not 0 <= value[0] <= value[1]:
        raise ValueError(f"{attribute.name}: must be two numbers, the least and the most, got {value!r}")


def is_size(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Raise ValueError unless ``value`` is a number of pixels, or (height, width)."""
    sides = value if isinstance(value, (list, tuple)) else (value,)
    if len(sides) not in (1, 2) or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"{attribute.name}: must be a number of pixels or (height, width), got {value!r}")


def name_of(interpolation: Any) -> str:
    """Return the name of an interpolation, which may be torchvision's own word for it."""
    return str(getattr(interpolation, "value", interpolation)).lower()


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def is_fill(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """Raise ValueError unless ``value`` is a number, or one for each channel."""
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    if not numbers or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"{attribute.name}: must be a number or one for each channel, got {value!r}")
