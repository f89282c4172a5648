"""One label for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visreg.data import Batch, DataInfo, Predictions
from visreg.errors import ConfigError, Problem
from visreg.task import Task

# What the loss of an auxiliary head counts beside the main one's: Inception v3's as in PyTorch's fine-tuning tutorial,
# GoogLeNet's as in Szegedy et al. 2015.
AUXILIARY_WEIGHTS = {"aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3}


class Classification(Task):
    """Predicts ``label``, the class of the whole image, from logits (N, C).

    The model gets float32 images of range 0..1, normalised by ``mean`` and ``std``, which are kept with its weights.

    Args:
        model: images (N, C, H, W) to logits.
        loss: logits and labels to a scalar, such as ``CrossEntropyLoss``.
        mean: of the pixels, on the scale 0..1: one for each channel, or one for all; 0 where not given.
        std: their standard deviation, likewise; 1 where not given.

    Raises:
        ValueError: if ``mean`` or ``std`` cannot be those of pixels 0..1, or the two differ in length.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        if mean is not None and not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"mean: must be on the scale 0..1, got {list(mean)}; divide by 255")
        mean, std = _of_each_channel("mean", mean, 0.0), _of_each_channel("std", std, 1.0)
        if not all(0 < value <= 1 for value in std):
            raise ValueError(f"std: must be above 0 and, on the scale 0..1, at most 1, got {list(std)}")
        if len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ValueError(f"mean and std: one has {len(mean)} channels, the other {len(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def preprocess(self, image: Tensor) -> Tensor:
        """Return images (N, C, H, W) as the model takes them: float32, scaled to 0..1 if they were uint8, normalised.

        Raises:
            ValueError: if they are of another dtype.
            ConfigError: if they have other channels than ``mean`` or ``std``.
        """
        if image.dtype == torch.uint8:
            image = image.to(torch.float32).div(255)
        elif not image.is_floating_point():
            raise ValueError(f"image: expected uint8 (0..255) or floats (0..1), got {image.dtype}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, image.shape[-3]):
                message = f"is for {len(values)} channels, but the images have {image.shape[-3]}"
                raise ConfigError([Problem(f"task.{name}", message)])
        return (image.to(torch.float32) - self.mean) / self.std

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        output, label = self.model(self.preprocess(batch["image"])), batch["label"]
        losses = {"loss": self.loss(_logits(output, len(label)), label)}
        auxiliary = {name: getattr(output, name, None) for name in AUXILIARY_WEIGHTS}
        for name, logits in auxiliary.items():
            if logits is not None:
                loss = self.loss(_logits(logits, len(label)), label)
                losses[name.replace("logits", "loss")] = AUXILIARY_WEIGHTS[name] * loss
        return losses

    def predict(self, batch: Batch) -> Predictions:
        scores = self._scores(batch).softmax(dim=1)
        return {"label": scores.argmax(dim=1), "scores": scores}

    def _scores(self, batch: Batch) -> Tensor:
        return _logits(self.model(self.preprocess(batch["image"])), len(batch["image"]))

    def mismatch(self, batch: Batch, info: DataInfo) -> str | None:
        outputs = self._scores(batch).shape[1]
        if info.classes and outputs != len(info.classes):
            return f"the model has {outputs} outputs for the {len(info.classes)} classes"
        label = batch["label"]
        if not label.is_floating_point() and not label.is_meta and int(label.max()) >= outputs:
            return f"the model has {outputs} outputs, and there is a label {int(label.max())}"
        return None


def _of_each_channel(name: str, values: Sequence[float] | None, default: float) -> Sequence[float]:
    if values is None:
        return [default]
    if not len(values):
        raise ValueError(f"{name}: expected a number for each channel, got {values!r}")
    return values


def _logits(output: object, count: int) -> Tensor:
    """Return logits (N, C), in float32 or better, of what a classifier returned for ``count`` images.

    Raises:
        ConfigError: if that is something else.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        message = f"the model must return logits of shape (N, num_classes) for Classification, got {found}"
        raise ConfigError([Problem("model", message)])
    if len(logits) != count:
        message = f"the model returns {len(logits)} rows for {count} images; look for a view or reshape that mixes them"
        raise ConfigError([Problem("model", message)])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
