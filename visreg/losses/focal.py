"""Cross-entropy that leaves off what is easy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visreg.losses.classes import NO_TARGET, listed


class FocalLoss(nn.Module):
    """Cross-entropy in which what is predicted with probability p counts (1 − p)^gamma; for images and for pixels.

    Source: Lin et al., "Focal loss for dense object detection", 2017, with a softmax over the classes in place of its
    sigmoid; of two classes whose ``weight`` is [1 − α, α] it is the paper's. With ``gamma=0`` it is cross-entropy,
    averaged over what is not left out. It takes class indices only, and no labels mixed by MixUp or CutMix.

    Args:
        gamma: how much the easy counts for less; 0 for not at all.
        weight: of each class; 1 where not given.
        ignore_index: target of the pixels, or images, to leave out.

    Raises:
        ValueError: if ``gamma`` or a weight is below 0.

    >>> FocalLoss(gamma=1.0)(torch.zeros(1, 2), torch.tensor([1])).item()  # half of log 2
    0.3465735912322998
    """

    weight: Tensor | None

    def __init__(
        self, gamma: float = 2.0, weight: Sequence[float] | None = None, ignore_index: int = NO_TARGET
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma: must be 0 or more, got {gamma}")
        if weight is not None and not all(value >= 0 for value in weight):
            raise ValueError(f"weight: must be 0 or more for each class, got {list(weight)}")
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.register_buffer("weight", None if weight is None else torch.tensor(weight, dtype=torch.float32))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C, ...) for class indices (N, ...), a scalar; 0 where nothing counts.

        Raises:
            ValueError: if there is not one weight for each class.
        """
        logits, target, counts = listed(logits, target, self.ignore_index)
        log_p = logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
        losses = -((1 - log_p.exp()).clamp(min=0) ** self.gamma) * log_p
        if self.weight is not None:
            if len(self.weight) != logits.shape[1]:
                raise ValueError(f"weight: has {len(self.weight)} values for {logits.shape[1]} classes")
            losses = losses * self.weight[target]
        return (losses * counts).sum() / counts.sum().clamp(min=1)
