"""Average precision: how well objects are found, between finding more of them and being right more often."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from attrs import define, field
from attrs.validators import and_, ge, gt, in_, instance_of, le, min_len, optional

from visreg.data import Batch, Predictions
from visreg.metrics.objects import Array, ObjectMetric, Objects, coco_eval

NAN: Final = float("nan")
COCO_NAMES = ("mAP", "mAP_50", "mAP_75", "mAP_small", "mAP_medium", "mAP_large")


@define(kw_only=True, eq=False)
class MeanAveragePrecision(ObjectMetric):
    """COCO's mean average precision, over IoU 0.50 to 0.95 in steps of 0.05 and over all classes that occur.

    The scores, from 0 to 1, are ``mAP``, that at an IoU of 0.5 and of 0.75 alone, and that of objects up to 32², up to
    96² and of more pixels; NaN where there is no such object. They are those of pycocotools (Lin et al. 2014), computed
    by ``faster-coco-eval``: pip install "visreg[det]". The size of a true object is its ``area``, else that of its
    mask, else that of its box. ``visreg test`` also prints, and writes, those of each class.

    Args:
        of: compare ``"boxes"`` or ``"masks"``.
        prefix: what the scores' names begin with; ``"mask_"`` for masks where not given.
        max_objects: of each image and class, as many count, those of the highest scores.
    """

    of: Literal["boxes", "masks"] = field(default="boxes", validator=in_(("boxes", "masks")))
    prefix: str | None = field(default=None, validator=optional(instance_of(str)))
    max_objects: int = field(default=100, validator=[instance_of(int), ge(1)])

    def __attrs_post_init__(self) -> None:
        self.masks = self.of == "masks"

    def names(self) -> tuple[str, ...]:
        prefix = self.prefix if self.prefix is not None else "mask_" * self.masks
        return tuple(prefix + name for name in COCO_NAMES)

    def update(self, predictions: Predictions, batch: Batch) -> None:
        coco_eval(self)  # that it is missing is to show before an epoch is over
        ObjectMetric.update(self, predictions, batch)

    def compute(self) -> dict[str, float]:
        images = self.everything()
        names, self.columns = self.names(), {}
        if not any(len(true.labels) for true, _ in images):
            return dict.fromkeys(names, NAN)
        labels = np.concatenate([objects.labels for image in images for objects in image])
        count = int(labels.max()) + 1
        tools = coco_eval(self)
        truth, results = (self._dataset(tools, [image[side] for image in images], count) for side in (0, 1))
        kind = "segm" if self.masks else "bbox"
        evaluation = tools.COCOeval_faster(truth, results, kind, print_function=logging.getLogger("visreg").debug)
        evaluation.params.maxDets = [1, 10, self.max_objects]
        evaluation.evaluate()
        evaluation.accumulate()
        # IoU, recall, class, size (all, small, medium, large), how many may be found; -1 where there is nothing
        precision = np.asarray(evaluation.eval["precision"]).reshape(10, -1, count, 4, 3)[..., -1]
        self.columns = {names[0]: [_mean(precision[:, :, index, 0]) for index in range(count)]}
        whole = precision[..., 0]
        scores = [whole, whole[0], whole[5], *(precision[..., size] for size in (1, 2, 3))]
        return dict(zip(names, map(_mean, scores), strict=True))

    def _dataset(self, tools: Any, images: Sequence[Objects], count: int) -> Any:
        """Return objects as COCO's tools want them; ids begin with 1, since 0 means that there is no match."""
        numbers = itertools.count(1)
        shapes = [dict(zip(("height", "width"), objects.size, strict=True)) for objects in images]
        annotations = [
            {"id": next(numbers), "image_id": place, **annotation}
            for place, objects in enumerate(images)
            for annotation in _annotations(objects)
        ]
        return tools.COCO(
            {
                "images": [{"id": place, **shape} for place, shape in enumerate(shapes)],
                "categories": [{"id": index, "name": str(index)} for index in range(count)],
                "annotations": annotations,
            }
        )


