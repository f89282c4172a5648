"""Images beside masks that number their objects, in a small folder that the tests write."""

import pytest
import torch
from PIL import Image

from visreg.datasets.penn_fudan import PennFudan
from visreg.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Two images of 12 by 8: one with two objects, one with none."""
    for name in ("PNGImages", "PedMasks"):
        (tmp_path / name).mkdir()
    numbers = torch.zeros(8, 12, dtype=torch.uint8)
    numbers[1:4, 2:7] = 1
    numbers[5, 11] = 2
    for name, mask in (("a", numbers), ("b", numbers * 0)):
        Image.new("RGB", (12, 8)).save(tmp_path / "PNGImages" / f"{name}.png")
        save(tmp_path, name, mask)
    return tmp_path


def save(root, name, mask, mode="L"):
    Image.frombytes("L", mask.shape[::-1], mask.numpy().tobytes()).convert(mode).save(
        root / "PedMasks" / f"{name}_mask.png"
    )


def dataset(root, **options):
    found = PennFudan(root=str(root), **options)
    found.open()
    return found


def test_samples(root):
    pedestrians = dataset(root)
    pedestrians.open()
    assert (pedestrians.info.classes, len(pedestrians)) == (("pedestrian",), 2)
    one, empty = pedestrians[0], pedestrians[1]
    assert one["boxes"].tolist() == [[2, 1, 7, 4], [11, 5, 12, 6]]
    assert one["boxes"].dtype == torch.float32
    assert one["labels"].tolist() == [0, 0]
    assert one["masks"].sum(dim=(1, 2)).tolist() == [15, 1]
    assert {key: tuple(value.shape) for key, value in empty.items()} == {
        "image": (3, 8, 12), "boxes": (0, 4), "labels": (0,), "masks": (0, 8, 12),
    }  # fmt: skip
    assert one.keys() == set(pedestrians.info.keys)


def test_an_image_without_background(root):
    save(root, "b", torch.full((8, 12), 3, dtype=torch.uint8))
    assert dataset(root)[1]["boxes"].tolist() == [[0, 0, 12, 8]]


def test_numbers_above_255(root):
    wide = Image.new("I;16", (12, 8))
    wide.putpixel((3, 4), 24001)
    wide.save(root / "PedMasks" / "b_mask.png")
    assert dataset(root)[1]["boxes"].tolist() == [[3, 4, 4, 5]]


def test_what_is_wrong_is_named(root):
    save(root, "b", torch.zeros(8, 11, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"b_mask\.png: is 8×11, but its image is 8×12"):
        dataset(root)[1]
    save(root, "b", torch.zeros(8, 12, dtype=torch.uint8), mode="RGB")
    with pytest.raises(DataError, match=r"b_mask\.png: .*a whole number for each pixel, found an image of mode RGB"):
        dataset(root)[1]
    (root / "PedMasks" / "b_mask.png").unlink()
    with pytest.raises(DataError, match=r"not in .*PedMasks: b_mask\.png"):
        dataset(root)
    with pytest.raises(DataError, match="Pedmasks: no such folder; did you mean 'PedMasks'"):
        dataset(root, masks="Pedmasks")
