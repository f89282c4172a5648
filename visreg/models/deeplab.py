"""DeepLabV3+: a dilated backbone, context at several rates, and a decoder that finds the edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from visreg.models.features import Features, resized
from visreg.models.images import check_positive

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
EDGES = 48  # channels that the early features are reduced to, as in the paper


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ on a classifier of torchvision's: images of any size to logits of the same size.

    The backbone's last features, which are of ``output_stride``, pass through atrous spatial pyramid pooling; they are
    enlarged and joined with its early features, of ``low_stride``, from which two convolutions make the logits.

    Source: Chen et al., "Encoder-decoder with atrous separable convolution", 2018; with ordinary convolutions.

    Args:
        num_classes: channels of the output.
        backbone: its name in ``torchvision.models``: a convolutional one, such as ``resnet50``.
        in_channels: channels of the image; where they are not 3, the first convolution is made anew.
        output_stride: 16, or 8 for finer features at four times the work, or 32 to dilate nothing.
        low_stride: of the features that the decoder finds the edges in; 4 is the paper's.
        channels: of the context and the decoder.
        rates: dilations of the context's convolutions; 6, 12 and 18 at ``output_stride=16``, as in the paper, and in
            proportion at others. Small images want smaller ones.
        weights_backbone: the backbone's pretrained weights by torchvision's name, such as ``"IMAGENET1K_V1"``.
        dilate: keep, and dilate, the backbone's layers behind ``output_stride``, as in the paper; ``False`` leaves them
            off, which makes a small network of a large one.
        dropout: share of the context that is left out while training; few channels want less.

    Raises:
        ValueError: if an option is impossible, or the backbone is no stack of convolutions.
    """

    def __init__(
        self,
        num_classes: int = 21,
        backbone: str = "resnet50",
        in_channels: int = 3,
        output_stride: Literal[8, 16, 32] = 16,
        low_stride: Literal[2, 4] = 4,
        channels: int = 256,
        rates: Sequence[int] | None = None,
        weights_backbone: str | None = None,
        dilate: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, in_channels=in_channels, channels=channels)
        if output_stride not in RATES:
            raise ValueError(f"output_stride: must be 8, 16 or 32, got {output_stride}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: must be from 0 to below 1, got {dropout}")
        self.backbone = Features(backbone, (low_stride, output_stride), in_channels, weights_backbone, dilate)
        low, high = self.backbone.channels
        self.context = ASPP(high, list(rates or RATES[output_stride]), channels)
        self.context.project[-1].p = dropout  # torchvision's is fixed
        self.edges = nn.Sequential(nn.Conv2d(low, EDGES, 1, bias=False), nn.BatchNorm2d(EDGES), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.Conv2d(channels + EDGES, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, num_classes, 1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W) for float images (N, in_channels, H, W)."""
        low, high = self.backbone(image)
        joined = torch.cat([resized(self.context(high), low), self.edges(low)], dim=1)
        return resized(self.decoder(joined), image)
