"""What the tasks here share: how images are made ready for a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visreg.data import Batch
from visreg.errors import ConfigError, Problem
from visreg.task import Task


class ImageTask(Task):
    """A task whose model gets float32 images of range 0..1, normalised by ``mean`` and ``std``.

    The two are kept with the model's weights, so that they travel with them.

    Args:
        model: takes the images.
        mean: of the pixels, on the scale 0..1: one for each channel, or one for all; 0 where not given.
        std: their standard deviation, likewise; 1 where not given.

    Attributes:
        normalises: whether ``mean`` or ``std`` was given.

    Raises:
        ValueError: if ``mean`` or ``std`` cannot be those of pixels 0..1, or the two differ in length.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.normalises = mean is not None or std is not None
        if mean is not None and not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"mean: must be on the scale 0..1, got {list(mean)}; divide by 255")
        mean, std = _of_each_channel("mean", mean, 0.0), _of_each_channel("std", std, 1.0)
        if not all(0 < value <= 1 for value in std):
            raise ValueError(f"std: must be above 0 and, on the scale 0..1, at most 1, got {list(std)}")
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ValueError(f"mean and std: one has {len(mean)} channels, the other {len(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def inputs(self, batch: Batch) -> Tensor:
        """Return what the model gets: images (N, C, H, W) or, frames behind channels, clips (N, C, T, H, W)."""
        if "clip" in batch:
            return self.preprocess(batch["clip"]).transpose(1, 2)
        return self.preprocess(batch["image"])

    def preprocess(self, image: Tensor) -> Tensor:
        """Return images (..., C, H, W) in float32, scaled to 0..1 if they were uint8, normalised.

        Raises:
            ValueError: if they are of another dtype.
            ConfigError: if they have other channels than ``mean`` or ``std``.
        """
        ours = image.dtype == torch.uint8
        if ours:
            image = image.to(torch.float32).div_(255)
        elif not image.is_floating_point():
            raise ValueError(f"image: expected uint8 (0..255) or floats (0..1), got {image.dtype}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, image.shape[-3]):
                message = f"is for {len(values)} channels, but the images have {image.shape[-3]}"
                raise ConfigError([Problem(f"task.{name}", message)])
        if ours:  # of these floats nobody else knows: the least memory, and so the least time
            return image.sub_(self.mean).div_(self.std)
        return (image.to(torch.float32) - self.mean) / self.std


def _of_each_channel(name: str, values: Sequence[float] | None, default: float) -> Sequence[float]:
    if values is None:
        return [default]
    if not len(values):
        raise ValueError(f"{name}: expected a number for each channel, got {values!r}")
    return values
