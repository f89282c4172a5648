"""What the models here share: how many features an image of a given size leaves, and checks of their options."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.func import functional_call


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) in pixels; one number stands for a square.

    Raises:
        ValueError: if it is not one or two positive numbers.

    >>> height_and_width(28), height_and_width((24, 32))
    ((28, 28), (24, 32))
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"image_size: expected a positive number of pixels or (height, width), got {image_size!r}")
    return size[0], size[1]


def check_positive(**options: int) -> None:
    """Check that every option is 1 or more.

    Raises:
        ValueError: naming the first that is not.

    >>> check_positive(in_channels=3, num_classes=0)
    Traceback (most recent call last):
    ...
    ValueError: num_classes: must be 1 or more, got 0
    """
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name}: must be 1 or more, got {value!r}")


@torch.no_grad()
def flat_features(layers: nn.Sequential, in_channels: int, image_size: int | tuple[int, int]) -> int:
    """Return how many numbers ``layers`` make of one image, by running a blank one through them.

    They run on the CPU, with blank weights, wherever the layers are: for the meta device torch imports its compiler,
    which takes a second. Nothing random is drawn, and the layers' statistics are left alone.

    Raises:
        ValueError: if nothing is left of an image of that size.

    >>> flat_features(nn.Sequential(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2)), 1, 28)
    1440
    """
    height, width = height_and_width(image_size)
    held = chain(layers.named_parameters(), layers.named_buffers())
    blank = {name: torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu") for name, tensor in held}
    was_training = layers.training
    try:
        image = torch.zeros(1, in_channels, height, width, device="cpu")
        features = functional_call(layers.eval(), blank, image).numel()
    except RuntimeError as error:
        raise ValueError(f"image_size: {height}×{width} is too small for these layers: {error}") from error
    finally:
        layers.train(was_training)
    if not features:
        raise ValueError(f"image_size: {height}×{width} is too small for these layers; nothing is left of it")
    return int(features)
