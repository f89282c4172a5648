"""Images that are yet to be read: their shape is known, and no more of them is decoded than is needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

Box = tuple[int, int, int, int]  # top, left, height and width of a part, in pixels
Size = tuple[int, int]  # height and width
FRACTIONS = (8, 4, 2)  # of its size that a JPEG can be decoded at, at less cost


class Picture(ABC):
    """An image as a file holds it, or anything else of which a part, or a smaller one, costs less than the whole.

    Attributes:
        fractions: whether `resized` may decode a JPEG at 1/2, 1/4 or 1/8 of its size and resize that, where it is still
            as large as asked for: the pixels differ a little, as another filter's would.
    """

    fractions: bool = True

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the whole."""

    @abstractmethod
    def part(self, box: Box) -> Tensor:
        """Return a part, uint8 (C, height, width).

        Raises:
            DataError: if the image cannot be read.
        """

    def resized(self, box: Box, size: Size) -> Tensor:
        """Return a part, resized with bilinear weights and antialiasing, uint8 (C, *size).

        Raises:
            DataError: if the image cannot be read.
        """
        return resize(self.part(box), size)

    def whole(self) -> Tensor:
        """Return all of it, uint8 (C, H, W).

        Raises:
            DataError: if it cannot be read.
        """
        return self.part((0, 0, *self.shape[1:])).contiguous()


def fraction(box: Box, size: Size) -> int:
    """Return by how much a part can be shrunk while it is decoded, so that it is still at least of ``size``.

    >>> fraction((0, 0, 1000, 2000), (224, 224)), fraction((0, 0, 375, 500), (224, 224))
    (4, 1)
    """
    return next((by for by in FRACTIONS if box[2] >= by * size[0] and box[3] >= by * size[1]), 1)


def resize(image: Tensor, size: Size, antialias: bool = True) -> Tensor:
    """Return an image (C, H, W) with bilinear weights resized to ``size``."""
    return interpolate(image[None], size=size, mode="bilinear", antialias=antialias)[0].contiguous()


def with_whole_image(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample whose image is read, if it was not."""
    image = sample.get("image")
    return {**sample, "image": image.whole()} if isinstance(image, Picture) else dict(sample)
