"""Decoding: what comes out of each kind of file."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from PIL import Image

from visreg.datasets import image as module
from visreg.datasets.files import DamagedError
from visreg.datasets.image import read_image
from visreg.errors import DataError


def save(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def pixel(tensor):
    return tensor[:, 0, 0].tolist()


def test_shape_is_channels_height_width(tmp_path):
    image = Image.new("RGB", (5, 3), (1, 2, 3))
    image.putpixel((4, 1), (9, 8, 7))
    found = read_image(save(tmp_path, image))
    assert found.shape == (3, 3, 5)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert found[:, 1, 4].tolist() == [9, 8, 7]
    assert pixel(found) == [1, 2, 3]


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        ("L", 100, "a.png", [100, 100, 100]),
        ("1", 1, "a.png", [255, 255, 255]),
        ("LA", (100, 7), "a.png", [100, 100, 100]),
        ("RGBA", (1, 2, 3, 0), "a.png", [1, 2, 3]),
        ("I;16", 25700, "a.png", [100, 100, 100]),
        ("I;16", 65535, "a.png", [255, 255, 255]),
        ("CMYK", (0, 255, 255, 0), "a.tif", [255, 0, 0]),
        ("RGB", (9, 9, 9), "a.bmp", [9, 9, 9]),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, name, expected):
    assert pixel(read_image(save(tmp_path, Image.new(mode, (2, 2), colour), name))) == expected


def test_palettes_are_looked_up_even_with_transparency(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = save(tmp_path, image, transparency=b"\x00\x80")
    assert pixel(read_image(path)) == [10, 20, 30]


def test_grey_can_be_had(tmp_path):
    assert read_image(save(tmp_path, Image.new("RGB", (4, 2), (50, 50, 50))), "L").tolist() == [[[50] * 4] * 2]


def test_exif_orientation_is_obeyed(tmp_path):
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    found = read_image(save(tmp_path, image, exif=exif))
    assert found.shape == (3, 4, 2)
    assert found[:, 0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(DamagedError, match=r"broken\.png: cannot be read as an image: "):
        read_image(tmp_path / "broken.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "webp", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = save(tmp_path, Image.frombytes("RGB", (64, 64), bytes(noise.flatten().tolist())), f"image.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedError, match="cannot be read as an image"):
        read_image(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: cannot be read as an image: FileNotFoundError"):
        read_image(tmp_path / "none.png")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 15)
    with pytest.raises(DataError, match="4×4 is more than 15 pixels"):
        read_image(save(tmp_path, Image.new("L", (4, 4))))


@pytest.mark.parametrize("side", [10_000, 60_000])  # of which Pillow itself warns, and refuses
def test_decompression_bombs_are_refused(tmp_path, side):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")
