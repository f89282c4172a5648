"""What is known of torchvision's datasets without reading them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Known:
    """The classes of a dataset, and the shape (C, H, W) of its images; empty where that varies.

    Attributes:
        key: what the target is called in a sample.
        options: those that all of this holds for; the dataset gets them by default.
        files: what must be in ``root``, of data that cannot be downloaded.
        values: the class of each value in a file of a mask, where it is not the value itself; others are to be ignored.
    """

    classes: tuple[str, ...]
    shape: tuple[int, ...] = ()
    key: str = "label"
    options: Mapping[str, Any] = field(factory=dict)
    values: Mapping[int, int] = field(factory=dict)
    files: str = ""


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_EUROSAT = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
    "Residential", "River", "SeaLake",
)  # fmt: skip
_VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip  # of its 34 labels those that its benchmark scores

# Those that cannot be read any more, since torchvision decodes no videos, and what to read their files with.
INSTEAD = {
    "HMDB51": "dict(type='VideoFolder', root=…), with the videos of each split in folders of their own",
    "Kinetics": "dict(type='VideoFolder', root=…, split='train')",
    "UCF101": "dict(type='VideoFolder', root='UCF-101', listing='ucfTrainTestlist/trainlist01.txt')",
}

# Those whose number of classes depends on an option are left out, and so are those that are not one label an image.
KNOWN = {
    "CIFAR10": Known(_CIFAR10, (3, 32, 32)),
    "CIFAR100": Known(_numbered(100), (3, 32, 32)),
    "Caltech256": Known(_numbered(257)),
    "Cityscapes": Known(
        tuple(_CITYSCAPES.values()), key="mask", options={"target_type": "semantic"},
        values={value: place for place, value in enumerate(_CITYSCAPES)},
        files="leftImg8bit and gtFine, out of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
        "www.cityscapes-dataset.com",
    ),
    "Country211": Known(_numbered(211)),
    "DTD": Known(_numbered(47)),
    "EuroSAT": Known(_EUROSAT, (3, 64, 64)),
    "FER2013": Known(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), (1, 48, 48)),
    "FashionMNIST": Known(_FASHION, (1, 28, 28)),
    "Flowers102": Known(_numbered(102)),
    "Food101": Known(_numbered(101)),
    "GTSRB": Known(_numbered(43)),
    "ImageNet": Known(
        _numbered(1000), files="ILSVRC2012_devkit_t12.tar.gz and ILSVRC2012_img_{train,val}.tar of image-net.org; or "
        "take ImageFolder, which needs folders of images only",
    ),
    "Imagenette": Known(_numbered(10)),
    "KMNIST": Known(("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), (1, 28, 28)),
    "PCAM": Known(("normal", "tumor"), (3, 96, 96)),
    "QMNIST": Known(_numbered(10), (1, 28, 28)),
    "RenderedSST2": Known(("negative", "positive"), (3, 448, 448)),
    "SEMEION": Known(_numbered(10), (1, 16, 16)),
    "STL10": Known(_STL10, (3, 96, 96)),
    "SUN397": Known(_numbered(397)),
    "SVHN": Known(_numbered(10), (3, 32, 32)),
    "StanfordCars": Known(_numbered(196)),
    "USPS": Known(_numbered(10), (1, 16, 16)),
    "VOCSegmentation": Known(
        _VOC, key="mask", files="VOCdevkit/VOC<year> with ImageSets, JPEGImages and SegmentationClass"
    ),
}  # fmt: skip
