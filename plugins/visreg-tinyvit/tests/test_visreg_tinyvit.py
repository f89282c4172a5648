"""What a plugin should be sure of: its names are found, its parts work alone, and its example trains."""

from pathlib import Path

import pytest
import torch
from visreg_tinyvit.hook import LogGradNorm
from visreg_tinyvit.model import TinyViT

import visreg

EXAMPLE = Path(__file__).parent.parent / "examples" / "tiny_vit_digits.py"


def test_visreg_finds_it_by_name():
    assert visreg.MODELS.get("TinyViT") is TinyViT
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


def test_example_has_no_mistakes():
    visreg.check_config(visreg.load_config(EXAMPLE))


def test_example_trains(tmp_path, caplog):
    caplog.set_level("INFO", logger="visreg")
    flags = ["run.epochs=None", "run.steps=2", "run.device=cpu", f"run.work_dir={tmp_path}", "hooks.0.every=1"]
    runner = visreg.build_runner(visreg.load_config(EXAMPLE, flags))
    runner.train()
    assert runner.step == 2
    assert 0 <= runner.scores["accuracy"] <= 1
    assert "step 1: gradient norm" in caplog.text
