"""One class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from visreg.data import IGNORE, Batch, DataInfo, Predictions
from visreg.errors import ConfigError, DataError, Problem, suggest
from visreg.objects import name_of
from visreg.tasks.images import ImageTask
from visreg.tasks.outputs import counted, instead


class SemanticSegmentation(ImageTask):
    """Predicts ``mask``, the class of each pixel, from logits (N, C, h, w), or from a dict of them.

    Of a dict, which is what torchvision's FCN and DeepLabV3 return, ``out`` counts, and while training ``aux``, if it
    is there. Logits smaller than the image are enlarged to it, bilinearly. Pixels whose true class is 255 are left out:
    the loss finds its own ``ignore_index`` there. Predictions have ``mask``, int64 (N, H, W), and ``scores``, the
    probabilities of the classes, float32 (N, C, H, W).

    The model gets float32 images of range 0..1, normalised by ``mean`` and ``std``, which are kept with its weights.

    Args:
        model: images (N, C, H, W) to logits.
        loss: logits (N, C, H, W) and classes (N, H, W) to a scalar, such as ``CrossEntropyLoss`` or ``DiceLoss``.
        mean: of the pixels, on the scale 0..1: one for each channel, or one for all; 0 where not given.
        std: their standard deviation, likewise; 1 where not given.
        aux_weight: what the loss of ``aux`` counts; 0.5 is that of torchvision's reference.

    Raises:
        ValueError: if ``mean`` or ``std`` cannot be those of pixels 0..1, or ``aux_weight`` is below 0.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        aux_weight: float = 0.5,
    ) -> None:
        super().__init__(model, mean, std)
        if aux_weight < 0:
            raise ValueError(f"aux_weight: must be 0 or more, got {aux_weight}")
        self.loss = loss
        self.aux_weight = aux_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        output = self._outputs(batch)
        target = self._target(batch, output["out"].shape[1])
        losses = {"loss": self.loss(output["out"], target)}
        if "aux" in output:
            losses["aux_loss"] = self.aux_weight * self.loss(output["aux"], target)
        return losses

    def predict(self, batch: Batch) -> Predictions:
        scores = self._outputs(batch)["out"].softmax(dim=1)
        return {"mask": scores.argmax(dim=1), "scores": scores}

    def mismatch(self, batch: Batch, info: DataInfo) -> str | None:
        outputs, classes = self._outputs(batch)["out"].shape[1], info.classes_of("mask")
        if classes and outputs != len(classes):
            return f"the model has {counted(outputs)} for the {len(classes)} classes"
        return None

    def _outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return logits (N, C, H, W) of the images' size, in float32 or better: ``out``, and ``aux`` if there is one.

        Raises:
            ConfigError: if the model returns something else.
        """
        image = batch["image"]
        output = self.model(self.preprocess(image))
        found = output if isinstance(output, Mapping) else {"out": output}
        named = {name: found[name] for name in ("out", "aux")[: 1 + self.training] if name in found}
        for logits in named.values() or [None]:
            if not isinstance(logits, Tensor) or logits.ndim != 4 or len(logits) != len(image):
                wanted = f"logits of shape (N, num_classes, height, width) for images {tuple(image.shape)}"
                given = instead(output if logits is None else logits, "SemanticSegmentation")
                message = f"the model must return {wanted}, {given}"
                raise ConfigError([Problem("model", message)])
        return {name: _enlarged(logits, image.shape[-2:]) for name, logits in named.items()}

    def _target(self, batch: Batch, num_classes: int) -> Tensor:
        """Return the true classes, int64 (N, H, W), with the loss's own word for pixels to ignore.

        Raises:
            DataError: if they are missing, of another size than the images, or not among the classes.
            ConfigError: if pixels are to be ignored, and the loss cannot.
        """
        mask = batch.get("mask")
        if not isinstance(mask, Tensor):
            raise DataError(f"the samples have no 'mask', the class of each pixel{suggest('mask', batch)}")
        if mask.is_floating_point():
            raise DataError(f"the masks must be class indices, int64; found {mask.dtype}")
        size = batch["image"].shape[-2:]
        if mask.ndim != 3 or mask.shape[1:] != size:
            found = "×".join(map(str, mask.shape[1:]))
            raise DataError(f"{name_of(batch, 0)}: its mask is {found}, but the image is {size[0]}×{size[1]}")
        mask, ignored = mask.long(), mask == IGNORE
        word = getattr(self.loss, "ignore_index", None)
        if not mask.is_meta:
            wrong = ((mask < 0) | (mask >= num_classes)) & ~ignored
            if bool((wrong | ignored if word is None else wrong).any()):  # the one place that waits for the device
                raise self._complaint(batch, mask, wrong, num_classes)
        return mask if word is None else mask.masked_fill(ignored, word)

    def _complaint(self, batch: Batch, mask: Tensor, wrong: Tensor, num_classes: int) -> ConfigError | DataError:
        """Return what is wrong with a mask of which some pixels are of no class, or cannot be ignored."""
        if not bool(wrong.any()):
            message = f"has no ignore_index, and there are pixels of class {IGNORE} to ignore"
            return ConfigError([Problem("loss", f"{type(self.loss).__name__} {message}")])
        place = int(wrong.flatten(1).any(dim=1).int().argmax())
        value = int(mask[place][wrong[place]][0])
        return DataError(
            f"{name_of(batch, place)}: there are pixels of class {value}, but the {num_classes} classes are "
            f"0 to {num_classes - 1}, and {IGNORE} is to be ignored"
        )


def _enlarged(logits: Tensor, size: Sequence[int]) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[-2:] == tuple(size):
        return logits
    return interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
