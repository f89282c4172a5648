"""Average precision, held against pycocotools, a definition written out, and cases worked out by hand."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch

from visreg import dist
from visreg.errors import ConfigError, DataError
from visreg.metrics.average_precision import MeanAveragePrecision, VOCAveragePrecision

HEIGHT, WIDTH, CLASSES = 180, 240, 4
KINDS = [MeanAveragePrecision, lambda: MeanAveragePrecision(of="masks"), VOCAveragePrecision]
pytest.importorskip("faster_coco_eval")


def random_boxes(generator, count):
    """Return boxes whose sides differ a lot, so that some are small, some medium and some large."""
    low = torch.rand(count, 2, generator=generator) ** 2 * torch.tensor([WIDTH - 8.0, HEIGHT - 8.0])
    room = torch.tensor([float(WIDTH), float(HEIGHT)]) - low
    return torch.cat([low, low + 4 + (room - 4) * torch.rand(count, 2, generator=generator) ** 2], dim=1)


def as_masks(boxes):
    """Return the ellipses inside boxes."""
    y, x = torch.arange(HEIGHT)[:, None] + 0.5, torch.arange(WIDTH) + 0.5
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    across = (x - middle[:, :1, None]) / half[:, :1, None]
    down = (y - middle[:, 1:, None]) / half[:, 1:, None]
    return across**2 + down**2 <= 1


def random_case(seed, images=25):
    """Return batches of predictions and truth: most objects found roughly, some missed, some made up, some crowds."""
    generator = torch.Generator().manual_seed(seed)
    found, batches = [], []
    for index in range(images):
        count = int(torch.randint(0, 7, (), generator=generator)) if index else 0
        boxes = random_boxes(generator, count)
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        crowd = torch.rand(count, generator=generator) < 0.15
        shake = (torch.rand(count, 4, generator=generator) - 0.5) * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) * 0.25
        near = boxes + shake
        near = torch.cat([near[:, :2], torch.maximum(near[:, 2:], near[:, :2] + 2)], dim=1)
        kept = torch.rand(count, generator=generator) < 0.8
        guess = torch.cat([near.clamp(min=0)[kept], random_boxes(generator, 3)])
        kinds = torch.cat([labels[kept], torch.randint(0, CLASSES, (3,), generator=generator)])
        scores = torch.rand(len(guess), generator=generator)
        scores[-3:] *= 0.7
        found.append({"boxes": guess, "labels": kinds, "scores": scores, "masks": as_masks(guess)})
        truth = {"boxes": boxes, "labels": labels, "crowd": crowd, "masks": as_masks(boxes)}
        batches.append({"image": torch.zeros(3, HEIGHT, WIDTH), "index": index, **truth})
    return found, batches


def joined(found, truth):
    """Return samples as one batch."""
    predictions = {key: [each[key] for each in found] for key in found[0]}
    batch = {key: [each[key] for each in truth] for key in truth[0]}
    return predictions, {**batch, "image": torch.stack(batch["image"]), "index": torch.tensor(batch["index"])}


def fed(metric, found, truth, size=5):
    for start in range(0, len(found), size):
        metric.update(*joined(found[start : start + size], truth[start : start + size]))
    return metric


def by_pycocotools(found, truth, kind):
    """Return pycocotools' six numbers and its average precision of each class."""
    coco, cocoeval, mask = (
        pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval", "mask")
    )  # fmt: skip

    def boxes(values):
        return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in values["boxes"].double().tolist()]

    def lengths(values):
        return [mask.encode(np.asfortranarray(each.numpy().astype(np.uint8))) for each in values["masks"]]

    annotations, results = [], []
    for image, (guess, true) in enumerate(zip(found, truth, strict=True)):
        rows = zip(boxes(true), lengths(true), true["labels"].tolist(), true["crowd"].tolist(), strict=True)
        for box, shape, label, crowd in rows:
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "bbox": box, "segmentation": shape,
                "area": float(mask.area(shape)), "category_id": label, "iscrowd": int(crowd),
            })  # fmt: skip
        rows = zip(boxes(guess), lengths(guess), guess["labels"].tolist(), guess["scores"].tolist(), strict=True)
        for box, shape, label, score in rows:
            place = {"bbox": box} if kind == "bbox" else {"segmentation": shape}
            results.append({"image_id": image, "category_id": label, "score": score, **place})
    with contextlib.redirect_stdout(io.StringIO()):
        data = coco.COCO()
        data.dataset = {
            "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(len(truth))],
            "annotations": annotations, "categories": [{"id": label, "name": str(label)} for label in range(CLASSES)],
        }  # fmt: skip
        data.createIndex()
        evaluation = cocoeval.COCOeval(data, data.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    per_class = [float(each[each > -1].mean()) if (each > -1).any() else -1.0 for each in precision.transpose(2, 0, 1)]
    return [float(value) for value in evaluation.stats[:6]], per_class


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("of", ["boxes", "masks"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_is_that_of_pycocotools(of, seed):
    found, truth = random_case(seed)
    wanted, per_class = by_pycocotools(found, truth, "bbox" if of == "boxes" else "segm")
    metric = fed(MeanAveragePrecision(of=of), found, truth)
    scores = metric.compute()
    assert tuple(scores) == metric.names()
    assert list(scores.values()) == pytest.approx(wanted, abs=1e-12)
    assert -1 not in wanted  # there are objects of every size
    assert 0.1 < scores[metric.names()[0]] < 0.95  # neither all right nor all wrong, else the test would show nothing
    assert metric.per_class()[metric.names()[0]] == pytest.approx(per_class, abs=1e-12)


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def voc_by_definition(found, truth, label, iou=0.5, eleven=False):
    """Return the average precision of one class, as the development kit's text says, without any arrays."""
    guesses = sorted(
        (-float(score), image, box)
        for image, each in enumerate(found)
        for box, kind, score in zip(each["boxes"].tolist(), each["labels"], each["scores"], strict=True)
        if kind == label
    )
    left = {}
    for image, each in enumerate(truth):
        rows = zip(each["boxes"].tolist(), each["labels"], each["crowd"], strict=True)
        left[image] = [[box, bool(hard), False] for box, kind, hard in rows if kind == label]
    total = sum(not hard for objects in left.values() for _, hard, _ in objects)
    if not total:
        return float("nan")
    curve, right, wrong = [], 0, 0
    for _, image, box in guesses:
        best = max(left[image], key=lambda each: overlap(each[0], box), default=None)
        if best is None or overlap(best[0], box) < iou:
            wrong += 1
        elif best[1]:
            continue
        elif best[2]:
            wrong += 1
        else:
            best[2] = True
            right += 1
        curve.append((right / total, right / (right + wrong)))
    if eleven:
        levels = [max((p for r, p in curve if r >= tenth / 10 - 1e-9), default=0.0) for tenth in range(11)]
        return sum(levels) / 11
    area, before = 0.0, 0.0
    for place, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[place:])
        before = recall
    return area


@pytest.mark.parametrize("points", ["all", "11"])
@pytest.mark.parametrize("seed", range(4))
def test_vocs_is_as_defined(seed, points):
    found, truth = random_case(seed)
    metric = fed(VOCAveragePrecision(points=points), found, truth)
    wanted = [voc_by_definition(found, truth, label, eleven=points == "11") for label in range(CLASSES)]
    score = metric.compute()["voc_mAP"]
    assert metric.per_class()["voc_mAP"] == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    assert score == pytest.approx(float(np.nanmean(wanted)), abs=1e-12)
    assert 0.1 < score < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_depend_on_how_images_are_batched(kind):
    found, truth = random_case(7)
    wanted = fed(kind(), found, truth).compute()
    for size in (1, 25):
        metric = fed(kind(), found, truth, size)
        assert metric.compute() == wanted
    metric.reset()
    fed(metric, found[::-1], truth[::-1])
    assert metric.compute() == wanted


@pytest.mark.parametrize("shares", [(13, 12), (25, 0), (0, 25), (5, 0, 20)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_processes_together_give_the_scores_of_one(kind, shares, monkeypatch):
    found, truth = random_case(3)
    wanted = fed(kind(), found, truth).compute()
    starts = [sum(shares[:index]) for index in range(len(shares))]
    parts = [
        fed(kind(), found[start : start + share], truth[start : start + share])
        for start, share in zip(starts, shares, strict=True)
    ]
    everything = [metric.images for metric in parts]
    monkeypatch.setattr(dist, "gather", lambda value: everything)
    for metric in parts:
        assert metric.compute() == wanted


def one_image(boxes, labels, found, found_labels, scores):
    truth = {"image": torch.zeros(1, 3, 64, 64), "boxes": [torch.tensor(boxes).reshape(-1, 4)]}
    truth["labels"] = [torch.tensor(labels).long()]
    predictions = {"boxes": [torch.tensor(found).reshape(-1, 4)], "scores": [torch.tensor(scores)]}
    return predictions | {"labels": [torch.tensor(found_labels).long()]}, truth


@pytest.mark.parametrize("kind", [MeanAveragePrecision, VOCAveragePrecision])
def test_by_hand(kind):
    box, far = [4.0, 4.0, 34.0, 34.0], [40.0, 40.0, 60.0, 60.0]
    name = kind().names()[0]

    def score(*case):
        metric = kind()
        metric.update(*one_image(*case))
        return metric.compute()[name]

    assert score([box], [0], [box], [0], [0.9]) == pytest.approx(1.0)
    assert score([box], [0], [box], [1], [0.9]) == 0.0  # of another class
    assert score([box], [0], [far, box], [0, 0], [0.9, 0.8]) == pytest.approx(0.5)
    assert score([box], [0], [box, box], [0, 0], [0.9, 0.8]) == pytest.approx(1.0)  # the second comes too late to harm
    assert score([box, far], [0, 0], [box], [0], [0.9]) == pytest.approx(0.5, abs=0.01)
    assert score([box, far], [0, 1], [box], [0], [0.9]) == pytest.approx(0.5)
    assert score([box], [0], [], [], []) == 0.0
    assert math.isnan(score([], [], [box], [0], [0.9]))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_is_no_number(kind):
    metric = kind()
    assert list(metric.compute()) == list(metric.names())
    assert all(map(math.isnan, metric.compute().values()))
    assert metric.per_class() == {}


def test_a_flipped_box_shows():
    found, truth = random_case(1)
    right = fed(MeanAveragePrecision(), found, truth).compute()["mAP"]
    for each in found:
        each["boxes"] = (WIDTH - each["boxes"][:, [2, 1, 0, 3]]).where(torch.tensor([True, False] * 2), each["boxes"])
    assert fed(MeanAveragePrecision(), found, truth).compute()["mAP"] < right / 2


def test_area_that_is_given_decides_what_is_small():
    case = one_image([[0.0, 0.0, 40.0, 40.0]], [0], [[0.0, 0.0, 40.0, 40.0]], [0], [0.9])
    for area, name in ((None, "mAP_medium"), (900.0, "mAP_small")):
        metric = MeanAveragePrecision()
        metric.update(case[0], case[1] | ({} if area is None else {"area": [torch.tensor([area])]}))
        assert metric.compute()[name] == pytest.approx(1.0)


def test_names_can_be_told_apart():
    assert MeanAveragePrecision().names()[:2] == ("mAP", "mAP_50")
    assert MeanAveragePrecision(of="masks").names()[:2] == ("mask_mAP", "mask_mAP_50")
    assert MeanAveragePrecision(prefix="val_").names()[0] == "val_mAP"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_or_wrong_is_named(kind):
    predictions, batch = joined(*random_case(0, 3))
    for key in ("boxes", "scores"):
        with pytest.raises(DataError, match=f"the predictions have no '{key}'"):
            kind().update({name: value for name, value in predictions.items() if name != key}, batch)
    with pytest.raises(DataError, match="'scores' must be a list with one tensor for each image"):
        kind().update(predictions | {"scores": torch.zeros(3, 4)}, batch)
    batch["boxes"][1] = batch["boxes"][1] * 0
    with pytest.raises(DataError, match=r"sample 1: box .* has no area"):
        kind().update(predictions, batch)


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    with pytest.raises(ConfigError, match=r'pip install "visreg\[det\]"'):
        MeanAveragePrecision().update(*joined(*random_case(0, 3)))
