"""Samples out of what the datasets of other libraries give: pairs of an image and a target, and arrays of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from visreg.data import IGNORE, Sample


def pair(item: Any, values: Mapping[int, int]) -> Sample:
    """Return (image, class index), or (image, mask), as a sample; other kinds of target join here.

    Args:
        item: what a dataset gave.
        values: the class of each value of a mask; empty where it is the value itself.

    Raises:
        TypeError: if it is something else, or the mask is of another size than the image.
    """
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, (tuple, list)) else ""
        raise TypeError(f"expected a dict or (image, class index), got a {type(item).__name__}{size}")
    image, target = item
    if hasattr(target, "tobytes") and hasattr(target, "mode"):
        sample = {"image": _image(image), "mask": _looked_up(_mask(target), values)}
        if sample["mask"].shape != sample["image"].shape[-2:]:
            sizes = ("×".join(map(str, sample[key].shape[-2:])) for key in ("mask", "image"))
            raise TypeError("its mask is {}, but the image is {}".format(*sizes))
        return sample
    whole = isinstance(target, int) or (getattr(target, "shape", None) == () and int(target) == target)
    if not whole:
        raise TypeError(f"expected a class index beside the image, got a {type(target).__name__}: {target!r}"[:300])
    return {"image": _image(image), "label": torch.tensor(int(target))}


def _image(value: Any) -> Tensor:
    """Return a Pillow image, an array (H, W[, C]) or a tensor ([C,] H, W) as a tensor (C, H, W).

    Raises:
        TypeError: if it is something else, or its numbers are neither uint8 nor floats.
    """
    if isinstance(value, Tensor):
        image = value if value.ndim == 3 else value[None]
    elif type(value).__name__ == "ndarray":
        array = torch.as_tensor(value)
        image = array.permute(2, 0, 1) if array.ndim == 3 else array[None]
    elif hasattr(value, "tobytes") and hasattr(value, "mode"):
        from visreg.datasets.image import to_tensor

        return to_tensor(value).contiguous()
    else:
        raise TypeError(f"expected a Pillow image, an array or a tensor, got a {type(value).__name__}")
    if image.ndim != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise TypeError(f"expected an image (C, H, W) of uint8 or floats, got {tuple(image.shape)} of {image.dtype}")
    return image


def _mask(value: Any) -> Tensor:
    """Return a Pillow image of class indices, with a palette or grey, as int64 (H, W).

    Raises:
        TypeError: if it is in colour, or of more than 8 bits.
    """
    value.load()  # which lets go of its file
    if value.mode not in ("P", "L", "1"):
        raise TypeError(f"expected a mask of one class index for each pixel, 8 bits, got an image of mode {value.mode}")
    pixels = value.convert("L") if value.mode == "1" else value
    mask = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).reshape(value.height, value.width)
    return (mask > 0).long() if value.mode == "1" else mask.long()


def _looked_up(mask: Tensor, values: Mapping[int, int]) -> Tensor:
    """Return the class of each value of a mask; without ``values`` that is the value itself."""
    if not values:
        return mask
    table = torch.full((256,), IGNORE, dtype=torch.int64)
    table[list(values)] = torch.tensor(list(values.values()))
    return table[mask]


def stack_of_images(data: Any) -> Tensor | None:
    """Return images (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W), or None if ``data`` is not that."""
    if type(data).__name__ != "ndarray" and not isinstance(data, Tensor):
        return None
    images = torch.as_tensor(data)
    if images.dtype != torch.uint8 or images.ndim not in (3, 4):
        return None
    if images.ndim == 3:
        return images[:, None]
    return images.permute(0, 3, 1, 2).contiguous() if images.shape[3] in (1, 3) else images


def class_indices(targets: Any) -> Tensor | None:
    """Return class indices as int64 (N,), or None if ``targets`` is something else."""
    try:
        labels = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        return None
    return labels.to(torch.int64) if labels.ndim == 1 and not labels.is_floating_point() else None
