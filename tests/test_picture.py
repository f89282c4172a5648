"""Images that are read in part: the right part, whatever the file; and a fraction that is close to the whole."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageOps

from visreg.datasets.image import ImageFile, read_image
from visreg.errors import DataError
from visreg.picture import fraction, resize, with_whole_image
from visreg.registry import TRANSFORMS
from visreg.transform import OfPart, transform_sample

ORIENTATION = 0x0112
BOXES = [(0, 0, 40, 60), (3, 5, 20, 31), (0, 29, 40, 31), (39, 59, 1, 1)]


def photo(height, width, mode="RGB", seed=0):
    """Return an image that is smooth as photographs are, with some detail."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.zeros(1, 3, height, width)
    for side, weight in ((5, 0.6), (17, 0.3), (41, 0.1)):
        noise = torch.rand(1, 3, side, side, generator=generator)
        whole += weight * torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    pixels = whole[0].mul(255).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.frombytes("RGB", (width, height), bytes(pixels.flatten().tolist())).convert(mode)


def saved(tmp_path, image, name="a.jpg", orientation=None, **options):
    if orientation:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    image.save(tmp_path / name, **options)
    return tmp_path / name


def part(image, box):
    top, left, height, width = box
    return image[:, top : top + height, left : left + width]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_part_is_that_of_the_whole_upright(tmp_path, orientation, name):
    stored = photo(60, 40) if orientation > 4 else photo(40, 60)
    path = saved(tmp_path, stored, name, orientation)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    expected = torch.frombuffer(bytearray(upright.tobytes()), dtype=torch.uint8).view(40, 60, 3).permute(2, 0, 1)
    picture = ImageFile.open(path)
    assert picture.shape == (3, 40, 60)
    assert torch.equal(picture.whole(), expected)
    assert torch.equal(read_image(path), expected)
    for box in BOXES:
        assert torch.equal(ImageFile.open(path).part(box), part(expected, box)), box


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_fraction_is_close_to_the_whole_and_upright(tmp_path, orientation):
    stored = photo(500, 401) if orientation > 4 else photo(401, 500)
    path = saved(tmp_path, stored, orientation=orientation, quality=92)
    whole = read_image(path)
    for box, size in [((0, 0, 401, 500), (90, 100)), ((33, 77, 211, 303), (50, 70)), ((1, 9, 400, 131), (40, 16))]:
        picture = ImageFile.open(path)
        assert fraction(box, size) > 1
        found, expected = picture.resized(box, size), resize(part(whole, box), size)
        difference = (found.int() - expected.int()).abs().float()
        assert found.shape == (3, *size)
        assert difference.mean() < 1.5, (box, difference.mean())
        assert difference.max() < 25
        picture.fractions = False
        assert torch.equal(picture.resized(box, size), expected)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.jpg"), ("CMYK", "a.jpg"), ("RGB", "a.jpg"), ("L", "a.png"), ("P", "a.png"), ("RGBA", "a.png"),
        ("I;16", "a.png"), ("1", "a.png"), ("LA", "a.png"), ("P", "a.gif"), ("RGB", "a.webp"), ("CMYK", "a.tif"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_kind_of_image_is_the_same_in_part(tmp_path, mode, name, wanted):
    image = photo(80, 90, "L").convert("I;16") if mode == "I;16" else photo(80, 90, mode)
    path = saved(tmp_path, image, name)
    whole = read_image(path, wanted)
    assert whole.shape == (3 if wanted == "RGB" else 1, 80, 90)
    for box in BOXES:
        assert torch.equal(ImageFile.open(path, wanted).part(box), part(whole, box))
    found = ImageFile.open(path, wanted).resized((4, 2, 70, 80), (30, 33))
    difference = (found.int() - resize(part(whole, (4, 2, 70, 80)), (30, 33)).int()).abs().float()
    assert difference.mean() < 2 * (name == "a.jpg") + 0.01


def test_fractions_of_a_size():
    assert [fraction((0, 0, *size), (10, 20)) for size in [(80, 160), (79, 160), (40, 80), (20, 40), (19, 900)]] == [
        8, 4, 4, 2, 1,
    ]  # fmt: skip


# What transforms make of them


def made(picture, *specs, key=5):
    sample = {"image": picture, "label": torch.tensor(1)}
    return transform_sample(sample, [TRANSFORMS.build(spec) for spec in specs], key)["image"]


@pytest.mark.parametrize("key", range(6))
@pytest.mark.parametrize(
    "options",
    [{}, {"interpolation": "nearest"}, {"antialias": False}, {"scale": [0.01, 0.02]}, {"interpolation": "bicubic"}],
)
def test_a_crop_of_a_file_is_that_of_its_pixels(tmp_path, key, options):
    path = saved(tmp_path, photo(120, 140), orientation=6)
    specs = [{"type": "RandomResizedCrop", "size": (64, 72), **options}, {"type": "RandomHorizontalFlip"}]
    torch.manual_seed(key)
    found = made(ImageFile.open(path), *specs, key=key)
    torch.manual_seed(key)
    assert torch.equal(found, made(read_image(path), *specs, key=key))


def test_a_small_crop_of_a_large_file_is_close(tmp_path):
    path = saved(tmp_path, photo(500, 600))
    spec = {"type": "RandomResizedCrop", "size": 64}
    for key in range(4):
        found, expected = (made(image, spec, key=key).int() for image in (ImageFile.open(path), read_image(path)))
        assert (found - expected).abs().float().mean() < 1.5


@pytest.mark.parametrize("size", [60, [50, 90], {"size": None, "max_size": 70}])
def test_a_file_is_resized_as_its_pixels_are_but_for_rounding(tmp_path, size):
    path = saved(tmp_path, photo(500, 601), orientation=8)
    spec = {"type": "Resize", **(size if isinstance(size, dict) else {"size": size})}
    found, expected = made(ImageFile.open(path), spec), made(read_image(path), spec)
    assert found.shape == expected.shape
    assert not torch.equal(found, expected)  # or there would be nothing to gain
    assert (found.int() - expected.int()).abs().float().mean() < 1.5
    exact = ImageFile.open(path)
    exact.fractions = False
    assert torch.equal(made(exact, spec), expected)
    nearest = {**spec, "interpolation": "nearest"}
    assert torch.equal(made(ImageFile.open(path), nearest), made(read_image(path), nearest))


def test_what_belongs_to_an_image_moves_as_it_would():
    class Whole(ImageFile):
        def part(self, box):
            raise AssertionError("only the whole is right here")

        def whole(self):
            return torch.arange(300, dtype=torch.int64).to(torch.uint8).view(3, 10, 10)

    sample = {"image": Whole("a", b"", None), "mask": torch.arange(100).view(10, 10)}
    crop = TRANSFORMS.build({"type": "RandomResizedCrop", "size": 6, "interpolation": "nearest"})
    assert isinstance(crop, OfPart)
    found = transform_sample(sample, [crop], 3)
    assert torch.equal(found["image"][0], found["mask"].to(torch.uint8))


def test_a_file_that_breaks_off_is_named(tmp_path):
    path = saved(tmp_path, photo(300, 300))
    path.write_bytes(path.read_bytes()[:2000])
    picture = ImageFile.open(path)
    assert picture.shape == (3, 300, 300)
    for read in (picture.whole, lambda: picture.resized((0, 0, 300, 300), (50, 50))):
        with pytest.raises(DataError, match=r"a\.jpg: cannot be read as an image"):
            read()
    assert with_whole_image({"label": 1}) == {"label": 1}
