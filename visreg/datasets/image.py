"""The one place where image files are decoded, by Pillow: whole, in part, or at a fraction of their size."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from attrs import define, field
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor

from visreg.data import printable
from visreg.datasets.files import DamagedError, open_file
from visreg.errors import DataError
from visreg.picture import Box, Picture, Size, fraction

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
MAX_BYTES = 1 << 30  # of a file, which is read into memory whole
ORIENTATION = 0x0112  # in EXIF
# What makes an image upright, by its orientation; whether that mirrors the columns, and the rows, as they are stored.
UPRIGHT = {
    1: (None, False, False),
    2: (Transpose.FLIP_LEFT_RIGHT, True, False),
    3: (Transpose.ROTATE_180, True, True),
    4: (Transpose.FLIP_TOP_BOTTOM, False, True),
    5: (Transpose.TRANSPOSE, False, False),
    6: (Transpose.ROTATE_270, False, True),
    7: (Transpose.TRANSVERSE, True, True),
    8: (Transpose.ROTATE_90, True, False),
}


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
    return ImageFile.open(path, mode, upright=upright).whole()


def read_mask(path: str | Path) -> Tensor:
    """Return the whole numbers in an image file, int64 (H, W): grey values, or places in a palette, as they are.

    Raises:
        DataError: as `read_image` does, and if the image is in colour.
    """
    file = ImageFile.open(path)
    with _blaming(path):
        file.image.load()
        return _numbers(file.image)


@define(eq=False)
class ImageFile(Picture):
    """An image file, read into memory, of which the header alone is decoded until pixels are asked for.

    Attributes:
        path: where it is. content: its bytes. image: as Pillow has it. mode: of the pixels to be.
        orientation: of EXIF, 1 to 8, which 1 leaves as it is.
    """

    path: str | Path
    content: bytes = field(repr=False)
    image: Image.Image = field(repr=False)
    mode: Mode = "RGB"
    orientation: int = 1
    fractions: bool = True

    @classmethod
    def open(cls, path: str | Path, mode: Mode = "RGB", *, upright: bool = True) -> ImageFile:
        """Return the image in a file, of which nothing is decoded yet; see `read_image`."""
        with _blaming(path):
            with open_file(path, "an image") as file:
                if os.fstat(file.fileno()).st_size > MAX_BYTES:
                    raise DataError(f"{printable(path)}: has more than {MAX_BYTES:,} bytes; shrink it")
                content = file.read()
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                many = f"{image.width}×{image.height} is more than {MAX_PIXELS:,} pixels"
                raise DataError(f"{printable(path)}: {many}; shrink it")
            return cls(path, content, image, mode, _orientation(image) if upright else 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self._turned((self.image.height, self.image.width))
        return 1 if self.mode == "L" else 3, height, width

    def part(self, box: Box) -> Tensor:
        """Return a part, uint8 (C, height, width): cut out first, then converted; all of it is decoded."""
        with _blaming(self.path):
            self.image.load()
            place = self._stored(box)
            whole = place == (0, 0, *self.image.size)
            return self._tensor(self.image if whole else self.image.crop(place))

    def resized(self, box: Box, size: Size) -> Tensor:
        by = fraction(box, size) if self.fractions and self.image.format == "JPEG" else 1
        if by == 1:
            return super().resized(box, size)
        with _blaming(self.path), Image.open(io.BytesIO(self.content), formats=FORMATS) as image:
            width, height = image.size
            drafted = image.draft(image.mode, (width // by, height // by))
            scale = width / drafted[1][2] if drafted else 1  # which Pillow may not know how to do for this one
            left, top, right, bottom = (end / scale for end in self._stored(box))
            down, across = self._turned(size)
            return self._tensor(image.resize((across, down), Image.Resampling.BILINEAR, (left, top, right, bottom)))

    def _tensor(self, image: Image.Image) -> Tensor:
        method = UPRIGHT[self.orientation][0]
        return to_tensor(image if method is None else image.transpose(method), self.mode)

    def _turned(self, size: Size) -> Size:
        return size if self.orientation < 5 else (size[1], size[0])

    def _stored(self, box: Box) -> tuple[int, int, int, int]:
        """Return where a part is in the pixels as they are stored: left, top, right and bottom."""
        top, left, height, width = box
        rows, columns = (top, top + height), (left, left + width)
        if self.orientation >= 5:
            rows, columns = columns, rows
        _, mirrored, upside_down = UPRIGHT[self.orientation]
        if mirrored:
            columns = (self.image.width - columns[1], self.image.width - columns[0])
        if upside_down:
            rows = (self.image.height - rows[1], self.image.height - rows[0])
        return columns[0], rows[0], columns[1], rows[1]


@contextmanager
def _blaming(path: str | Path) -> Iterator[None]:
    """Say of whatever is raised inside that the file at ``path`` is damaged."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make Pillow raise nearly anything
        said = printable(f"{error.strerror or error}" if isinstance(error, OSError) else error)
        reason = "not an image, or of a kind not known" if isinstance(error, UnidentifiedImageError) else said
        raise DamagedError(
            f"{printable(path)}: cannot be read as an image: {type(error).__name__}: {reason}"
        ) from error


def to_tensor(image: Image.Image, mode: Mode | None = None) -> Tensor:
    """Return a Pillow image as uint8 (C, H, W), in memory (H, W, C).

    Without ``mode`` a grey one has one channel, any other three.

    Raises:
        ValueError: if its values are floats, or beyond 16 bits.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which nobody knows the range; save it with integers")
    if image.mode in SIXTEEN_BITS:
        image = _eight_bits(image)
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # Pillow warns of transparency that is lost on the way to RGB directly
    mode = mode or ("L" if image.mode in ("1", "L", "LA") else "RGB")
    image = image if image.mode == mode else image.convert(mode)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(image.height, image.width, -1).permute(2, 0, 1)


def _numbers(image: Image.Image) -> Tensor:
    if image.mode in SIXTEEN_BITS:
        wide = torch.frombuffer(bytearray(image.convert("I").tobytes()), dtype=torch.int32)
        return wide.view(image.height, -1).long()
    if image.mode not in ("L", "P"):
        raise ValueError(f"expected a whole number for each pixel, found an image of mode {image.mode}")
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, -1).long()


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # the pixels are whole: a damaged remark on how the camera was held is no reason to refuse them
        return 1
    return found if found in UPRIGHT else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey: 65535 becomes 255."""
    wide = image.convert("I")
    low, high = map(int, wide.getextrema())  # type: ignore[arg-type]  # of one channel, they are numbers
    if low < 0 or high > 65535:
        raise ValueError(f"grey values {low}..{high} are not of 16 bits")
    return wide.point(lambda value: value * (1 / 257) + 0.5).convert(
        "L"
    )  # a formula to Pillow, and not called for each
