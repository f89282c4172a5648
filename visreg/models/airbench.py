"""The network of airbench, made to learn CIFAR-10 as quickly as can be."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visreg.models.images import check_positive

MOMENTUM, EPSILON = 0.4, 1e-12  # of the running statistics, which are of few steps


class AirbenchNet(nn.Module):
    """A small convolution that whitens, three blocks of two convolutions, and a linear layer.

    Each block halves the image between its convolutions, which begin as the identity on as many channels as they can.
    The hook ``Whiten(layer="whiten")`` sets the first layer; untouched, it is an ordinary random convolution.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.

    Args:
        in_channels: channels of the image, 3 for colour.
        num_classes: length of the output.
        widths: channels of each block.
        scale: what the logits are multiplied by.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        widths: Sequence[int] = (64, 256, 256),
        scale: float = 1 / 9,
    ) -> None:
        super().__init__()
        sizes = {f"widths[{place}]": width for place, width in enumerate(widths)}
        check_positive(in_channels=in_channels, num_classes=num_classes, **sizes)
        if not sizes:
            raise ValueError("widths: name one width for each block, got none")
        first = 2 * 2 * 2 * in_channels  # each direction in a 2×2 patch, and its opposite
        self.whiten = nn.Conv2d(in_channels, first, kernel_size=2)
        pairs = zip((first, *widths), widths, strict=False)
        self.blocks = nn.Sequential(nn.GELU(), *(_Block(*pair) for pair in pairs))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes) for float images (N, in_channels, H, W) of 9 by 9 pixels or more."""
        features = self.pool(self.blocks(self.whiten(image))).flatten(1)
        logits: Tensor = self.head(features) * self.scale
        return logits


class _Block(nn.Sequential):
    """Convolution, halving, normalisation; convolution, normalisation."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        sizes = ((in_channels, nn.MaxPool2d(2)), (channels, nn.Identity()))
        for number, (inputs, pool) in enumerate(sizes, 1):
            conv = nn.Conv2d(inputs, channels, kernel_size=3, padding="same", bias=False)
            nn.init.dirac_(conv.weight.data[: min(inputs, channels)])
            norm = nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)
            for name, part in (("conv", conv), ("pool", pool), ("norm", norm), ("gelu", nn.GELU())):
                self.add_module(f"{name}{number}", part)
