"""Whiten, by what the layer makes of the images it was worked out from."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_config, tiny_runner

from visreg.build import build_runner
from visreg.check import check_config
from visreg.config import config_from
from visreg.errors import ConfigError
from visreg.hooks.whiten import Whiten

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
        ("whitten", r"hooks\[0\]\.layer: 'whitten' is no Conv2d or Linear of the model; did you mean 'whiten'"),
        ("blocks.1.norm1", r"hooks\[0\]\.layer: 'blocks.1.norm1' is no Conv2d or Linear of the model"),
        ("head", r"hooks\[0\]\.layer: 'head' has 7 outputs; it takes an even number up to 16"),
        ("", r"hooks\[0\].*layer"),
    ],
)
def test_a_layer_that_cannot_be_whitened_is_a_mistake(layer, message):
    with pytest.raises(ConfigError, match=message):
        check_config(config_from(config([{"type": "Whiten", "layer": layer}])))


def test_a_linear_layer_sees_the_directions_that_vary_most():
    hook = Whiten(layer="0", eps=1e-9)
    runner = tiny_runner(hooks=[hook])
    hook.before_train(runner)
    layer = runner.task.model[0]  # of four inputs and six outputs
    batches = [batch["image"] for batch in runner.train_loader.epoch(0)]
    with torch.no_grad():
        made = (layer(torch.cat(batches)) - layer.bias).double()
    torch.testing.assert_close(made[:, 3:], -made[:, :3], rtol=0, atol=1e-5)
    expected = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(made[:, :3].T @ made[:, :3] / len(made), expected, rtol=0, atol=1e-4)
    assert layer.weight[:3].norm(dim=1).diff().min() > 0  # the less a direction varies, the larger its filter
