"""Images in folders."""

from __future__ import annotations

import pytest
from PIL import Image

from visreg.datasets.folder import ImageFolder
from visreg.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Two classes: cats of colour 0 and 1, a dog of colour 2, beside things that are not images."""
    for name, colours in {"pets/train/cat": (0, 1), "pets/train/dog": (2,)}.items():
        (tmp_path / name).mkdir(parents=True)
        for colour in colours:
            Image.new("RGB", (6, 4), (colour,) * 3).save(tmp_path / name / f"{colour}.PNG")
    (tmp_path / "pets/train/cat/notes.txt").write_text("no image")
    (tmp_path / "pets/train/cat/.hidden.png").write_text("no image")
    (tmp_path / "pets/train/.cache").mkdir()
    return tmp_path


def test_classes_are_folders_by_name(root):
    dataset = ImageFolder(root=str(root / "pets"), split="train")
    assert dataset.info.classes == ()
    dataset.open()
    dataset.open()
    assert dataset.info.classes == ("cat", "dog")
    assert dataset.info.name == "pets"
    assert len(dataset) == 3
    assert [int(dataset[index]["label"]) for index in range(3)] == [0, 0, 1]
    assert [int(dataset[index]["image"].max()) for index in range(3)] == [0, 1, 2]
    assert dataset.tensors() is None


def test_root_is_looked_for_under_the_data_root(root, monkeypatch):
    monkeypatch.setenv("VISREG_DATA", str(root))
    dataset = ImageFolder(root="pets/train")
    dataset.open()
    assert len(dataset) == 3


def test_a_known_size_gives_the_shape(root):
    dataset = ImageFolder(root=str(root / "pets/train"), size=(4, 6))
    assert dataset.info.sample["image"].shape == (3, 4, 6)
    dataset.open()
    assert dataset[0]["image"].shape == (3, 4, 6)


def test_a_wrong_size_is_refused_by_name(root):
    dataset = ImageFolder(root=str(root / "pets/train"), size=4)
    dataset.open()
    with pytest.raises(DataError, match=r"\.PNG: is 4×6, but size says 4"):
        dataset[0]


def test_grey(root):
    dataset = ImageFolder(root=str(root / "pets/train"), size=(4, 6), channels=1)
    dataset.open()
    assert dataset.info.sample["image"].shape == dataset[0]["image"].shape == (1, 4, 6)


def test_given_classes_set_the_order_and_are_checked(root):
    dataset = ImageFolder(root=str(root / "pets/train"), classes=["dog", "cat"])
    assert dataset.info.classes == ("dog", "cat")
    dataset.open()
    assert [int(dataset[index]["label"]) for index in range(3)] == [0, 1, 1]
    with pytest.raises(DataError, match="expected the classes bird, cat, found cat, dog"):
        ImageFolder(root=str(root / "pets/train"), classes=["bird", "cat"]).open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "pets", "split": "trian"}, r"trian: no such folder; did you mean 'train'\?"),
        ({"root": "pest"}, r"pest: no such folder; did you mean 'pets'\?"),
        ({"root": "nowhere/at/all"}, "all: no such folder"),
        ({"root": "pets/train/cat"}, "no folders in it; expected one for each class"),
    ],
)
def test_a_wrong_folder_is_explained(root, monkeypatch, options, message):
    monkeypatch.setenv("VISREG_DATA", str(root))
    with pytest.raises(DataError, match=message):
        ImageFolder(**options).open()


def test_a_class_without_images_is_refused(root):
    (root / "pets/train/emu").mkdir()
    with pytest.raises(DataError, match=r"emu: no images in it; expected files ending in \.bmp"):
        ImageFolder(root=str(root / "pets/train")).open()


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": (1, 2, 3)}, {"size": True}, {"channels": 2}, {"classes": []}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises((ValueError, TypeError)):
        ImageFolder(root="somewhere", **options)


def test_real_photographs(real_data):
    dataset = ImageFolder(root="hymenoptera", split="val")
    if not (real_data / "hymenoptera").is_dir():
        pytest.skip("no photographs")
    dataset.open()
    assert dataset.info.classes == ("ants", "bees")
    sample = dataset[len(dataset) - 1]
    assert sample["image"].ndim == 3
    assert sample["label"] == 1
