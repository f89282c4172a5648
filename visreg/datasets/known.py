"""What is known of torchvision's classification datasets without reading them."""

from __future__ import annotations

from attrs import frozen


@frozen
class Known:
    """The classes of a dataset, and the shape (C, H, W) of its images; empty where that varies."""

    classes: tuple[str, ...]
    shape: tuple[int, ...] = ()


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

# Those whose number of classes depends on an option are left out, and so are those that are not one label an image.
KNOWN = {
    "CIFAR10": Known(_CIFAR10, (3, 32, 32)),
    "CIFAR100": Known(_numbered(100), (3, 32, 32)),
    "Caltech256": Known(_numbered(257)),
    "Country211": Known(_numbered(211)),
    "DTD": Known(_numbered(47)),
    "EuroSAT": Known(_EUROSAT, (3, 64, 64)),
    "FER2013": Known(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), (1, 48, 48)),
    "FashionMNIST": Known(_FASHION, (1, 28, 28)),
    "Flowers102": Known(_numbered(102)),
    "Food101": Known(_numbered(101)),
    "GTSRB": Known(_numbered(43)),
    "ImageNet": Known(_numbered(1000)),
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
}
