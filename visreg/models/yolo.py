"""A one-stage detector of our own, written from the papers that its parts come from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from visreg.models.images import check_positive

# Depth and width of each size, beside those of the largest but one: the scaling of YOLOX (Ge et al. 2021).
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
CHANNELS = 32  # for each pixel of stride: 256 where one place stands for 8×8 pixels
MOST_CHANNELS = 1024
HEAD_STRIDE = 8  # of the backbone's channels that the head has as many as, on all levels
PRIOR = 0.01  # how likely each class is thought to be everywhere before anything is learnt (Lin et al. 2017)


class YOLO(nn.Module):
    """A dense detector without anchor boxes: every place predicts one box, as the distances to its four sides.

    A backbone of cross-stage partial blocks (CSPNet, Wang et al. 2020; Darknet's, Redmon and Farhadi 2018) with spatial
    pyramid pooling (He et al. 2015), a neck that passes features down and up again (PANet, Liu et al. 2018), and a head
    that classifies and locates in separate branches (YOLOX, Ge et al. 2021). Each distance is the mean of a
    distribution over ``bins`` whole strides (generalized focal loss, Li et al. 2020). Train it with ``YOLOLoss``.

    Args:
        num_classes: how many classes there are; no background is counted.
        size: ``"n"``, ``"s"``, ``"m"``, ``"l"`` or ``"x"``: how deep and wide it is.
        in_channels: of the images.
        strides: pixels from one place to the next, on each level: powers of two in a row. (8, 16, 32) suits images of
            some 640 pixels, (4, 8, 16) those of 64.
        bins: a box can reach ``bins - 1`` strides of its level from its place.

    Raises:
        ValueError: if an option cannot be.
    """

    def __init__(
        self,
        num_classes: int,
        size: Literal["n", "s", "m", "l", "x"] = "n",
        in_channels: int = 3,
        strides: Sequence[int] = (8, 16, 32),
        bins: int = 16,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, in_channels=in_channels, bins=bins - 1)
        _check_strides(strides)
        depth, width = SIZES[size]
        self.num_classes = num_classes
        self.strides = tuple(strides)
        channels = stage_channels(strides[-1], width)
        self.backbone = Backbone(in_channels, channels, depth, self.strides)
        levels = [channels[stride] for stride in self.strides]
        self.neck = Neck(levels, max(1, round(3 * depth)))
        self.head = Head(levels, max(levels[0], stage_channels(HEAD_STRIDE, width)[HEAD_STRIDE]), num_classes, bins)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return what every place predicts for float images (N, in_channels, H, W); their sides divide by all strides.

        Returns:
            ``logits`` (N, A, num_classes), ``boxes`` (N, A, 4) as x1, y1, x2, y2 in pixels, ``distances``
            (N, A, 4, bins), the logits of the distances' distributions, and what ``YOLOLoss`` needs to know of the
            places: ``points`` (A, 2), their x and y in pixels, and ``strides`` (A,).

        Raises:
            ValueError: if a side does not divide.
        """
        height, width = images.shape[-2:]
        if height % self.strides[-1] or width % self.strides[-1]:
            raise ValueError(f"images are {height}×{width}: their sides must divide by the stride {self.strides[-1]}")
        logits, distances = self.head(self.neck(self.backbone(images)))
        points, strides = _places(height, width, self.strides, images.device)
        bins = torch.arange(distances.shape[-1], device=images.device)
        mean = (distances.float().softmax(dim=-1) * bins).sum(dim=-1)
        sides = mean * strides[:, None]
        boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)
        return {"logits": logits, "boxes": boxes, "distances": distances, "points": points, "strides": strides}


def _check_strides(strides: Sequence[int]) -> None:
    doubled = all(other == 2 * stride for stride, other in itertools.pairwise(strides))
    if len(strides) < 2 or not doubled or strides[0] < 2 or strides[0] & (strides[0] - 1):
        raise ValueError(f"strides: expected at least two powers of two in a row, such as (4, 8, 16), got {strides!r}")


def stage_channels(last: int, width: float) -> dict[int, int]:
    """Return how many channels there are at each stride, from 2 to ``last``: multiples of 8."""
    strides = [2**power for power in range(1, int(math.log2(last)) + 1)]
    return {stride: max(8, 8 * round(min(CHANNELS * stride, MOST_CHANNELS) * width / 8)) for stride in strides}


