"""Losses that measure how well regions overlap, so that small classes count as much as large ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from visreg.losses.classes import NO_TARGET, listed, mean_of_present


class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient of each class, averaged over the classes that are in the batch.

    Of a class with probabilities p and truth g, 0 or 1, over all pixels of the batch, it is
    1 − (2 Σpg + smooth) / (Σp + Σg + smooth).

    Source: Milletari et al., "V-Net", 2016; without squares, as in Sudre et al., "Generalised Dice overlap", 2017.

    Args:
        smooth: in pixels; keeps the gradient of a class of few pixels small.
        ignore_index: target of the pixels to leave out.

    Raises:
        ValueError: if ``smooth`` is below 0.

    >>> sure = 100 * torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]).transpose(1, 2)
    >>> loss = DiceLoss(smooth=0.0)(sure, torch.tensor([[0], [1]]))  # class 0: 1 − 2/3; class 1: 1 − 0
    >>> round(loss.item(), 4)
    0.6667
    """

    def __init__(self, smooth: float = 1.0, ignore_index: int = NO_TARGET) -> None:
        super().__init__()
        if smooth < 0:
            raise ValueError(f"smooth: must be 0 or more, got {smooth}")
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C, ...) for class indices (N, ...), a scalar from 0 to 1."""
        logits, target, counts = listed(logits, target, self.ignore_index)
        truth = one_hot(target, logits.shape[1]) * counts[:, None]
        probabilities = logits.softmax(dim=1) * counts[:, None]
        overlap, sizes = (probabilities * truth).sum(dim=0), (probabilities + truth).sum(dim=0)
        dice = (2 * overlap + self.smooth) / (sizes + self.smooth).clamp(min=torch.finfo(sizes.dtype).tiny)
        return mean_of_present(1 - dice, truth.any(dim=0))


class LovaszSoftmaxLoss(nn.Module):
    """A convex surrogate of one minus the IoU of each class, averaged over the classes that are in the batch.

    Source: Berman et al., "The Lovász-Softmax loss", 2018, over the pixels of the whole batch.

    Args:
        ignore_index: target of the pixels to leave out.

    >>> sure = 100 * torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]).transpose(1, 2)
    >>> LovaszSoftmaxLoss()(sure, torch.tensor([[0], [1]])).item()  # class 0: 1 − 1/2; class 1: 1 − 0
    0.75
    """

    def __init__(self, ignore_index: int = NO_TARGET) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C, ...) for class indices (N, ...), a scalar from 0 to 1."""
        logits, target, counts = listed(logits, target, self.ignore_index)
        truth = (one_hot(target, logits.shape[1]) * counts[:, None]).to(logits.dtype)
        # What is left out gets the least error, 0: it comes last, where it changes no other's weight, and adds nothing.
        errors = (truth - logits.softmax(dim=1)).abs() * counts[:, None]
        errors, order = errors.sort(dim=0, descending=True)
        return mean_of_present((errors * _slopes(truth.gather(0, order))).sum(dim=0), truth.any(dim=0))


def _slopes(truth: Tensor) -> Tensor:
    """Return by how much the Jaccard loss of each class grows with each pixel that is wrong, in the given order.

    Args:
        truth: 1 where a pixel is of the class, else 0 (P, C).
    """
    hits = truth.sum(dim=0) - truth.cumsum(dim=0)
    union = truth.sum(dim=0) + (1 - truth).cumsum(dim=0)
    loss = 1 - hits / union.clamp(min=1)
    return torch.cat([loss[:1], loss[1:] - loss[:-1]])
