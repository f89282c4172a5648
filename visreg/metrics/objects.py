"""What metrics of objects keep: the true and the found objects of every image, of all processes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from torch import Tensor

from visreg import dist
from visreg.data import Batch, Predictions
from visreg.errors import ConfigError, DataError, Problem, suggest
from visreg.metric import Metric
from visreg.objects import check_objects

Array = NDArray[Any]
KEYS = ("boxes", "labels", "masks")  # of what is true, and of what is found
TRUE_KEYS = (*KEYS, "crowd", "area")
FOUND_KEYS = (*KEYS, "scores")


@frozen(eq=False)
class Objects:
    """The true or the found objects of one image, on the CPU.

    Attributes:
        boxes: x1, y1, x2, y2 (M, 4). labels: class indices (M,). scores: of what was found (M,).
        crowd: of what is true, whether it is a crowd (M,). area: in pixels (M,).
        size: height and width of the image. masks: run lengths, as COCO's.
    """

    boxes: Array
    labels: Array
    scores: Array
    crowd: Array
    area: Array
    size: tuple[int, int]
    masks: list[Any] = field(factory=list)


@define(kw_only=True, eq=False)
class ObjectMetric(Metric):
    """Keeps what was found, and what is there, in every image, until all is scored together."""

    key: str = field(default="labels", init=False, repr=False)
    images: list[tuple[tuple[int, int], Objects, Objects]] = field(factory=list, init=False, repr=False)
    columns: dict[str, list[float]] = field(factory=dict, init=False, repr=False)
    masks: bool = field(default=False, init=False, repr=False)

    def reset(self) -> None:
        self.images, self.columns = [], {}

    def update(self, predictions: Predictions, batch: Batch) -> None:
        self._check(predictions, batch)
        count = len(batch["image"])
        # Without a place in the dataset, images are numbered as they come; with the rank, no two processes clash.
        places = batch["index"].tolist() if "index" in batch else range(len(self.images), len(self.images) + count)
        rank, size = (0 if "index" in batch else dist.rank()), tuple(batch["image"].shape[-2:])
        for number, place in enumerate(places):
            true = self._objects({key: batch[key][number] for key in TRUE_KEYS if key in batch}, size)
            every = {key: predictions[key][number] for key in FOUND_KEYS if key in predictions}
            found = self._objects(every, size)
            self.images.append(((rank, int(place)), true, found))

    def _check(self, predictions: Predictions, batch: Batch) -> None:
        name = type(self).__name__
        for key in ("boxes", "labels", "scores", *["masks"] * self.masks):
            if key not in predictions:
                raise DataError(f"{name}: the predictions have no {key!r}{suggest(key, predictions)}")
            if not isinstance(predictions[key], (list, tuple)) or len(predictions[key]) != len(batch["image"]):
                raise DataError(f"{name}: the predicted {key!r} must be a list with one tensor for each image")
        check_objects(batch, masks=self.masks)

    def _objects(self, values: dict[str, Tensor], size: tuple[int, ...]) -> Objects:
        """Return the objects of one image; where there are masks, they say how large each is."""
        boxes = values["boxes"].detach().double().cpu().numpy()
        count = len(boxes)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        true = "scores" not in values
        if "masks" in values and (true or self.masks):  # of a found box the box itself is meant
            area = values["masks"].detach().sum(dim=(1, 2)).double().cpu().numpy()
        return Objects(
            boxes=boxes,
            labels=values["labels"].detach().cpu().numpy(),
            scores=np.zeros(count) if true else values["scores"].detach().double().cpu().numpy(),
            crowd=values["crowd"].cpu().numpy() if "crowd" in values else np.zeros(count, dtype=bool),
            area=values["area"].double().cpu().numpy() if "area" in values else area,
            size=(size[0], size[1]),
            masks=_run_lengths(self, values["masks"]) if self.masks else [],
        )

    def everything(self) -> list[tuple[Objects, Objects]]:
        """Return the true and the found objects of every process's images, in the order of the dataset."""
        every = itertools.chain.from_iterable(dist.gather(self.images))
        return [(true, found) for _, true, found in sorted(every, key=lambda image: image[0])]

    def per_class(self) -> dict[str, list[float]]:
        return self.columns


def coco_eval(metric: object) -> Any:
    """Return the package that COCO's metrics are computed by.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import faster_coco_eval
    except ImportError as error:
        message = f'{type(metric).__name__} needs faster-coco-eval ({error}); pip install "visreg[det]"'
        raise ConfigError([Problem("type", message)]) from error
    return faster_coco_eval


def _run_lengths(metric: object, masks: Tensor) -> list[Any]:
    pixels = masks.detach().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    encoded: list[Any] = coco_eval(metric).mask.encode(np.asfortranarray(pixels)) if len(masks) else []
    return encoded