def _places(height: int, width: int, strides: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the centres (A, 2), x and y in pixels, of every level's places, row by row, and their strides (A,)."""
    points, sizes = [], []
    for stride in strides:
        y = (torch.arange(height // stride, device=device) + 0.5) * stride
        x = (torch.arange(width // stride, device=device) + 0.5) * stride
        points.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1))
        sizes.append(torch.full((len(y) * len(x),), float(stride), device=device))
    return torch.cat(points), torch.cat(sizes)


class Conv(nn.Sequential):
    """A convolution that keeps the size, or divides it by ``stride``, with batch norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(inplace=True),
        )


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(Conv(channels, channels, 1), Conv(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        out: Tensor = self.layers(features)
        return features + out if self.shortcut else out


class CrossStage(nn.Module):
    """A cross-stage partial block (Wang et al. 2020): half of the channels go around the residual blocks."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.around = Conv(inputs, half)
        self.through = nn.Sequential(Conv(inputs, half), *(Residual(half, shortcut) for _ in range(count)))
        self.merge = Conv(2 * half, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, outputs, H, W) for (N, inputs, H, W)."""
        merged: Tensor = self.merge(torch.cat([self.through(features), self.around(features)], dim=1))
        return merged


class PyramidPooling(nn.Module):
    """Sets beside each place the maxima of ever larger neighbourhoods (He et al. 2015)."""

    def __init__(self, channels: int, kernels: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        self.reduce = Conv(channels, channels // 2)
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel, stride=1, padding=kernel // 2) for kernel in kernels)
        self.merge = Conv(channels // 2 * (len(kernels) + 1), channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        features = self.reduce(features)
        merged: Tensor = self.merge(torch.cat([features, *(pool(features) for pool in self.pools)], dim=1))
        return merged


class Backbone(nn.Module):
    """Halves the image again and again, a block after each time, and gives the features of ``strides``."""

    def __init__(self, in_channels: int, channels: dict[int, int], depth: float, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.stages = nn.ModuleDict()
        before = in_channels
        for stride, outputs in channels.items():
            layers: list[nn.Module] = [Conv(before, outputs, 3, stride=2)]
            if stride > 2:
                layers.append(CrossStage(outputs, outputs, max(1, round((3 if stride == 4 else 9) * depth))))
            if stride == strides[-1]:
                layers.insert(1, PyramidPooling(outputs))
            self.stages[str(stride)] = nn.Sequential(*layers)
            before = outputs

    def forward(self, features: Tensor) -> list[Tensor]:
        """Return features (N, channels of the stride, H / stride, W / stride) for each stride."""
        found = []
        for stride, stage in self.stages.items():
            features = stage(features)
            if int(stride) in self.strides:
                found.append(features)
        return found


class Neck(nn.Module):
    """A path from coarse to fine, and one from fine to coarse (Liu et al. 2018)."""

    def __init__(self, channels: Sequence[int], count: int) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(channels))
        self.reduce = nn.ModuleList(Conv(coarse, fine) for fine, coarse in pairs)
        self.down = nn.ModuleList(CrossStage(2 * fine, fine, count, shortcut=False) for fine, _ in pairs)
        self.shrink = nn.ModuleList(Conv(fine, fine, 3, stride=2) for fine, _ in pairs)
        self.up = nn.ModuleList(CrossStage(2 * fine, coarse, count, shortcut=False) for fine, coarse in pairs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return features of the same shapes, each of which knows of all the others."""
        features, reduced = list(features), {}
        for level in reversed(range(len(self.reduce))):
            reduced[level] = self.reduce[level](features[level + 1])
            enlarged = functional.interpolate(reduced[level], scale_factor=2.0, mode="nearest")
            features[level] = self.down[level](torch.cat([enlarged, features[level]], dim=1))
        for level in range(len(self.reduce)):
            shrunk = self.shrink[level](features[level])
            features[level + 1] = self.up[level](torch.cat([shrunk, reduced[level]], dim=1))
        return features


class Head(nn.Module):
    """Classifies and locates in separate branches (Ge et al. 2021), each level with its own weights."""

    def __init__(self, channels: Sequence[int], width: int, num_classes: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.stems = nn.ModuleList(Conv(inputs, width) for inputs in channels)
        self.classify = nn.ModuleList(_branch(width, num_classes) for _ in channels)
        self.locate = nn.ModuleList(_branch(width, 4 * bins) for _ in channels)
        for branch in self.classify:
            nn.init.constant_(branch[-1].bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[index]  # it is a Sequential

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits of the classes (N, A, num_classes) and of the distances (N, A, 4, bins)."""
        logits, distances = [], []
        for stem, classify, locate, level in zip(self.stems, self.classify, self.locate, features, strict=True):
            level = stem(level)
            logits.append(classify(level).flatten(2).transpose(1, 2))
            distances.append(locate(level).flatten(2).transpose(1, 2).unflatten(2, (4, self.bins)))
        return torch.cat(logits, dim=1), torch.cat(distances, dim=1)


def _branch(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Conv(width, width, 3), Conv(width, width, 3), nn.Conv2d(width, outputs, 1))
