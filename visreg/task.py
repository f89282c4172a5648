"""What is being learnt."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from visreg.data import Batch, DataInfo, Predictions


class Task(nn.Module, ABC):
    """A model together with the meaning of its output.

    A task answers the two questions a runner asks of every kind of problem: how wrong is the
    model on this batch, and what does it predict? The model itself stays an ordinary module
    from images to tensors, so that it can be exported, quantized and served without its task.
    """

    model: nn.Module

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses on ``batch``, by name; each is a scalar and training minimises their sum."""

    @abstractmethod
    def predict(self, batch: Batch) -> Predictions:
        """Return what the model predicts for ``batch["image"]``; the keys are in the table of `visreg.data`."""

    def mismatch(self, batch: Batch, info: DataInfo) -> str | None:
        """Return why the model's output on ``batch`` cannot be right for data with the classes of ``info``, if so."""
        return None
