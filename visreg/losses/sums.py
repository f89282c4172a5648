"""Several losses in one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from visreg.losses.classes import NO_TARGET


class SumLoss(nn.Module):
    """The weighted sum of several losses of the same output and target, such as cross-entropy and Dice.

    What is to be ignored is told to each in its own ``ignore_index``.

    Args:
        losses: the losses.
        weights: what each counts; 1 where not given.

    Raises:
        ValueError: if there is no loss, or not one weight for each.

    >>> import torch
    >>> loss = SumLoss([nn.CrossEntropyLoss(), nn.CrossEntropyLoss()], weights=[1.0, 0.5])
    >>> loss(torch.zeros(1, 2), torch.tensor([1])).item()  # 1.5 log 2
    1.0397207736968994
    """

    ignore_index = NO_TARGET

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("losses: name at least one")
        if weights is not None and len(weights) != len(losses):
            raise ValueError(f"weights: has {len(weights)} values for {len(losses)} losses")
        self.losses = nn.ModuleList(losses)
        self.weights = [1.0] * len(losses) if weights is None else list(weights)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the sum, a scalar.

        Raises:
            ValueError: if something is to be ignored and a loss has no ``ignore_index``.
        """
        total = output.new_zeros(())
        for weight, loss in zip(self.weights, self.losses, strict=True):
            total = total + weight * loss(output, _told(loss, target))
        return total


def _told(loss: nn.Module, target: Tensor) -> Tensor:
    """Return ``target`` with the word of ``loss`` for what is to be ignored."""
    word = getattr(loss, "ignore_index", None)
    if word == NO_TARGET or target.is_meta:
        return target
    ignored = target == NO_TARGET
    if word is not None:
        return target.masked_fill(ignored, word)
    if bool(ignored.any()):
        raise ValueError(f"{type(loss).__name__} has no ignore_index, and there is something to ignore")
    return target
