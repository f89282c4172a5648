"""torchvision's datasets on small files in the formats of the real ones, which the tests write."""

from __future__ import annotations

import hashlib
import pickle
import struct

import numpy
import pytest
import torch
import torchvision
from PIL import Image

from visreg.data_check import sample_problems
from visreg.errors import DataError
from visreg.registry import DATASETS

COUNT = 12


def opened(**spec):
    dataset = DATASETS.build(spec)
    dataset.open()
    return dataset


def idx(path, values):
    """Write an array as the files of MNIST hold it: bytes, or big-endian 32-bit numbers."""
    kind = 0x08 if values.dtype == numpy.uint8 else 0x0C
    content = values.tobytes() if kind == 0x08 else values.astype(">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + content)


@pytest.fixture
def images():
    return numpy.random.default_rng(0).integers(0, 256, (COUNT, 28, 28), dtype=numpy.uint8)


FAMILY = {
    "FashionMNIST": ({}, "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "KMNIST": ({}, "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "EMNIST": ({"split": "digits"}, "emnist-digits-train-images-idx3-ubyte", "emnist-digits-train-labels-idx1-ubyte"),
    "QMNIST": ({"what": "train"}, "qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_of_mnist(name, images, tmp_path):
    options, image_file, label_file = FAMILY[name]
    labels = numpy.arange(COUNT) % 10
    idx(tmp_path / name / "raw" / image_file, images)
    whole = numpy.tile(labels[:, None], (1, 8)) if name == "QMNIST" else labels.astype(numpy.uint8)
    idx(tmp_path / name / "raw" / label_file, whole)
    for file in (image_file, label_file):  # torchvision wants those of both splits
        (tmp_path / name / "raw" / file.replace("train", "t10k")).write_bytes(b"")
    dataset = opened(type=name, root=str(tmp_path), **options)
    assert len(dataset) == COUNT
    for index in range(COUNT):
        sample = dataset[index]
        assert sample_problems(sample, dataset.info) == []
        assert sample["image"].shape == (1, 28, 28)
        assert int(sample["label"]) == labels[index]
        assert torch.equal(sample["image"][0], torch.from_numpy(images[index]))
    if name != "QMNIST":  # whose table of targets has more than the class in it
        assert torch.equal(dataset.tensors()["image"][:, 0], torch.from_numpy(images))
        assert torch.equal(dataset.labels(), torch.from_numpy(labels))


@pytest.mark.parametrize(("name", "key"), [("CIFAR10", "labels"), ("CIFAR100", "fine_labels")])
def test_cifar(name, key, tmp_path, monkeypatch):
    kind = getattr(torchvision.datasets, name)
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    pixels = numpy.random.default_rng(0).integers(0, 256, (COUNT, 3, 32, 32), dtype=numpy.uint8)
    labels = [index * 7 % 10 for index in range(COUNT)]
    content = pickle.dumps({"data": pixels.reshape(COUNT, -1), key: labels})
    meta = pickle.dumps({kind.meta["key"]: [f"class {number}" for number in range(10 if name == "CIFAR10" else 100)]})
    (folder / "batch").write_bytes(content)
    (folder / "meta").write_bytes(meta)
    files = [["batch", hashlib.md5(content).hexdigest()]]
    monkeypatch.setattr(kind, "train_list", files)
    monkeypatch.setattr(kind, "test_list", files)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "filename": "meta", "md5": hashlib.md5(meta).hexdigest()})
    dataset = opened(type=name, root=str(tmp_path), train=True)
    assert dataset.labels().tolist() == labels
    assert torch.equal(dataset.tensors()["image"], torch.from_numpy(pixels))
    assert torch.equal(dataset[3]["image"], torch.from_numpy(pixels[3]))
    assert sample_problems(dataset[3], dataset.info) == []


def test_imagenet(tmp_path):
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    for split in ("train", "val"):
        for number, wnid in enumerate(names):
            (tmp_path / split / wnid).mkdir(parents=True)
            Image.new("RGB", (20, 16 + number), (number, 0, 0)).save(tmp_path / split / wnid / f"{wnid}_1.JPEG")
    torch.save((names, ["n01440764"]), tmp_path / "meta.bin")
    dataset = opened(type="ImageNet", root=str(tmp_path), split="val")
    assert [int(dataset[index]["label"]) for index in range(len(dataset))] == dataset.labels().tolist() == [0, 1]
    assert dataset.where(1).endswith("val/n01443537/n01443537_1.JPEG")
    assert dataset[1]["image"].shape == (3, 17, 20)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "Cityscapes"}, "expected in .*: leftImg8bit and gtFine, out of leftImg8bit_trainvaltest.zip"),
        ({"type": "ImageNet"}, "ILSVRC2012_devkit_t12.tar.gz .*; or take ImageFolder"),
        ({"type": "VOCSegmentation"}, "VOCdevkit/VOC<year> with ImageSets, JPEGImages and SegmentationClass"),
        (
            {"type": "VOCDetection"},
            "no VOCdevkit/VOC2012 in it, with Annotations.*; put it there, or set root",
        ),
        (
            {"type": "ImageFolder", "root": "imagenet", "split": "train"},
            "imagenet: no such folder; put it there",
        ),
        (
            {"type": "CocoDetection", "root": "coco", "annotations": "a.json"},
            "coco: no such folder; put it there",
        ),
    ],
)
def test_missing_data_is_told_where_to_go(spec, message, tmp_path, monkeypatch):
    monkeypatch.setenv("VISREG_DATA", str(tmp_path))
    with pytest.raises(DataError, match=message):
        opened(**spec)
    assert list(tmp_path.iterdir()) == []
