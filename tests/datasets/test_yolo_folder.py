"""YOLO's text files, on a small folder that the tests write."""

import pytest
from PIL import Image

from visreg.datasets.yolo import YOLOFolder
from visreg.errors import DataError


@pytest.fixture
def root(tmp_path):
    """Two images, of which the second has no file."""
    for name in ("images/train", "labels/train"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a.jpg", "b.png"):
        Image.new("RGB", (40, 20)).save(tmp_path / "images/train" / name)
    (tmp_path / "images/train/notes.txt").write_text("no image")
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.9 0.1 0.21 0.2\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def dataset(root, **options):
    found = YOLOFolder(root=str(root), split="train", **options)
    found.open()
    return found


def test_samples(root):
    yolo = dataset(root)
    yolo.open()
    assert (yolo.info.name, yolo.info.classes, len(yolo)) == (root.name, ("cat", "dog"), 2)
    one, empty = yolo[0], yolo[1]
    assert one["boxes"].tolist() == [[15, 5, 25, 15], pytest.approx([31.8, 0, 40, 4])]  # cut to the image
    assert one["labels"].tolist() == [1, 0]
    assert empty["boxes"].shape == (0, 4)
    assert one.keys() == empty.keys() == set(yolo.info.keys)


def test_classes_may_come_from_the_config(root):
    (root / "classes.txt").unlink()
    assert YOLOFolder(root="nowhere", classes=["x", "y"]).info.classes == ("x", "y")
    assert dataset(root, classes=["x", "y"]).info.classes == ("x", "y")
    with pytest.raises(DataError, match=r"classes\.txt: no such file; put the names"):
        dataset(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.25", "expected five numbers, 'class x y width height', found 4"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5", "found 9; polygons are not read, boxes only"),
        ("cat 0.5 0.5 0.25 0.5", "expected numbers"),
        ("0 0.5 0.5 0.25 o.5", "expected numbers"),
        ("2 0.5 0.5 0.25 0.5", "is of class 2, but the 2 classes are 0 to 1"),
        ("-1 0.5 0.5 0.25 0.5", "is of class -1"),
        ("0 0.5 0.5 0 0.5", "its box, 0 by 0.5, has no area"),
        ("0 0.5 0.5 nan 0.5", "has no area"),
        ("0 20 10 10 10", "reaches out of the image; x y width height are shares, 0 to 1"),
        ("0 0.9 0.5 0.5 0.5", "reaches out of the image"),
    ],
)
def test_a_bad_line_is_named(root, line, message):
    (root / "labels/train/b.txt").write_text(f"0 0.5 0.5 0.25 0.5\n{line}\n")
    with pytest.raises(DataError, match=rf"b\.txt:2: .*{message}"):
        dataset(root)


def test_missing_files_are_named(root):
    (root / "labels/train/c.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    with pytest.raises(DataError, match=r"c\.txt: there is no such image in .*images/train"):
        dataset(root)
    with pytest.raises(DataError, match=r"trian: no such folder; did you mean 'train'"):
        YOLOFolder(root=str(root), split="trian").open()
    for file in (root / "images/train").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no images in it; expected files ending in"):
        dataset(root)


def test_another_arrangement_of_folders_is_explained(root):
    with pytest.raises(DataError, match=r"images: no images in it; .*; set split to one of its folders: train"):
        YOLOFolder(root=str(root), classes=["x", "y"]).open()
    (root / "labels").rename(root / "lab")
    with pytest.raises(DataError, match=r"labels/train: no such folder.*; root must hold images/train and labels/tr"):
        dataset(root)
    for folder in ("images", "lab"):
        (root / folder / "train").rename(root / f"{folder}-train")
        (root / folder).rmdir()
    (root / "train").mkdir()
    (root / "images-train").rename(root / "train/images")
    (root / "lab-train").rename(root / "train/labels")
    for split in ("train", None):
        with pytest.raises(DataError, match=f"train/images, for which set root='{root}/train' and no split"):
            YOLOFolder(root=str(root), split=split).open()
    found = YOLOFolder(root=str(root / "train"), classes=["cat", "dog"])
    found.open()
    assert len(found) == 2


def test_all_that_is_wrong_is_said_at_once(root):
    (root / "labels/train/a.txt").write_text("5 .5 .5 .2 .2\n0 .5 .5 .2 .2\nzero .5 .5 .2 .2\n")
    (root / "labels/train/b.txt").write_text("0 .5 .5 .2\n")
    (root / "labels/train/c.txt").write_text("")
    with pytest.raises(DataError, match="4 things are wrong:\n") as raised:
        dataset(root)
    places = ["c.txt: there is no such image", "a.txt:1: ", "a.txt:3: ", "b.txt:1: "]
    assert [place in each for place, each in zip(places, raised.value.mistakes, strict=True)] == [True] * 4
