"""What the losses of class indices share: logits and targets as two lists, and which entries count."""

from __future__ import annotations

from torch import Tensor

NO_TARGET = -100  # what torch's own losses ignore by default


def listed(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (P, C), targets (P,) and which of those count (P,), of images or of pixels.

    A target that does not count is replaced by 0, so that it may be looked up.

    Args:
        logits: floats (N, C, ...).
        target: class indices, int64 (N, ...).
        ignore_index: the target that does not count.

    Raises:
        ValueError: if the shapes do not fit, or the targets are no class indices.

    >>> import torch
    >>> [tuple(part.shape) for part in listed(torch.zeros(2, 5, 3, 4), torch.zeros(2, 3, 4).long(), 255)]
    [(24, 5), (24,), (24,)]
    """
    if target.is_floating_point():
        wanted = "it takes class indices, int64, and no labels mixed by MixUp or CutMix; CrossEntropyLoss takes those"
        raise ValueError(f"{wanted}; got {target.dtype} {tuple(target.shape)}")
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(
            f"expected logits (N, C, ...) and class indices (N, ...), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    target = target.reshape(-1)
    counts = target != ignore_index
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]), target.masked_fill(~counts, 0), counts


def mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    """Return the mean of ``values`` (C,) over the classes that are ``present``, 0 where none is."""
    return (values * present).sum() / present.sum().clamp(min=1)
