"""The config that is made to be quick, beside the same recipe written by hand in ``tools/benchmarks``."""

from __future__ import annotations

import copy
import importlib.util
import json

import pytest
import torch
from tiny import StopAt, assert_same, snapshot

from tests.conftest import ROOT
from visreg.build import build_runner
from visreg.config import load_config

CONFIG = ROOT / "configs" / "speed_cifar10.py"
FILE = ROOT / "tools" / "benchmarks" / "speed_cifar10.py"
SMALL = {"type": "ShapeScenes", "size": 96, "image_size": 32, "targets": ["label"]}  # an epoch of three batches


def small(folder, *changes):
    """Return a runner of the config with a small network on few scenes of shapes, in float32."""
    fixed = [
        f"train.dataset={SMALL}", f"val.dataset={SMALL}", "run.epochs=5", "run.eval_every=5", "train.batch_size=32",
        "model.widths=[8, 8]", "model.num_classes=7", "run.precision='fp32'", "run.compile=False",
        f"run.work_dir={str(folder)!r}", "run.device='cpu'", "default_hooks=[dict(type='MetricsLog', every=1)]",
    ]  # fmt: skip
    return build_runner(load_config(CONFIG, [*fixed, *changes]))


@pytest.fixture(scope="module")
def by_hand():
    spec = importlib.util.spec_from_file_location("speed_cifar10_by_hand", FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FILE.parent)
        spec.loader.exec_module(module)
    return module


def test_it_learns_what_the_loop_by_hand_learns(tmp_path, by_hand, monkeypatch):
    """From the same weights, in the same order and with the same augmentation."""
    monkeypatch.setattr(by_hand, "LR", 0.02)  # at the recipe's own, last bits grow too large within a few steps
    runner = small(tmp_path, "optimizer.lr=0.02")
    model = copy.deepcopy(runner.task.model)
    epochs = [
        [(by_hand.normalised(batch["image"]), batch["label"]) for batch in runner.train_loader.epoch(epoch)]
        for epoch in range(5)
    ]
    by_hand.whiten(model, torch.cat([image for image, _ in epochs[0]]))
    expected = by_hand.train(model, epochs, 15, "", torch.float32)
    runner.train()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses == pytest.approx(torch.stack(expected).tolist(), rel=1e-4)
    slow = runner.hooks[-2].average
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(slow[f"model.{name}"], value, rtol=1e-3, atol=1e-4, msg=name)
    held = runner.val_loader.tensors
    right = by_hand.predicted(model, by_hand.normalised(held["image"]), torch.float32) == held["label"]
    assert runner.scores["accuracy"] == pytest.approx(float(right.float().mean()))


def test_the_loop_by_hand_augments_as_it_should(by_hand):
    images = torch.arange(2048 * 3 * 32 * 32).view(2048, 3, 32, 32).float()
    batches = list(by_hand.augmented(images, torch.arange(2048)))
    assert [len(label) for _, label in batches] == [1024, 1024]
    shifts = set()
    for image, label in zip(*(torch.cat(parts) for parts in zip(*batches, strict=True)), strict=True):
        start = int(label) * 3 * 32 * 32
        row, column = divmod(int(image[0, 16, 16]) - start, 32)
        step = int(image[0, 16, 17] - image[0, 16, 16])
        shifts.add((row - 16, column - 16 if step == 1 else 15 - column, step))
        columns = column + step * torch.arange(-8, 8)
        assert torch.equal(image[:, 16, 8:24], images[label, :, row, columns])
    assert shifts == {(down, across, step) for down in range(-2, 3) for across in range(-2, 3) for step in (1, -1)}


def test_fewer_images_than_a_batch_are_refused(by_hand, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["speed_cifar10.py", "--images", "1023"])
    with pytest.raises(SystemExit):
        by_hand.main()
    assert "argument --images: a batch takes 1024, got 1023" in capsys.readouterr().err


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    whole, stopped, resumed = (small(tmp_path / name) for name in ("whole", "stopped", "resumed"))
    whole.train()
    stopped._callbacks["after_step"].append(StopAt(11).after_step)
    stopped.train()
    resumed.load_state_dict(snapshot(stopped))
    resumed.train()
    assert_same(resumed.task.state_dict(), whole.task.state_dict())
    assert resumed.scores == whole.scores
