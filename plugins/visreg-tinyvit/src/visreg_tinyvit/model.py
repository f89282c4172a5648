"""A vision transformer small enough to train on a CPU, as a classifier and as a detector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Patches(nn.Module):
    """Cuts the image into patches and lets them attend to one another.

    Source: Dosovitskiy et al., "An image is worth 16×16 words", 2021.

    Args:
        image_size: height and width of the image, a multiple of ``patch_size``.
        patch_size: height and width of a patch.
        in_channels: channels of the image.
        width: length of each patch's embedding.
        depth: how many transformer layers.
        heads: how many attention heads; divides ``width``.
        dropout: share of each layer's activations to drop in training, from 0 to 1.

    Raises:
        ValueError: if a size does not divide, or a number is out of range.
    """

    def __init__(
        self, image_size: int, patch_size: int, in_channels: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        _check_multiple("image_size", image_size, "patch_size", patch_size)
        _check_multiple("width", width, "heads", heads)
        self.embed = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.empty(1, (image_size // patch_size) ** 2, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return features (N, P, width) of the P patches of images (N, in_channels, image_size, image_size)."""
        features: Tensor = self.encoder(self.embed(image).flatten(2).transpose(1, 2) + self.position)
        return features


class TinyViT(nn.Module):
    """Classifies the mean of what the patches of an image have found out from one another.

    Source: Dosovitskiy et al., "An image is worth 16×16 words", 2021; with the mean in place of a class token, as in
    Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022.

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
        self.patches = Patches(image_size, patch_size, in_channels, width, depth, heads, dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, image_size, image_size)."""
        logits: Tensor = self.head(self.patches(image).mean(dim=1))
        return logits


class TinyViTDetector(nn.Module):
    """Predicts one box at each patch of an image; to be trained with visreg's ``YOLOLoss`` under ``Detection``.

    A plain transformer that keeps its one scale, as in Li et al., "Exploring plain vision transformer backbones for
    object detection", 2022, with the distances to a box's four sides as in FCOS (Tian et al. 2019).

    Args:
        image_size: height and width of the image, a multiple of ``patch_size``.
        patch_size: height and width of a patch.
        in_channels: channels of the image.
        num_classes: how many classes there are; no background is counted.
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
        patch_size: int = 8,
        in_channels: int = 3,
        num_classes: int = 10,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.patch_size = patch_size
        self.patches = Patches(image_size, patch_size, in_channels, width, depth, heads, dropout)
        self.head = nn.Linear(width, num_classes + 4)
        nn.init.constant_(self.head.bias[:num_classes], -4.6)  # 1 %: most patches see nothing
        place = patch_size * (torch.arange(image_size // patch_size) + 0.5)
        points = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1).flatten(0, 1)
        self.register_buffer("points", points, persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return what each of the P patches sees in images (N, in_channels, image_size, image_size).

        Returns:
            ``logits`` (N, P, num_classes), ``boxes`` (N, P, 4) as x1, y1, x2, y2 in pixels, and ``points`` (P, 2), the
            patches' centres, x and y in pixels.
        """
        logits, sides = self.head(self.patches(image)).split([self.num_classes, 4], dim=-1)
        sides = self.patch_size * sides.exp()
        boxes = torch.cat([self.points - sides[..., :2], self.points + sides[..., 2:]], dim=-1)
        return {"logits": logits, "boxes": boxes, "points": self.points}


def _check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value < 1 or divisor < 1 or value % divisor:
        raise ValueError(f"{name}: must be a multiple of {divisor_name}, which is {divisor}, got {value}")
