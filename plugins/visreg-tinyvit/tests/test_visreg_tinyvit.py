"""What a plugin should be sure of: its names are found, its parts work alone, and its example trains."""

from pathlib import Path

import pytest
import torch
from visreg_tinyvit.hook import LogGradNorm
from visreg_tinyvit.metric import CountError
from visreg_tinyvit.model import TinyViT, TinyViTDetector

import visreg

EXAMPLES = Path(__file__).parent.parent / "examples"
DIGITS, SHAPES = EXAMPLES / "tiny_vit_digits.py", EXAMPLES / "tiny_vit_shapes.py"


def test_visreg_finds_it_by_name():
    assert visreg.MODELS.get("TinyViT") is TinyViT
    assert visreg.MODELS.get("TinyViTDetector") is TinyViTDetector
    assert visreg.METRICS.get("CountError") is CountError
    assert visreg.HOOKS.get("LogGradNorm") is LogGradNorm


@pytest.mark.parametrize(("image_size", "patch_size"), [(28, 7), (32, 8)])
def test_model_gives_logits_and_every_parameter_learns(image_size, patch_size):
    model = TinyViT(image_size=image_size, patch_size=patch_size, in_channels=3, num_classes=5)
    logits = model(torch.rand(2, 3, image_size, image_size))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("options", [dict(image_size=30), dict(image_size=28, heads=3), dict(image_size=0)])
def test_model_refuses_sizes_that_do_not_divide(options):
    with pytest.raises(ValueError, match="must be a multiple of"):
        TinyViT(**options)


def test_detector_gives_a_box_around_each_patch_and_every_parameter_learns():
    model = TinyViTDetector(image_size=32, patch_size=8, num_classes=5)
    found = model(torch.rand(2, 3, 32, 32))
    assert found["logits"].shape == (2, 16, 5)
    boxes, points = found["boxes"], found["points"]
    assert ((boxes[..., :2] < points) & (points < boxes[..., 2:])).all()
    assert points[:2].tolist() == [[4, 4], [12, 4]]  # row by row
    (found["logits"].sum() + boxes.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_metric_counts_what_was_found_too_often_and_too_rarely():
    metric = CountError()
    metric.update({"scores": [torch.tensor([0.9, 0.5, 0.1]), torch.tensor([])]}, {"labels": [torch.zeros(1)] * 2})
    metric.update({"scores": [torch.tensor([0.9])]}, {"labels": [torch.zeros(4)]})
    assert metric.compute() == pytest.approx({"count_error": 5 / 3})
    metric.reset()
    assert torch.tensor(metric.compute()["count_error"]).isnan()


@pytest.mark.parametrize("example", [DIGITS, SHAPES])
def test_examples_have_no_mistakes(example):
    visreg.check_config(visreg.load_config(example))


def test_classifier_trains(tmp_path, caplog):
    caplog.set_level("INFO", logger="visreg")
    runner = trained(DIGITS, tmp_path, "hooks.0.every=1")
    assert 0 <= runner.scores["accuracy"] <= 1
    assert "step 1: gradient norm" in caplog.text


def test_detector_trains(tmp_path):
    runner = trained(SHAPES, tmp_path, "train.dataset.size=64", "val.dataset.size=10", "schedule.warmup_steps=1")
    assert runner.scores.keys() == {"voc_mAP", "count_error"}


def trained(example, folder, *flags):
    """Return a runner that took two steps on the CPU."""
    few = ["run.epochs=None", "run.steps=2", "run.device=cpu", f"run.work_dir={folder}", *flags]
    runner = visreg.build_runner(visreg.load_config(example, few))
    runner.train()
    assert runner.step == 2
    return runner
