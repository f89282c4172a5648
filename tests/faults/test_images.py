"""Image files of every kind of damage: a tensor or a DataError that names the file, in little time and memory."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import warnings
import zlib

import pytest
import torch
from PIL import Image

from visreg.datasets.folder import ImageFolder
from visreg.datasets.image import read_image
from visreg.errors import DataError

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF"}


@pytest.fixture(autouse=True)
def as_in_use():
    """Let Pillow warn of what it sees, as it does outside tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def noise(width=24, height=20, mode="RGB"):
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2, "YCbCr": 3}[mode]
    return Image.frombytes(mode, (width, height), random.Random(0).randbytes(width * height * channels))


def encoded(suffix, image=None, **options):
    file = io.BytesIO()
    (image or noise()).save(file, FORMATS[suffix], **options)
    return file.getvalue()


def one_line(error, name=""):
    text = str(error)
    assert name in text
    assert len(text.splitlines()) == 1
    return text


def outcome(path):
    """Return the shape of the image, or the message of a DataError; nothing else may come."""
    try:
        image = read_image(path)
    except DataError as error:
        return one_line(error, path.name)
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    return tuple(image.shape)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_anywhere_is_refused_by_name(suffix, tmp_path, survived):
    whole = encoded(suffix)
    path = tmp_path / f"cut.{suffix}"
    lengths = [len(whole) * tenth // 10 for tenth in range(10)]
    results = []
    for length in lengths:
        path.write_bytes(whole[:length])
        results.append(outcome(path))
    refused = sum("cannot be read as an image" in str(result) for result in results)
    survived(f"truncated {FORMATS[suffix]} files", refused, len(lengths))


def mutant(whole, generator):
    """Return a copy with some damage: bits, bytes, a part lost, doubled, zeroed, or the sizes in its header changed."""
    data = bytearray(whole)
    for _ in range(generator.choice((1, 1, 2, 8))):
        place, length = generator.randrange(len(data)), generator.randrange(1, 17)
        kind = generator.randrange(6)
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place] = generator.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            data[place : place + length] = bytes(length)
        elif kind == 3:
            data[place : place + length] = generator.randbytes(length)
        elif kind == 4:
            data[place:place] = data[place : place + length]
        else:
            del data[place : place + length]
        data = data or bytearray(b"\0")
    return bytes(data)


