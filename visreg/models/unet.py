"""U-Net: an encoder, a decoder, and what is found on the way down handed across to the way up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from visreg.models.features import Features, resized
from visreg.models.images import check_positive
from visreg.models.multi_head import Head


class UNet(nn.Module):
    """U-Net with padded convolutions and batch norm: images of any size to logits of the same size.

    Each of ``depth`` levels halves height and width and doubles the channels; on the way up each is enlarged to the
    size of the one above, and joined with it. ``width=64, depth=4`` is the paper's. With a ``backbone`` the way down is
    that classifier's, from half the image's size on, and the logits are enlarged by two.

    Source: Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", 2015; padding and
    batch norm are today's custom, and take the place of its border of lost pixels and of its careful initial weights.

    Args:
        in_channels: channels of the image, 1 for grey and 3 for colour.
        num_classes: channels of the output.
        width: channels of the first level, on the way up; of the next twice as many, and so on.
        depth: how often the image is halved; 5 is all of a ResNet.
        backbone: the name in ``torchvision.models`` of a convolutional classifier, such as ``resnet18``.
        weights_backbone: its pretrained weights by torchvision's name, such as ``"IMAGENET1K_V1"``.

    Raises:
        ValueError: if an option is below 1, or the backbone is no stack of convolutions.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 21,
        width: int = 64,
        depth: int = 4,
        backbone: str | None = None,
        weights_backbone: str | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        self.encoder: UNetEncoder | Features
        if backbone is None:
            self.encoder = UNetEncoder(in_channels, width, depth)
        else:
            strides = [2**level for level in range(1, depth + 1)]
            self.encoder = Features(backbone, strides, in_channels, weights_backbone)
        self.decoder = UNetHead(num_classes, width)
        self.decoder.connect(self.encoder.channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W) for float images (N, in_channels, H, W)."""
        logits: Tensor = self.decoder(self.encoder(image))
        return logits if logits.shape[-2:] == image.shape[-2:] else resized(logits, image)


class UNetEncoder(nn.Module):
    """A U-Net's way down: the feature maps of each level, the first of the image's size.

    Args:
        in_channels: channels of the image, 1 for grey and 3 for colour.
        width: channels of the first level; of the next twice as many, and so on.
        depth: how often the image is halved.

    Attributes:
        channels: of each level.

    Raises:
        ValueError: if an option is below 1.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width, depth=depth)
        self.channels = tuple(width * 2**level for level in range(depth + 1))
        self.down = nn.ModuleList(map(_double, [in_channels, *self.channels[:-1]], self.channels))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return feature maps (N, channels, H / 2**level, W / 2**level) for float images (N, in_channels, H, W)."""
        levels = [self.down[0](image)]
        for down in self.down[1:]:
            levels.append(down(self.pool(levels[-1])))
        return levels


class UNetHead(Head):
    """A U-Net's way up: from the last of several feature maps, joined with each of the others, to logits.

    Args:
        num_classes: channels of the output.
        width: channels of the first level; of the next twice as many, and so on.

    Raises:
        ValueError: if an option is below 1.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, width=width)
        self.num_classes, self.width = num_classes, width

    def connect(self, channels: Sequence[int]) -> None:
        widths = [self.width * 2**level for level in range(len(channels) - 1)] + list(channels[-1:])
        pairs = list(pairwise(widths))[::-1]  # of the level above and the one below
        self.shrink = nn.ModuleList(nn.Conv2d(below, above, kernel_size=1) for above, below in pairs)
        self.up = nn.ModuleList(
            _double(across + above, above) for across, (above, _) in zip(channels[-2::-1], pairs, strict=True)
        )
        self.last = nn.Conv2d(widths[0], self.num_classes, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (N, num_classes, h, w), of the size of the first of ``features``, each (N, channels, h, w)."""
        *levels, found = features
        for shrink, up in zip(self.shrink, self.up, strict=True):
            across = levels.pop()
            found = up(torch.cat([across, resized(shrink(found), across)], dim=1))
        logits: Tensor = self.last(found)
        return logits


def _double(in_channels: int, channels: int) -> nn.Sequential:
    """Return two 3×3 convolutions that keep the size, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
    )  # fmt: skip