def _annotations(objects: Objects) -> Iterator[dict[str, Any]]:
    corners, labels = objects.boxes, objects.labels.tolist()
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    rows = zip(boxes, labels, objects.scores.tolist(), objects.crowd.tolist(), objects.area.tolist(), strict=True)
    for place, (box, label, score, crowd, area) in enumerate(rows):
        beside = {"segmentation": objects.masks[place]} if objects.masks else {}
        yield {"bbox": box, "category_id": label, "score": score, "iscrowd": int(crowd), "area": area, **beside}


def _mean(values: Array) -> float:
    real = values[values > -1]
    return float(real.mean()) if real.size else NAN


@define(kw_only=True, eq=False)
class VOCAveragePrecision(ObjectMetric):
    """PASCAL VOC's mean average precision of boxes, from 0 to 1, over all classes that occur; NaN where none does.

    In the order of their scores, found boxes are held against the true box of their class that they overlap most: they
    are right where that overlap is ``iou`` or more and no box before them had it. Those whose true box is a ``crowd``,
    which VOC calls difficult, do not count (Everingham et al. 2010).

    Args:
        iou: what two boxes must overlap by, as intersection over union.
        points: ``"all"`` for the area under the curve, as since 2010; ``"11"`` for the mean precision at recalls of 0,
            0.1, …, 1, as until 2009.
        name: what to call the score; ``voc_mAP`` where not given.
    """

    iou: float = field(default=0.5, validator=[gt(0), le(1)])
    points: Literal["all", "11"] = field(default="all", validator=in_(("all", "11")))
    name: str = field(default="voc_mAP", validator=and_(instance_of(str), min_len(1)))

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def compute(self) -> dict[str, float]:
        images = self.everything()
        labels = [objects.labels for image in images for objects in image]
        count = int(max((each.max() for each in labels if each.size), default=-1)) + 1
        values = [self._of_class(images, label) for label in range(count)]
        self.columns = {self.name: values} if count else {}
        real = [value for value in values if value == value]  # NaN differs from itself
        return {self.name: sum(real) / len(real) if real else NAN}

    def _of_class(self, images: Sequence[tuple[Objects, Objects]], label: int) -> float:
        """Return the average precision of one class; NaN if it does not occur."""
        scores, right, total = [], [], 0
        for true, found in images:
            mine, its = true.labels == label, found.labels == label
            total += int((mine & ~true.crowd).sum())
            order = np.argsort(-found.scores[its], kind="stable")
            scores.append(found.scores[its][order])
            right.append(self._outcomes(found.boxes[its][order], true.boxes[mine], true.crowd[mine]))
        if not total:
            return NAN
        every, outcomes = np.concatenate(scores), np.concatenate(right)
        outcomes = outcomes[np.argsort(-every, kind="stable")]
        outcomes = outcomes[outcomes >= 0]
        hits = np.cumsum(outcomes)
        recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
        return _area(recall, precision) if self.points == "all" else _eleven(recall, precision)

    def _outcomes(self, found: Array, true: Array, difficult: Array) -> Array:
        """Return for each found box 1 if it is right, 0 if it is wrong, -1 if it does not count."""
        overlaps = _overlaps(found, true)
        outcomes = np.zeros(len(found), dtype=np.int64)
        free = np.ones(len(true), dtype=bool)
        for place, row in enumerate(overlaps if len(true) else ()):
            best = int(row.argmax())
            if row[best] >= self.iou:
                outcomes[place] = -1 if difficult[best] else int(free[best])
                free[best] = False
        return outcomes


def _overlaps(one: Array, other: Array) -> Array:
    """Return the IoU (M, K) of boxes (M, 4) and (K, 4)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    shares: Array = both / np.maximum(areas[0][:, None] + areas[1] - both, 1e-12)
    return shares


def _area(recall: Array, precision: Array) -> float:
    """Return the area under the curve, each precision raised to the best that a larger recall has."""
    steps = np.diff(np.concatenate([[0.0], recall]))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((steps * best).sum())


def _eleven(recall: Array, precision: Array) -> float:
    """Return the mean, over recalls 0, 0.1, …, 1, of the best precision at that recall or a larger one."""
    best = [precision[recall >= tenth / 10 - 1e-9].max(initial=0.0) for tenth in range(11)]
    return float(np.mean(best))
