"""Mistakes in a config for detection, each found before any data is read, and named once."""

import copy

import pytest
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from tests.test_check import problems

_DATA = {"dataset": {"type": "ShapeScenes", "size": 20, "image_size": 64}, "batch_size": 4}
YOLO = {
    "task": {"type": "Detection", "mean": [0.5]},
    "model": {"type": "YOLO", "num_classes": 7, "strides": [8, 16]},
    "loss": {"type": "YOLOLoss"},
    "metrics": [{"type": "MeanAveragePrecision"}],
    "optimizer": {"type": "SGD", "lr": 0.01},
    "train": _DATA,
    "val": _DATA,
    "run": {"epochs": 1},
}
RCNN = {
    **YOLO,
    "task": {"type": "Detection"},
    "model": {"type": "FasterRCNN", "num_classes": 7, "backbone": "csp_n", "channels": 8, "hidden": 8},
    "loss": None,
}
RESNET = {"type": "resnet18", "num_classes": 7}
ADOPTED = {"type": "fasterrcnn_mobilenet_v3_large_fpn", "num_classes": 8, "min_size": 64, "max_size": 64}
ENLARGING = {"type": "fasterrcnn_mobilenet_v3_large_fpn", "num_classes": 8}
MASKS = {**RCNN["model"], "type": "MaskRCNN"}


def changed(values, **changes):
    """Return a copy with some values replaced, by dotted path with ``__`` for the dot."""
    values = copy.deepcopy(values)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for key in parents:
            place = place[key]
        place[last] = value
    return values


MEANT = changed(RCNN, model={**ADOPTED, "min_size": 256, "max_size": 256})


@pytest.mark.parametrize(
    "values", [YOLO, RCNN, changed(RCNN, model=ADOPTED), MEANT], ids=["dense", "own", "adopted", "enlarging"]
)
def test_lets_right_configs_pass(values):
    assert problems(values) == []


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        (
            changed(YOLO, model__num_classes=3),
            "model.num_classes",
            "is for 3 classes, and there are 7 classes of train",
        ),
        (
            changed(RCNN, model__num_classes=8),
            "model.num_classes",
            "is for 8 classes, and there are 7 classes of train",
        ),
        (
            changed(RCNN, model={**ADOPTED, "num_classes": 7}),
            "model.num_classes",
            "set num_classes=8 for the 7 classes",
        ),
        (changed(RCNN, model=ENLARGING), "model.min_size", "64×64 12.5 times"),
        (changed(YOLO, loss=None), "loss", "missing; YOLO computes none itself"),
        (changed(RCNN, loss={"type": "YOLOLoss"}), "loss", "FasterRCNN computes its own losses; remove it"),
        (changed(RCNN, task__mean=[0.5]), "task.mean", "set model.image_mean"),
        (changed(YOLO, model=RESNET), "model", "a dict with 'logits' and 'boxes'"),
        (changed(YOLO, model=RESNET, loss=None), "model", "a dict with 'logits' and 'boxes'"),
        (changed(YOLO, model=RESNET), "model", "got shape (3, 7); the task of such a model is Classification"),
        (
            changed(YOLO, model={"type": "fcn_resnet50"}),
            "model",
            "a dict of 'out'; the task of such a model is Semantic",
        ),
        (changed(YOLO, task={"type": "Classification"}), "task", "label"),
        (
            changed(RCNN, task={"type": "Classification"}, loss={"type": "CrossEntropyLoss"}),
            "model",
            "the task of such a model is Detection",
        ),
        (changed(YOLO, loss={"type": "CrossEntropyLoss"}), "loss", "a loss of dense detectors takes, such as YOLOLoss"),
        (changed(YOLO, metrics=[{"type": "MeanAveragePrecision", "of": "masks"}]), "metrics[0]", "have no 'masks'"),
        (changed(YOLO, metrics=[{"type": "Accuracy"}]), "metrics[0]", "no 'label'"),
        (changed(RCNN, model=MASKS), "task", "the samples have no 'masks'"),
        (changed(YOLO, train__dataset__image_size=72), "model", "must divide by the stride 16"),
        (changed(YOLO, model__strides=[8, 32]), "model.strides", "two powers of two in a row"),
        (changed(RCNN, model__backbone="csp_q"), "model.backbone", "did you mean 'csp_"),
    ],
)
def test_finds_a_mistake(values, path, message):
    found = problems(values)
    assert len(found) == 1, found
    assert found[0][0] == path
    assert message in found[0][1]


def test_data_of_unknown_size_is_guessed_with_objects():
    folder = {"type": "YOLOFolder", "root": "nowhere", "classes": list("abcdefg")}
    section = {"dataset": folder, "batch_size": 4, "transforms": [{"type": "Resize", "size": [64, 64]}]}
    assert problems(changed(YOLO, train=section, val=section)) == []
    wrong = problems(changed(YOLO, train=section, val=section, model__num_classes=3))
    assert [path for path, _ in wrong] == ["model.num_classes"]


@pytest.mark.parametrize("size", [(800, 1333), (1024, 1024)])
def test_detectors_that_compute_their_own_losses_are_tried_on_small_images(size, monkeypatch):
    seen = []
    resize = GeneralizedRCNNTransform.resize

    def noted(self, image, target=None):
        resized = resize(self, image, target)
        seen.extend([] if image.is_meta else [resized[0].shape[-2:]])
        return resized

    monkeypatch.setattr(GeneralizedRCNNTransform, "resize", noted)
    large = {**_DATA, "transforms": [{"type": "Resize", "size": [800, 1000]}]}
    model = {**ADOPTED, "min_size": size[0], "max_size": size[1]}
    assert problems(changed(RCNN, model=model, train=large, val=large)) == []
    assert len(seen) == 2, "one image of each section"
    assert max(map(max, seen)) < 250
    wrong = changed(RCNN, model={**model, "num_classes": 3}, train=large, val=large)
    assert [path for path, _ in problems(wrong)] == ["model.num_classes"]