def mutants(suffix, path, count, seed=0):
    generator = random.Random(f"{suffix} {seed}")
    wholes = [encoded(suffix), encoded(suffix, noise(mode="L"))]
    if suffix in ("gif", "webp", "png", "tif"):
        wholes.append(encoded(suffix, save_all=True, append_images=[noise(mode="L").convert("RGB")]))
    if suffix == "tif":
        wholes += [encoded(suffix, compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    for number in range(count):
        data = mutant(wholes[number % len(wholes)], generator)
        if suffix == "png" and number % 2:
            data = with_right_sums(data)
        path.write_bytes(data)
        yield outcome(path)


def with_right_sums(data):
    """Correct the checksums of PNG chunks, so that the damage reaches the decoder."""
    data, place = bytearray(data), 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if place + 12 + length > len(data):
            break
        struct.pack_into(">I", data, place + 8 + length, zlib.crc32(data[place + 4 : place + 8 + length]))
        place += 12 + length
    return bytes(data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_mutants_are_images_or_errors(suffix, tmp_path, survived):
    results = list(mutants(suffix, tmp_path / f"mutant.{suffix}", 300))
    assert any(isinstance(result, str) for result in results)
    survived(f"mutants of {FORMATS[suffix]}", len(results), 300)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_many_mutants_are_images_or_errors(suffix, tmp_path, survived):
    results = list(mutants(suffix, tmp_path / f"mutant.{suffix}", 10_000, seed=1))
    survived(f"mutants of {FORMATS[suffix]}", len(results), 10_000)


def test_every_flipped_bit_of_a_png_is_an_image_or_an_error(tmp_path, survived):
    whole = encoded("png", noise(4, 4))
    path = tmp_path / "bit.png"
    results = []
    for bit in range(0, 8 * len(whole), 5):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        results.append(outcome(path))
    survived("PNG files with one bit flipped", len(results), len(range(0, 8 * len(whole), 5)))


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path, survived):
    (tmp_path / "directory.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    paths = sorted(tmp_path.iterdir())
    results = [outcome(path) for path in paths]
    assert all("cannot be read as an image" in result for result in results)
    survived("files that are none", len(results), len(paths))


BOMBS = """
import resource, sys, warnings
from pathlib import Path
from PIL import Image
from visreg.datasets.image import read_image
from visreg.errors import DataError
warnings.simplefilter("ignore")
for warm in sys.argv[1:2]:
    read_image(warm)
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = used()
for path in sys.argv[2:]:
    try:
        print(Path(path).name, tuple(read_image(path).shape))
    except DataError as error:
        print(Path(path).name, "refused")
print(used() - before)
"""


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks, pixels=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bombs():
    """Yield (name, content, what comes of it); each would take 256 MB or more."""
    bomb, pixels = zlib.compress(bytes(1 << 28), 9), zlib.compress(bytes(6))
    yield "large.png", png(20_000, 20_000, pixels=bomb), "refused"
    yield "below-pillows-limit.png", png(9_000, 9_000, pixels=bomb), "refused"
    yield "text.png", png(2, 2, chunk(b"zTXt", b"k\0\0" + bomb), pixels=pixels), "refused"
    yield "unicode.png", png(2, 2, chunk(b"iTXt", b"k\0\1\0\0\0" + bomb), pixels=pixels), "refused"
    yield "profile.png", png(2, 2, chunk(b"iCCP", b"k\0\0" + bomb), pixels=pixels), "refused"
    yield "overlong.png", png(2, 2, pixels=bomb), "(3, 2, 2)"
    gif = bytearray(encoded("gif", noise(8, 8)))
    place = gif.index(b"\x2c\0\0\0\0\x08\0\x08\0")
    gif[place + 5 : place + 9] = struct.pack("<HH", 60_000, 60_000)
    yield "frame.gif", bytes(gif), "refused"
    webp = bytearray(encoded("webp", save_all=True, append_images=[noise(mode="L").convert("RGB")]))
    place = webp.index(b"VP8X")
    webp[place + 12 : place + 18] = b"\xff\x3f\x00" * 2
    yield "canvas.webp", bytes(webp), "refused"
    tiff = bytearray(encoded("tif", noise(8, 8, "L"), compression="tiff_deflate"))
    for tag in (256, 257):  # width and height, in an entry of 12 bytes
        place = tiff.index(struct.pack("<HHI", tag, 3, 1))
        tiff[place + 8 : place + 12] = struct.pack("<I", 40_000)
    yield "sides.tif", bytes(tiff), "refused"


def test_bombs_are_refused_before_they_take_memory(tmp_path, survived):
    (tmp_path / "warm.png").write_bytes(encoded("png"))
    expected = []
    for name, content, result in bombs():
        (tmp_path / name).write_bytes(content)
        expected.append((name, result))
    paths = [str(tmp_path / name) for name in ("warm.png", *(name for name, _ in expected))]
    command = [sys.executable, "-c", BOMBS, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *lines, megabytes = done.stdout.splitlines()
    assert lines == [f"{name} {result}" for name, result in expected]
    assert int(megabytes) < 64
    survived("decompression bombs", len(lines), len(expected))


def rotated(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return {"exif": exif}


def apng():
    return {"save_all": True, "append_images": [noise(24, 20), noise(24, 20)]}


def palette(transparency=None):
    image = noise().quantize(16)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


KINDS = {
    "cmyk.jpg": (lambda: noise(mode="CMYK"), {}, (3, 20, 24)),
    "ycbcr.jpg": (lambda: noise(mode="YCbCr"), {}, (3, 20, 24)),
    "grey.jpg": (lambda: noise(mode="L"), {}, (3, 20, 24)),
    "progressive.jpg": (noise, {"progressive": True}, (3, 20, 24)),
    "rotated.jpg": (noise, rotated(6), (3, 24, 20)),
    "mirrored.jpg": (noise, rotated(5), (3, 24, 20)),
    "oddly_rotated.jpg": (noise, rotated(99), (3, 20, 24)),
    "bad_exif.jpg": (noise, {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"}, (3, 20, 24)),
    "bad_profile.jpg": (noise, {"icc_profile": b"no profile"}, (3, 20, 24)),
    "bad_profile.png": (noise, {"icc_profile": b"no profile"}, (3, 20, 24)),
    "sixteen.png": (lambda: Image.new("I;16", (24, 20), 30_000), {}, (3, 20, 24)),
    "sixteen.tif": (lambda: Image.new("I;16", (24, 20), 30_000), {}, (3, 20, 24)),
    "thirty_two.tif": (lambda: Image.new("I", (24, 20), 70_000), {}, "not of 16 bits"),
    "floats.tif": (lambda: Image.new("F", (24, 20), 0.5), {}, "floats, of which nobody knows the range"),
    "bits.png": (lambda: Image.new("1", (24, 20), 1), {}, (3, 20, 24)),
    "grey_alpha.png": (lambda: noise(mode="LA"), {}, (3, 20, 24)),
    "alpha.png": (lambda: noise(mode="RGBA"), {}, (3, 20, 24)),
    "palette.png": (palette, {}, (3, 20, 24)),
    "palette_alpha.png": (lambda: palette(bytes(16)), {}, (3, 20, 24)),
    "palette_one_clear.gif": (lambda: palette(3), {}, (3, 20, 24)),
    "animated.gif": (noise, {"save_all": True, "append_images": [noise(24, 20, "L")]}, (3, 20, 24)),
    "animated.webp": (noise, {"save_all": True, "append_images": [noise(24, 20, "L")]}, (3, 20, 24)),
    "animated.png": (noise, apng(), (3, 20, 24)),
    "pages.tif": (noise, {"save_all": True, "append_images": [noise(9, 9)]}, (3, 20, 24)),
    "cmyk.tif": (lambda: noise(mode="CMYK"), {}, (3, 20, 24)),
    "one.png": (lambda: noise(1, 1), {}, (3, 1, 1)),
    "tall.png": (lambda: noise(1, 20_000), {}, (3, 20_000, 1)),
    "wide.jpg": (lambda: noise(20_000, 1), {}, (3, 1, 20_000)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_its_documented_result(name, tmp_path):
    make, options, expected = KINDS[name]
    path = tmp_path / name
    path.write_bytes(encoded(name.rpartition(".")[2], make(), **options))
    found = outcome(path)
    assert expected in found if isinstance(expected, str) else found == expected


def test_the_first_frame_is_what_is_seen(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(encoded("gif", Image.new("L", (4, 4), 10), save_all=True, append_images=[Image.new("L", (4, 4))]))
    assert read_image(path).unique().tolist() == [10]


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"%PDF-1.4\n"])
def test_formats_that_run_programs_are_not_known(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    assert "not an image, or of a kind not known" in outcome(tmp_path / "a.png")


NAMES = [
    b"new\nline",
    b"bell\a\x1b[31m",
    "bee\U0001f41d".encode(),
    b"\xff\xfe",
    b" ",
    b"a" * 251,
    b"..",
    b"'\"$`",
    b"%s{0}",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_or_can_at_least_be_told(name, tmp_path, survived):
    name = os.fsdecode(name)
    for folder in ("class", f"class{name}" if len(name) < 200 else "other"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"x{name[:200]}.png").write_bytes(encoded("png"))
    (tmp_path / "class" / f"{name}.png").write_bytes(b"damaged")
    dataset = ImageFolder(root=str(tmp_path))
    dataset.open()
    told = "\n".join(dataset.info.classes)
    shapes = 0
    for index in range(len(dataset)):
        try:
            shapes += dataset[index]["image"].shape == (3, 20, 24)
        except DataError as error:
            told += one_line(error)
    told.encode()  # a terminal or a file can hold it
    survived("odd names", shapes, 2)


def test_a_link_that_leads_back_doubles_nothing(tmp_path):
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    noise().save(tmp_path / "pets" / "cat" / "a.png")
    (tmp_path / "pets" / "cat" / "again").symlink_to("..")
    dataset = ImageFolder(root=str(tmp_path / "pets"))
    dataset.open()
    assert len(dataset) == 1
