"""Datasets: samples by index. torchvision's are adopted."""

from visreg.adopted import exported
from visreg.registry import DATASETS

DATASETS.own(__name__, {"mnist": "MNIST", "digits": "Digits", "folder": "ImageFolder", "wrappers": "FirstAvailable"})
DATASETS.adopt("torchvision", exported("torchvision.datasets"))
