"""The configs for real sets, on small folders in the real formats, which the tests write: a few steps, and a score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, ImageDraw

from visreg.build import build_runner
from visreg.config import load_config
from visreg.datasets.known import KNOWN
from visreg.datasets.voc import CLASSES
from visreg.errors import ConfigError, DataError

ROOT = Path(__file__).parent.parent
CATEGORIES = [*range(1, 12), *range(13, 26), *range(27, 29), *range(31, 45), *range(46, 66), 67, 70, *range(72, 83),
              *range(84, 91)]  # fmt: skip  # the ids of COCO's 80, which have gaps
RCNN = "model=dict(type='FasterRCNN', num_classes=20, backbone='csp_n', channels=8, hidden=8, proposals=20)"
_FIT = [f"{split}.transforms.0.target_size=[64, 64]" for split in ("train", "val")]
SIDES = {  # of images, small ones
    "yolo_coco": [
        *_FIT,
        "model.size=n",
        "train.dataset.size=64",
        "train.transforms.1.size=64",
        "val.transforms.1.size=64",
    ],
    "faster_rcnn_voc": [*_FIT, RCNN, "train.transforms.2.size=64", "val.transforms.1.size=64"],
}
SMALL = ("run.device=cpu", "run.precision=fp32", "train.workers=0", "val.workers=0")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch, apart):
    monkeypatch.setenv("VISREG_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def scored(name, *overrides):
    """Return the scores of a shipped config after a few steps, and its runner."""
    runner = build_runner(load_config(ROOT / "configs" / f"{name}.py", [*SMALL, *overrides, "run.work_dir=work"]))
    runner.train()
    assert runner.step == 2
    assert all(torch.isfinite(parameter).all() for parameter in runner.task.parameters())
    return runner.scores, runner


def scene(path, width=96, height=64, box=(10, 20, 50, 50)):
    """Draw a picture of one object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.effect_noise((width, height), 40).convert("RGB")
    ImageDraw.Draw(image).rectangle(box, fill=(200, 30, 30))
    image.save(path)


def test_every_one_says_which_files_to_put_where(data):
    data.mkdir()
    for name, wanted in (
        ("yolo_coco", "coco/train2017"), ("faster_rcnn_voc", "VOCdevkit/VOC2007"),
        ("deeplabv3plus_cityscapes", "leftImg8bit and gtFine"), ("resnet50_imagenet", "data/imagenet"),
    ):  # fmt: skip
        config = load_config(ROOT / "configs" / f"{name}.py", [*SMALL, *SIDES.get(name, ())])
        with pytest.raises(DataError, match=wanted) as caught:
            build_runner(config)
        assert str(data) in str(caught.value)


