"""The one place where image files are decoded, by Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageOps
from torch import Tensor

from visreg.datasets.files import DamagedError
from visreg.errors import DataError

MAX_PIXELS = 1 << 26  # 8192 × 8192: a larger one is rather a decompression bomb than a photograph
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
Mode = Literal["RGB", "L"]


def read_image(path: str | Path, mode: Mode = "RGB") -> Tensor:
    """Return the image in a file, uint8 (C, H, W), upright as its EXIF orientation says.

    Transparency is dropped, palettes are looked up, CMYK is converted without colour profiles, 16-bit grey is scaled to
    8 bits, and of an animation the first frame is taken; so does ``torchvision.datasets.ImageFolder``, apart from the
    orientation, and 16-bit grey, which it clips.

    Args:
        path: the file.
        mode: ``"RGB"`` for three channels, ``"L"`` for one, grey.

    Raises:
        DataError: if the file cannot be read, is no image, is damaged, or has more than ``MAX_PIXELS`` pixels.
    """
    return _read(path, lambda image: to_tensor(_upright(image), mode))


def read_mask(path: str | Path) -> Tensor:
    """Return the whole numbers in an image file, int64 (H, W): grey values, or places in a palette, as they are.

    Raises:
        DataError: as `read_image` does, and if the image is in colour.
    """
    return _read(path, _numbers)


def _read(path: str | Path, convert: Callable[[Image.Image], Tensor]) -> Tensor:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: {image.width}×{image.height} is more than {MAX_PIXELS:,} pixels; shrink it")
            image.load()
            return convert(image)
    except DataError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        raise DamagedError(f"{path}: cannot be read as an image: {type(error).__name__}: {error}") from error


def to_tensor(image: Image.Image, mode: Mode | None = None) -> Tensor:
    """Return a Pillow image as uint8 (C, H, W); without ``mode`` a grey one has one channel, any other three."""
    if image.mode in SIXTEEN_BITS:
        image = _eight_bits(image)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # Pillow warns of transparency that is lost on the way to RGB directly
    image = image.convert(mode or ("L" if image.mode in ("1", "L", "LA") else "RGB"))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(image.height, image.width, -1).permute(2, 0, 1).contiguous()


def _numbers(image: Image.Image) -> Tensor:
    if image.mode in SIXTEEN_BITS:
        wide = torch.frombuffer(bytearray(image.convert("I").tobytes()), dtype=torch.int32)
        return wide.view(image.height, -1).long()
    if image.mode not in ("L", "P"):
        raise ValueError(f"expected a whole number for each pixel, found an image of mode {image.mode}")
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, -1).long()


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole: a damaged remark on how the camera was held is no reason to refuse them
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey: 65535 becomes 255."""
    wide = torch.frombuffer(bytearray(image.convert("I").tobytes()), dtype=torch.int32)
    if wide.min() < 0 or wide.max() > 65535:
        raise ValueError(f"grey values {wide.min()}..{wide.max()} are not of 16 bits")
    narrow = ((wide + 128) // 257).to(torch.uint8)
    return Image.frombytes("L", image.size, bytes(narrow.tolist()))
