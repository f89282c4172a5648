"""Whiten, by what the layer makes of the images it was worked out from."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_config

from visreg.build import build_runner
from visreg.check import check_config
from visreg.config import config_from
from visreg.errors import ConfigError

SCENES = {"type": "ShapeScenes", "size": 60, "image_size": 32, "targets": ["label"]}


def config(hooks, folder="unused", **model):
    return tiny_config(
        task={"type": "Classification", "mean": [0.5], "std": [0.25]},
        model={"type": "AirbenchNet", "num_classes": 7, "widths": [8], **model},
        train={"dataset": SCENES, "batch_size": 20},
        val={"dataset": SCENES, "batch_size": 20},
        hooks=hooks,
        run={"epochs": 1, "work_dir": str(folder)},
    )


def inputs(runner):
    return torch.cat([runner.task.inputs(batch) for batch in runner.train_loader.epoch(0)])


def before_training(runner):
    for hook in runner.hooks:
        hook.before_train(runner)
    return runner.task.model.whiten


@pytest.mark.parametrize("samples", [60, 50, 5000])
def test_what_the_layer_makes_is_uncorrelated_and_of_equal_size(samples, tmp_path):
    runner = build_runner(config([{"type": "Whiten", "layer": "whiten", "samples": samples, "eps": 1e-9}], tmp_path))
    bias = runner.task.model.whiten.bias.clone()
    layer = before_training(runner)
    assert torch.equal(layer.bias, bias)
    with torch.no_grad():
        made = layer(inputs(runner)[:samples]) - layer.bias.view(-1, 1, 1)
    values = made.transpose(0, 1).flatten(1).double()
    expected = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(values[:12] @ values[:12].T / values.shape[1], expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(values[12:], -values[:12], rtol=0, atol=1e-4)


def test_a_run_that_goes_on_keeps_the_layer(tmp_path):
    runner = build_runner(config([{"type": "Whiten", "layer": "model.whiten"}], tmp_path))
    runner.step = 1
    before = runner.task.model.whiten.weight.clone()
    assert torch.equal(before_training(runner).weight, before)
    runner.step = 0
    runner.task.train()
    assert not torch.equal(before_training(runner).weight, before)
    assert runner.task.training
    assert not runner.task.model.whiten._forward_pre_hooks


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("whitten", r"hooks\[0\]\.layer: 'whitten' is no Conv2d of the model; did you mean 'whiten'"),
        ("head", r"hooks\[0\]\.layer: 'head' is no Conv2d of the model"),
        ("blocks.1.conv1", r"is a layer of 8 channels for patches of 216 numbers, and needs 432"),
        ("", r"hooks\[0\].*layer"),
    ],
)
def test_a_layer_that_cannot_be_whitened_is_a_mistake(layer, message):
    with pytest.raises(ConfigError, match=message):
        check_config(config_from(config([{"type": "Whiten", "layer": layer}])))
