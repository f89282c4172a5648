"""Transforms of samples and of batches; torchvision's v2 move boxes and masks along with the image."""

from visreg.adopted import exported
from visreg.registry import TRANSFORMS

TRANSFORMS.own(
    __name__,
    {
        "affine": "RandomAffine RandomRotation",
        "choices": "RandomApply RandomChoice",
        "colors": "ColorJitter RandomGrayscale",
        "crops": "RandomCrop RandomResizedCrop",
        "erasing": "Cutout RandomErasing",
        "flips": "RandomHorizontalFlip RandomVerticalFlip",
        "mixing": "CutMix MixUp",
    },
)
TRANSFORMS.adopt("torchvision", exported("torchvision.transforms.v2"))
