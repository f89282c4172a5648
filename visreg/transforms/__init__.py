"""Transforms of samples and of batches: torchvision's v2, which move boxes and masks along with the image."""

from visreg.adopted import exported
from visreg.registry import TRANSFORMS

TRANSFORMS.adopt("torchvision", exported("torchvision.transforms.v2"))
