"""Mistakes in a config for clips, each found before any data is read, and named once."""

import copy

import pytest

from tests.test_check import problems
from tests.test_dry_run_detection import changed

_DATA = {"dataset": {"type": "ShapeClips", "size": 20}, "batch_size": 4}
CLIPS = {
    "task": {"type": "Classification", "mean": [0.5, 0.5, 0.5], "std": [0.25]},
    "model": {"type": "VideoConvNet", "num_classes": 8, "width": 4},
    "loss": {"type": "CrossEntropyLoss"},
    "metrics": [{"type": "Accuracy"}],
    "optimizer": {"type": "SGD", "lr": 0.01},
    "train": _DATA,
    "val": copy.deepcopy(_DATA),
    "run": {"epochs": 1},
}
IMAGES = {"dataset": {"type": "ImageFolder", "root": "x", "size": 32, "classes": list("abcdefgh")}, "batch_size": 4}
FOLDER = {
    "dataset": {"type": "VideoFolder", "root": "x", "frames": 4, "classes": list("abcdefgh")},
    "batch_size": 4,
    "transforms": [{"type": "Resize", "size": [32, 32]}],
}
RIGHT = {
    "clips that are drawn": CLIPS,
    "a folder of videos": changed(CLIPS, train=FOLDER, val=FOLDER),
    "sizes that nobody knows": changed(CLIPS, train__dataset=FOLDER["dataset"]),
    **{
        f"{name}": changed(CLIPS, model={"type": name, "num_classes": 8})
        for name in ("r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t")
    },
}
MISTAKES = [
    ({"model": {"type": "resnet18", "num_classes": 8}}, "model.type", "resnet18 is for images, but the samples are cl"),
    ({"model": {"type": "vit_b_16", "num_classes": 8}}, "model.type", "take a model for clips, such as r3d_18"),
    ({"train": IMAGES, "val": IMAGES}, "model.type", "VideoConvNet is for clips, but the samples are images (C, H, W)"),
    (
        {"train": IMAGES, "val": IMAGES, "model": {"type": "s3d", "num_classes": 8}}, "model.type",
        "s3d is for clips, but the samples are images (C, H, W); take a model for images, such as resnet18",
    ),
    ({"model__num_classes": 7}, "model.num_classes", "the model has 7 outputs for the 8 classes of train.dataset"),
    ({"model__in_channels": 1}, "model.in_channels", "is 1, but the clips of train are (8, 3, 32, 32)"),
    ({"model": {"type": "s3d", "num_classes": 8}}, "model", "cannot take the clips (8, 3, 32, 32) of train"),
    ({"task__mean": [0.5, 0.5]}, "task.mean", "is for 2 channels, but the images have 3"),
    (
        {"task": {"type": "SemanticSegmentation"}, "model": {"type": "UNet", "in_channels": 3, "num_classes": 8}},
        "task", "needs 'image', but the samples of train.dataset have 'clip', 'label'",
    ),
    ({"train__transforms": [{"type": "RandomCrop", "size": 40}]}, "train.transforms[0]", "a blank (8, 3, 32, 32)"),
    ({"train__dataset__frames": 0}, "train.dataset.frames", "must be >= 1, got 0"),
]  # fmt: skip


@pytest.mark.parametrize("values", RIGHT.values(), ids=RIGHT)
def test_lets_right_configs_pass(values):
    assert problems(values) == []


@pytest.mark.parametrize(("changes", "path", "message"), MISTAKES)
def test_finds_a_mistake(changes, path, message):
    (found,) = problems(changed(CLIPS, **changes))
    assert found[0] == path
    assert message in found[1]
