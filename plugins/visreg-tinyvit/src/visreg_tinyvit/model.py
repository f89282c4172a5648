"""A vision transformer small enough to train on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TinyViT(nn.Module):
    """Cuts the image into patches and lets them attend to one another.

    Source: Dosovitskiy et al., "An image is worth 16×16 words", 2021; with the mean of the patches in place of a class
    token, as in Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022.

    Args:
        image_size: height and width of the image, a multiple of ``patch_size``.
        patch_size: height and width of a patch.
        in_channels: channels of the image.
        num_classes: length of the output.
        width: length of each patch's embedding.
        depth: how many transformer layers.
        heads: how many attention heads; divides ``width``.
        dropout: share of each layer's activations to drop in training, from 0 to 1.

    Raises:
        ValueError: if a size does not divide, or a number is out of range.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int = 7,
        in_channels: int = 3,
        num_classes: int = 10,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_multiple("image_size", image_size, "patch_size", patch_size)
        _check_multiple("width", width, "heads", heads)
        self.embed = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.empty(1, (image_size // patch_size) ** 2, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, image_size, image_size)."""
        patches = self.embed(image).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.encoder(patches).mean(dim=1))
        return logits


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value < 1 or divisor < 1 or value % divisor:
        raise ValueError(f"{name}: must be a multiple of {divisor_name}, which is {divisor}, got {value}")
