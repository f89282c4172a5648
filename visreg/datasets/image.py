"""The one place where image files are decoded, by Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from visreg.data import printable
from visreg.datasets.files import DamagedError, open_file
from visreg.errors import DataError

MAX_PIXELS = 1 << 26  # 8192 × 8192: a larger one is rather a decompression bomb than a photograph
FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)  # Pillow's others run programs, or are not for photographs
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
Mode = Literal["RGB", "L"]


def read_image(path: str | Path, mode: Mode = "RGB", *, upright: bool = True) -> Tensor:
    """Return the image in a file, uint8 (C, H, W), upright as its EXIF orientation says.

    Transparency is dropped, palettes are looked up, CMYK is converted without colour profiles, which are ignored too,
    16-bit grey is scaled to 8 bits, and of an animation the first frame is taken; so does
    ``torchvision.datasets.ImageFolder``, apart from the orientation, and 16-bit grey, which it clips. Floats are
    refused.

    Args:
        path: the file; its content alone says what format it has.
        mode: ``"RGB"`` for three channels, ``"L"`` for one, grey.
        upright: obey the EXIF orientation; else take the pixels as they are stored.

    Raises:
        DataError: if the file cannot be read, is no ordinary file, is no image, is damaged, or has more than
            ``MAX_PIXELS`` pixels, which shows before they are decoded.
    """
    return _read(path, lambda image: to_tensor(_upright(image) if upright else image, mode))


def read_mask(path: str | Path) -> Tensor:
    """Return the whole numbers in an image file, int64 (H, W): grey values, or places in a palette, as they are.

    Raises:
        DataError: as `read_image` does, and if the image is in colour.
    """
    return _read(path, _numbers)


def _read(path: str | Path, convert: Callable[[Image.Image], Tensor]) -> Tensor:
    name = printable(path)
    try:
        with open_file(path, "an image") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{name}: {image.width}×{image.height} is more than {MAX_PIXELS:,} pixels; shrink it")
            image.load()
            return convert(image)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        said = printable(f"{error.strerror or error}" if isinstance(error, OSError) else error)
        reason = "not an image, or of a kind not known" if isinstance(error, UnidentifiedImageError) else said
        raise DamagedError(f"{name}: cannot be read as an image: {type(error).__name__}: {reason}") from error


def to_tensor(image: Image.Image, mode: Mode | None = None) -> Tensor:
    """Return a Pillow image as uint8 (C, H, W); without ``mode`` a grey one has one channel, any other three.

    Raises:
        ValueError: if its values are floats, or beyond 16 bits.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which nobody knows the range; save it with integers")
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
    wide = image.convert("I")
    low, high = map(int, wide.getextrema())  # type: ignore[arg-type]  # of one channel, they are numbers
    if low < 0 or high > 65535:
        raise ValueError(f"grey values {low}..{high} are not of 16 bits")
    return wide.point(lambda value: value * (1 / 257) + 0.5).convert(
        "L"
    )  # a formula to Pillow, and not called for each
