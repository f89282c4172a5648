"""Where objects are, of which class each is, and, if the model says, which pixels are its own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, clip_boxes_to_image

from visreg.data import Batch, DataInfo, Predictions
from visreg.errors import ConfigError, DataError, Problem
from visreg.objects import check_objects
from visreg.tasks.images import ImageTask
from visreg.tasks.outputs import instead

# For dense models: a threshold that loses next to nothing of the average precision, and YOLOX's for double boxes.
MIN_SCORE, MAX_OVERLAP, MAX_OBJECTS = 0.01, 0.65, 100
MAX_CANDIDATES = 1000  # of an image that are compared with one another
MAX_ENLARGEMENT = 3.0  # by a model of its images: more is taken to be a mistake


class Detection(ImageTask):
    """Predicts ``boxes``, ``labels`` and ``scores`` of the objects in each image, and ``masks`` if the model has them.

    There are two kinds of models.

    - Those that compute their own losses, as torchvision's detectors do: ``model(images, targets)``, of lists, gives
      losses by name while it trains, else a dict for each image. They normalise images themselves, by their
      ``image_mean`` and ``image_std``, and choose among overlapping boxes themselves.
    - Dense ones, such as ``YOLO``: ``model(images)``, of a tensor (N, C, H, W), gives a dict with at least ``logits``
      (N, A, num_classes) and ``boxes`` (N, A, 4), which ``loss(output, targets)`` understands; it returns a scalar, or
      a dict of scalars by name. Images are normalised by ``mean`` and ``std``, and of overlapping boxes of one class
      that of the highest score is kept.

    In a batch and in predictions classes are counted from 0. Where torchvision's detectors count a background, as class
    0, this task adds and subtracts 1.

    Args:
        model: one of the two kinds.
        loss: for a dense model, such as ``YOLOLoss``.
        mean: of the pixels, for a dense model, on the scale 0..1: one for each channel, or one for all; 0 by default.
        std: their standard deviation, likewise; 1 by default.
        min_score: what a dense model's boxes must score to be predicted; 0.01 by default.
        max_overlap: IoU above which the lower of two of its boxes is dropped; 0.65 by default.
        max_objects: of its boxes, as many of an image are predicted; 100 by default.

    Raises:
        ConfigError: if ``loss``, or any other option, is given to a model that has its own.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_score: float | None = None,
        max_overlap: float | None = None,
        max_objects: int | None = None,
    ) -> None:
        super().__init__(model, mean, std)
        self.loss = loss
        self.has_own_losses = "targets" in inspect.signature(model.forward).parameters
        options: dict[str, Any] = {
            "mean": mean, "std": std, "min_score": min_score, "max_overlap": max_overlap, "max_objects": max_objects
        }  # fmt: skip
        for name, value in options.items():
            if value is not None and name in ("min_score", "max_overlap") and not 0 <= value <= 1:
                raise ValueError(f"{name}: must be from 0 to 1, got {value!r}")
        if self.has_own_losses:
            self._refuse(options)
        self.min_score = MIN_SCORE if min_score is None else min_score
        self.max_overlap = MAX_OVERLAP if max_overlap is None else max_overlap
        self.max_objects = MAX_OBJECTS if max_objects is None else max_objects
        # torchvision's background is class 0 where each box has one class of several, by softmax.
        self.first_label = 1 if isinstance(model, (GeneralizedRCNN, SSD)) else 0

    def _refuse(self, options: Mapping[str, Any]) -> None:
        name = type(self.model).__name__
        instead = {
            "mean": "set model.image_mean", "std": "set model.image_std",
            "min_score": "set its box_score_thresh or score_thresh",
            "max_overlap": "set its box_nms_thresh or nms_thresh",
            "max_objects": "set its box_detections_per_img or detections_per_img",
        }  # fmt: skip
        problems = [
            Problem(f"task.{key}", f"of no use, since {name} does that itself; {instead[key]}")
            for key, value in options.items()
            if value is not None
        ]
        if self.loss is not None:
            problems.append(Problem("loss", f"of no use, since {name} computes its own losses; remove it"))
        if problems:
            raise ConfigError(problems)

    @property
    def num_classes(self) -> int | None:
        """How many classes the model tells apart, the background not counted; None where it does not say."""
        outputs = _outputs(self.model)
        return None if outputs is None else outputs - self.first_label

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if self.has_own_losses:
            self._check_size(batch["image"])
            check_objects(batch, self.num_classes, masks=_has_masks(self.model))
            targets = _targets(batch)
            for target in targets:
                target["labels"] = target["labels"] + self.first_label
            losses: dict[str, Tensor] = self.model(list(self.preprocess(batch["image"])), targets)
            return losses
        output = self._output(batch)
        check_objects(batch, self.num_classes)
        if self.loss is None:
            advice = "computes none itself: add one, such as dict(type='YOLOLoss')"
            raise ConfigError([Problem("loss", f"missing; {type(self.model).__name__} {advice}")])
        found = self.loss(output, _targets(batch))
        return found if isinstance(found, dict) else {"loss": found}

    def predict(self, batch: Batch) -> Predictions:
        if self.has_own_losses:
            self._check_size(batch["image"])
            found = self.model(list(self.preprocess(batch["image"])))
            found = [self._translated(each) for each in found]
        else:
            output = self._output(batch)
            size = (batch["image"].shape[-2], batch["image"].shape[-1])
            pairs = zip(output["logits"].float().sigmoid(), output["boxes"].float(), strict=True)
            found = [self._best(scores, boxes, size) for scores, boxes in pairs]
        return {key: [each[key] for each in found] for key in found[0]} if found else {}

    def _output(self, batch: Batch) -> dict[str, Tensor]:
        """Return what a dense model gives for the images of a batch.

        Raises:
            ConfigError: if that is not a dense detector's output.
        """
        output = self.model(self.preprocess(batch["image"]))
        if not isinstance(output, dict) or not {"logits", "boxes"} <= output.keys():
            wanted = "return a dict with 'logits' and 'boxes', or take targets and compute its own losses"
            message = f"the model must {wanted}, for Detection, {instead(output, 'Detection')}"
            raise ConfigError([Problem("model", message)])
        count = len(batch["image"])
        logits, boxes = output["logits"].shape, output["boxes"].shape
        if len(logits) != 3 or boxes != (count, logits[1], 4) or logits[0] != count:
            wanted = f"'logits' must be ({count}, A, num_classes) and 'boxes' ({count}, A, 4)"
            raise ConfigError([Problem("model", f"{wanted}; got {(*logits,)} and {(*boxes,)}")])
        return output

    def _best(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what is found in one image of ``size``, given scores (A, C) and boxes (A, 4)."""
        place, label = (scores > self.min_score).nonzero(as_tuple=True)
        score = scores[place, label]
        score, order = score.sort(descending=True, stable=True)
        score, order = score[:MAX_CANDIDATES], order[:MAX_CANDIDATES]
        boxes, label = clip_boxes_to_image(boxes[place[order]], size), label[order]
        kept = batched_nms(boxes, score, label, self.max_overlap)[: self.max_objects]
        return {"boxes": boxes[kept], "labels": label[kept], "scores": score[kept]}

    def _translated(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what one of torchvision's models found in one image, by the table's keys, shapes and dtypes."""
        order = found["scores"].argsort(descending=True, stable=True)
        values = {
            "boxes": found["boxes"].float()[order],
            "labels": found["labels"][order] - self.first_label,
            "scores": found["scores"].float()[order],
        }
        if "masks" in found:
            masks = found["masks"]
            values["masks"] = masks.reshape(len(masks), *masks.shape[-2:])[order] > 0.5
        return values

    def _check_size(self, images: Tensor) -> None:
        """Make sure that the model does not blow small images up, as torchvision's do to 800 pixels by default.

        Raises:
            ConfigError: if it does, and nobody has asked for it by giving ``min_size``.
        """
        if "min_size" in getattr(self.model, "given_options", ()):
            return
        transform = getattr(self.model, "transform", None)
        height, width = images.shape[-2:]
        sizes = getattr(transform, "min_size", None)
        if sizes is None or getattr(transform, "fixed_size", None) is not None:
            return
        least = min(min(sizes) / min(height, width), transform.max_size / max(height, width))  # type: ignore[union-attr]
        if least > MAX_ENLARGEMENT:
            problem = f"the model enlarges images of {height}×{width} {least:.3g} times before it looks at them"
            advice = f"set min_size={min(height, width)} and max_size={max(height, width)}, add a Resize"
            advice += f", or set min_size={min(sizes)} if it is meant"
            raise ConfigError([Problem("model.min_size", f"{problem}; {advice}")])

    def mismatch(self, batch: Batch, info: DataInfo) -> str | None:
        count = self.num_classes
        if count is None:
            return None
        if info.classes and count != len(info.classes):
            if self.first_label and type(self.model).__module__.startswith("torchvision."):
                outputs = f"the model has {count + 1} outputs, of which one is for the background"
                return f"{outputs}: set num_classes={len(info.classes) + 1} for the {len(info.classes)} classes"
            many, all_of = (f"{number} class{'es' * (number != 1)}" for number in (count, len(info.classes)))
            return f"the model is for {many}, and there {'is' if len(info.classes) == 1 else 'are'} {all_of}"
        try:
            check_objects(batch, count)
        except DataError as error:
            return str(error)
        return None


def _targets(batch: Batch) -> list[dict[str, Tensor]]:
    """Return what is to be found in each image; crowds are not learnt."""
    targets: list[dict[str, Tensor]] = [
        {key: batch[key][place] for key in ("boxes", "labels", "masks") if key in batch}
        for place in range(len(batch["image"]))
    ]
    if "crowd" not in batch:
        return targets
    return [
        {key: value[~crowd] for key, value in target.items()}
        for target, crowd in zip(targets, batch["crowd"], strict=True)
    ]


def _has_masks(model: nn.Module) -> bool:
    has_mask = getattr(getattr(model, "roi_heads", None), "has_mask", None)
    return bool(has_mask()) if callable(has_mask) else False


def _outputs(model: nn.Module) -> int | None:
    """Return how many classes a model has outputs for, the background among them; None where it does not say."""
    if isinstance(model, GeneralizedRCNN):
        predictor = getattr(model.roi_heads, "box_predictor", None)
        linear = getattr(predictor, "cls_score", None)
        return int(linear.out_features) if isinstance(linear, nn.Linear) else None
    if isinstance(model, SSD):
        return int(model.head.classification_head.num_columns)
    head = getattr(getattr(model, "head", None), "classification_head", model)
    count = getattr(head, "num_classes", None)
    return int(count) if isinstance(count, int) else None