def test_coco(data):
    categories = [{"id": number, "name": f"kind {number}", "supercategory": "thing"} for number in CATEGORIES]
    assert len(categories) == 80
    for split, count in (("train2017", 5), ("val2017", 2)):
        images, annotations = [], []
        for number in range(count):
            name = f"{number:012d}.jpg"
            scene(data / "coco" / split / name, height=64 + number)
            images.append({"id": number, "file_name": name, "width": 96, "height": 64 + number, "license": 1})
            if number == 1:
                continue  # without objects
            annotations.append({
                "id": len(annotations), "image_id": number, "category_id": CATEGORIES[number * 19], "iscrowd": 0,
                "bbox": [10.0, 20.0, 40.0, 30.0], "area": 1200.0,
                "segmentation": [[10.0, 20.0, 50.0, 20.0, 50.0, 50.0, 10.0, 50.0]],
            })  # fmt: skip
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        (data / "coco" / "annotations").mkdir(exist_ok=True)
        (data / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    side = 64
    overrides = [
        *SIDES["yolo_coco"], "train.batch_size=2", "val.batch_size=2", "schedule.warmup_steps=1", "run.epochs=1",
        "run.eval_every=1",
    ]  # fmt: skip
    scores, runner = scored("yolo_coco", *overrides)
    assert 0 <= scores["mAP"] <= 1
    assert runner.val_loader.samples == 2
    batch = next(runner.train_loader.epoch(0))
    assert batch["image"].shape == (2, 3, side, side)
    plain = next(runner.train_loader.epoch(285))  # the last epochs, without mosaics
    assert all(len(boxes) <= 1 for boxes in plain["boxes"])
    assert plain["image"].shape == (2, 3, side, side)


def test_voc(data):
    for year, sets in (("2007", ("trainval", "test")), ("2012", ("trainval",))):
        folder = data / "VOCdevkit" / f"VOC{year}"
        (folder / "Annotations").mkdir(parents=True)
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        for number, split in enumerate(sets):
            names = [f"{year}_{split}_{place}" for place in range(2)]
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
            for place, name in enumerate(names):
                scene(folder / "JPEGImages" / f"{name}.jpg", height=64 + 8 * place)
                kind, hard = CLASSES[number * 3 + place], place
                box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
                found = f"<object><name>{kind}</name><difficult>{hard}</difficult>{box}</object>"
                size = f"<size><width>96</width><height>{64 + 8 * place}</height><depth>3</depth></size>"
                (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{found}</annotation>")
    overrides = [
        *SIDES["faster_rcnn_voc"], "train.batch_size=2", "val.batch_size=2", "train.dataset.times=1",
        "schedule.1.warmup_steps=1", "run.epochs=1",
    ]  # fmt: skip
    scores, runner = scored("faster_rcnn_voc", *overrides)
    assert runner.train_loader.info.name == "VOC2007 trainval + VOC2012 trainval"
    assert runner.train_loader.samples == 4
    assert 0 <= scores["voc_mAP"] <= 1


def test_cityscapes(data):
    values = [*KNOWN["Cityscapes"].values, 0, 1, 255]  # what is in the files, of which some are not scored
    for split, city, count in (("train", "aachen", 4), ("val", "lindau", 2), ("test", "berlin", 1)):
        for number in range(count):
            name = f"{city}_{number:06d}_000019"
            scene(data / "cityscapes" / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", 64, 32)
            labels = data / "cityscapes" / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
            labels.parent.mkdir(parents=True, exist_ok=True)
            columns = numpy.array([values[column * len(values) // 64] for column in range(64)], dtype=numpy.uint8)
            Image.fromarray(numpy.tile(columns, (32, 1))).save(labels)
    overrides = [
        "model.backbone=resnet18", "model.weights_backbone=None", "model.channels=8", "model.output_stride=32",
        "train.transforms.0.target_size=[32, 64]", "train.transforms.1.size=[32, 32]", "train.batch_size=2",
        "val.batch_size=2", "run.steps=2", "run.eval_every=2",
    ]  # fmt: skip
    scores, runner = scored("deeplabv3plus_cityscapes", *overrides)
    assert 0 <= scores["mean_iou"] <= 1
    batch = next(runner.val_loader.epoch(0))
    assert batch["mask"].unique().tolist() == [*range(19), 255]
    assert batch["mask"][0, 0, 0] == 0  # 7 in the file, a road


def imagenet(data):
    for split in ("train", "val"):
        for number, wnid in enumerate(("n01440764", "n01443537", "n01484850")):
            for place in range(2):
                scene(data / "imagenet" / split / wnid / f"{wnid}_{place}.JPEG", 60 + number * 8, 50)
    return [
        "model=dict(type='resnet18', num_classes=3)", "train.batch_size=8", "val.batch_size=4",
        "metrics.1.k=2", "train.transforms.0.size=32", "val.transforms.0.size=40", "val.transforms.1.size=32",
        *(f"train.batch_transforms.1.transforms.{place}.num_classes=3" for place in (0, 1)),
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_imagenet(data, precision):
    overrides = [*imagenet(data), "run.epochs=None", "run.steps=2", "schedule.warmup_steps=1"]
    scores, runner = scored("resnet50_imagenet", *overrides, f"run.precision={precision}")
    assert 0 <= scores["accuracy"] <= 1
    kinds = set()
    for epoch in range(12):
        (batch, *_) = runner.train_loader.epoch(epoch)
        assert batch["label"].shape == (8, 3)
        assert torch.allclose(batch["label"].sum(dim=1), torch.ones(8))
        assert batch["image"].dtype == torch.float32
        assert batch["image"].min() >= 0
        assert batch["image"].max() <= 1
        kinds.add(bool(((batch["label"] > 0).sum(dim=1) > 1).any()))
    assert True in kinds  # labels are mixed
    assert next(runner.val_loader.epoch(0))["label"].dtype == torch.int64


def test_what_is_mixed_must_be_of_as_many_classes_as_the_model(data):
    mixes = [f"train.batch_transforms.1.transforms.{place}.num_classes=7" for place in (0, 1)]
    config = load_config(ROOT / "configs" / "resnet50_imagenet.py", [*SMALL, *imagenet(data), *mixes])
    with pytest.raises(ConfigError, match="labels are mixed of 7 classes, and the model has 3 outputs"):
        build_runner(config)
