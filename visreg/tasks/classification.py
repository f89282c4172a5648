"""One label for each image or clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from visreg.data import Batch, DataInfo, Predictions
from visreg.errors import ConfigError, Problem, suggest
from visreg.tasks.images import ImageTask
from visreg.tasks.outputs import counted, instead

# What the loss of an auxiliary head counts beside the main one's: Inception v3's as in PyTorch's fine-tuning tutorial,
# GoogLeNet's as in Szegedy et al. 2015.
AUXILIARY_WEIGHTS = {"aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3}


class Classification(ImageTask):
    """Predicts the class of the whole image or clip, ``label`` or another key, from logits (N, C).

    In training it may be probabilities (N, C), as MixUp and CutMix make them.

    The model gets float32 images of range 0..1, normalised by ``mean`` and ``std``, which are kept with its weights; or
    clips of such images (N, C, T, H, W), where the samples hold a ``clip``.

    Args:
        model: images (N, C, H, W), or clips (N, C, T, H, W), to logits.
        loss: logits and labels to a scalar, such as ``CrossEntropyLoss``.
        mean: of the pixels, on the scale 0..1: one for each channel, or one for all; 0 where not given.
        std: their standard deviation, likewise; 1 where not given.
        target: which key of a sample is the class, of which the prediction has the name: ``"label"``, or one of those
            that a dataset has beside it.
        views: what is predicted is the mean of the logits of several views of an image: ``"mirrored"`` of it and its
            mirror image, of equal weight; ``"shifted"`` half of those two, and half of both again, shifted by a pixel
            to the upper left and to the lower right, as in arXiv:2404.00498; by default of the image alone.

    Raises:
        ValueError: if ``mean`` or ``std`` cannot be those of pixels 0..1, or the two differ in length; or there are no
            such ``views``.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target: str = "label",
        views: Literal["single", "mirrored", "shifted"] = "single",
    ) -> None:
        super().__init__(model, mean, std)
        if views not in ("single", "mirrored", "shifted"):
            raise ValueError(f"views: must be 'single', 'mirrored' or 'shifted', got {views!r}")
        self.views = views
        self.loss = loss
        self.target = target

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        output, label = self.model(self.inputs(batch)), self._labels(batch)
        scores = _logits(output, len(label))
        if label.ndim == 2 and label.shape[1] != scores.shape[1]:
            found = f"labels are mixed of {label.shape[1]} classes, and the model has {counted(scores.shape[1])}"
            raise ConfigError([Problem("model", f"{found}; give MixUp and CutMix the num_classes of the model")])
        losses = {"loss": self.loss(scores, label)}
        auxiliary = {name: getattr(output, name, None) for name in AUXILIARY_WEIGHTS}
        for name, logits in auxiliary.items():
            if logits is not None:
                loss = self.loss(_logits(logits, len(label)), label)
                losses[name.replace("logits", "loss")] = AUXILIARY_WEIGHTS[name] * loss
        return losses

    def predict(self, batch: Batch) -> Predictions:
        scores = self._scores(batch).softmax(dim=1)
        return {self.target: scores.argmax(dim=1), "scores": scores}

    def _scores(self, batch: Batch) -> Tensor:
        """Return logits (N, C), the mean of those of all views."""
        inputs = self.inputs(batch)
        views = [_logits(self.model(view), len(inputs)) * weight for view, weight in self._views(inputs)]
        return sum(views[1:], start=views[0])

    def _views(self, image: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Yield each view of images (N, C, ..., H, W), and how much it counts; all of them together count 1."""
        shifted = self.views == "shifted"
        yield image, {"single": 1.0, "mirrored": 0.5, "shifted": 0.25}[self.views]
        if self.views != "single":
            yield image.flip(-1), 0.25 if shifted else 0.5
        if shifted:
            framed = _with_border(image)
            for part in (framed[..., 2:, 2:], framed[..., :-2, :-2]):
                yield part, 0.125
                yield part.flip(-1), 0.125

    def mismatch(self, batch: Batch, info: DataInfo) -> str | None:
        outputs = self._scores(batch).shape[1]
        if (classes := info.classes_of(self.target)) and outputs != len(classes):
            return f"the model has {counted(outputs)} for the {len(classes)} classes"
        label = self._labels(batch)
        if not label.is_floating_point() and not label.is_meta and int(label.max()) >= outputs:
            return f"the model has {counted(outputs)}, and there is a label {int(label.max())}"
        return None

    def _labels(self, batch: Batch) -> Tensor:
        """Return the true classes, int64 (N,), or their probabilities (N, C) where images were mixed.

        Raises:
            ConfigError: if the samples have none.
        """
        label = batch.get(self.target)
        if not isinstance(label, Tensor):
            message = f"the samples have no {self.target!r}, the class of the image"
            place = "task" if self.target == "label" else "task.target"
            raise ConfigError([Problem(place, f"{message}{suggest(self.target, batch)}")])
        return label


def _with_border(image: Tensor) -> Tensor:
    """Return images (N, C, ..., H, W) with a border of one pixel that mirrors what is inside."""
    framed = pad(image.flatten(1, -3), (1, 1, 1, 1), mode="reflect")
    return framed.view(*image.shape[:-2], *framed.shape[-2:])


def _logits(output: object, count: int) -> Tensor:
    """Return logits (N, C), in float32 or better, of what a classifier returned for ``count`` images.

    Raises:
        ConfigError: if that is something else.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        wanted = "the model must return logits of shape (N, num_classes) for Classification"
        message = f"{wanted}, {instead(logits, 'Classification')}"
        raise ConfigError([Problem("model", message)])
    if len(logits) != count:
        message = f"the model returns {len(logits)} rows for {count} images; look for a view or reshape that mixes them"
        raise ConfigError([Problem("model", message)])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
