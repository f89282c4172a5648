"""Which datasets say what their samples are read from; and that such samples, once kept, are the same bit by bit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from test_picture import photo
from tiny import assert_same
from videos import write_frames

from visreg.build_cache import open_cache
from visreg.data import Dataset
from visreg.datasets.stamps import stamp
from visreg.registry import DATASETS, TRANSFORMS
from visreg.samples import Samples

# Of those that have no files to look at, why they need none.
NOT_KEPT = {
    "Digits": "in memory", "MNIST": "in memory", "ShapeScenes": "drawn", "ShapeClips": "drawn",
    "CopyPaste": "another sample each time", "Mosaic": "another sample each time",
}  # fmt: skip
SIZES = ((40, 30), (36, 50), (24, 24))
BOX = "<bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>"


def ring(size, value):
    """Return a mask of whole numbers, as a picture."""
    mask = Image.new("L", size)
    mask.paste(value, (3, 4, 15, 16))
    mask.paste(0, (6, 7, 10, 11))
    return mask


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three images in the form of every dataset that there is."""
    monkeypatch.setenv("VISREG_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    year = root / "VOCdevkit" / "VOC2012"
    places = ("pictures/a", "pictures/b", "PNGImages", "PedMasks", "images", "labels", "VOCdevkit/VOC2012/JPEGImages")
    for name in (*places, *(f"VOCdevkit/VOC2012/{name}" for name in ("Annotations", "SegmentationClass"))):
        (root / name).mkdir(parents=True)
    for kind in ("Main", "Segmentation"):
        (year / "ImageSets" / kind).mkdir(parents=True)
        (year / "ImageSets" / kind / "train.txt").write_text("0\n1\n2\n")
    coco = {"images": [], "categories": [{"id": 3, "name": "dog"}], "annotations": []}
    for number, size in enumerate(SIZES):
        image = photo(*size[::-1], seed=number)
        image.save(root / "pictures" / "ab"[number % 2] / f"{number}.jpg")
        for place in (root / "images", year / "JPEGImages"):
            image.save(place / f"{number}.jpg")
        image.save(root / "PNGImages" / f"{number}.png")
        ring(size, number).save(root / "PedMasks" / f"{number}_mask.png")
        ring(size, number + 1).save(year / "SegmentationClass" / f"{number}.png")
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.4 0.3 0.2\n" * number)
        form = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        dogs = f"<object><name>dog</name>{BOX.format(number + 1)}</object>" * number
        (year / "Annotations" / f"{number}.xml").write_text(f"<annotation>{form}{dogs}</annotation>")
        coco["images"].append({"id": number, "file_name": f"{number}.jpg", "width": size[0], "height": size[1]})
        polygon = [[2.0, 1.0, 12.0, 1.5, 12.0, 6.0]]
        coco["annotations"] += [
            {"id": number * 10 + each, "image_id": number, "category_id": 3, "bbox": [2, 1, 10, 5], "area": 30}
            | {"segmentation": polygon}
            for each in range(number)
        ]
        write_frames(root / "clips" / "ab"[number % 2] / str(number))
    coco["images"].append({**coco["images"][1], "id": 9})  # one image may be there twice, with other objects
    (root / "coco.json").write_text(json.dumps(coco))
    (root / "classes.txt").write_text("dog\n")
    return root


def specs(root):
    """Return a spec of each dataset that reads files, by name."""
    pictures = {"type": "ImageFolder", "root": f"{root}/pictures"}
    coco = {"type": "CocoDetection", "root": f"{root}/images", "annotations": f"{root}/coco.json", "masks": True}
    found = [
        pictures, coco, {"type": "VOCDetection", "root": str(root)}, {"type": "PennFudan", "root": str(root)},
        {"type": "YOLOFolder", "root": str(root)}, {"type": "VideoFolder", "root": f"{root}/clips", "frames": 3},
        {"type": "VOCSegmentation", "root": str(root), "year": "2012", "image_set": "train"},
        {"type": "FirstAvailable", "datasets": [pictures]}, {"type": "Repeat", "dataset": coco, "times": 2},
        {"type": "Concat", "datasets": [pictures, {**pictures, "split": None}]},
        {"type": "Superclass", "dataset": pictures, "classes": {"both": ["a", "b"]}},
        {"type": "Subset", "dataset": coco, "count": 2},
        {"type": "KFold", "dataset": pictures, "folds": 2, "part": "train"},
        {"type": "ClassBalanced", "dataset": coco, "threshold": 0.9},
    ]  # fmt: skip
    return {spec["type"]: spec for spec in found}


OWN = [name for name in DATASETS if DATASETS.find(name).source == "own"]
READ = sorted(specs(Path()))


def opened(spec):
    dataset = DATASETS.build(spec)
    dataset.open()
    return dataset


def test_every_dataset_says_what_it_reads_or_has_a_reason():
    """A new one needs a line in ``NOT_KEPT`` or, better, `stamps` and a line in ``specs``."""
    assert {*OWN} - {*NOT_KEPT} == {*READ} - {"VOCSegmentation"}
    assert all(DATASETS.get(name).stamps is Dataset.stamps for name in NOT_KEPT)


@pytest.mark.parametrize("name", READ)
def test_samples_that_were_kept_are_the_same(name, folder):
    if name in ("CocoDetection", "Repeat", "Subset", "ClassBalanced"):
        pytest.importorskip("faster_coco_eval")
    spec = specs(folder)[name]
    for resize in ([], [{"type": "Resize", "size": [18, 20]}]):
        transforms = [TRANSFORMS.build(each) for each in resize]
        keys = [(0, index) for index in range(len(opened(spec)))]
        expected = [
            Samples(dataset=opened(spec), transforms=transforms, seed=1, draft=True).sample(key) for key in keys
        ]
        for kind in ("disk", "ram"):
            cache, _ = open_cache(kind, dataset := opened(spec), transforms, [spec, *resize], True, False)
            samples = Samples(dataset=dataset, transforms=transforms, seed=1, cache=cache)
            for _ in range(2):
                assert_same([samples.sample(key) for key in keys], expected)
            assert cache.held() == cache.entries
            kept = samples.sample(keys[-1])
            assert [*map(type, kept.values())] == [*map(type, expected[-1].values())]


@pytest.mark.parametrize("name", [name for name in READ if name not in ("Subset", "KFold", "ClassBalanced")])
@pytest.mark.parametrize("part", ["image", "rest"])
def test_stamps_change_with_the_files(name, part, folder):
    spec = specs(folder)[name]
    before = opened(spec).stamps()
    assert before == opened(spec).stamps()
    assert len(before) == len(opened(spec))
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("train.txt", "classes.txt")]
    images = {
        path for path in files if path.suffix == ".jpg" or path.parent.name in ("PNGImages", "clips", "0", "1", "2")
    }
    without = name in ("ImageFolder", "VideoFolder", "FirstAvailable", "Concat", "Superclass")  # there is no rest
    for path in images if part == "image" else {*files} - images:
        os.utime(path, ns=(1, 1))
    changed = [one != other for one, other in zip(before, opened(spec).stamps(), strict=True)]
    assert all(changed) if part == "image" or not without else not any(changed)


def test_samples_of_one_image_are_told_apart(folder):
    stamps = opened(specs(folder)["CocoDetection"]).stamps()
    assert len(stamps) == len({*stamps}) == 4


def test_a_file_that_is_not_there_has_a_stamp_too(tmp_path):
    absent = stamp(tmp_path / "file")
    assert str(tmp_path / "file") in absent
    (tmp_path / "file").touch()
    assert stamp(tmp_path / "file") != absent
