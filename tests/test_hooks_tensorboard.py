from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from tiny import Scripted, StopAt, TinyTask, at, snapshot, tiny_data, tiny_loader, tiny_runner

from visreg.errors import ConfigError
from visreg.hooks.tensorboard import TensorBoard

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class Flat(TinyTask):
    """Takes images (N, 1, 2, 2)."""

    def forward(self, batch):
        return super().forward({**batch, "image": batch["image"].flatten(1).float()})

    def predict(self, batch):
        return super().predict({"image": batch["image"].flatten(1).float()})


def run(work_dir, *hooks, state=None, **options):
    data = tiny_data()
    data["image"] = (data["image"] * 50).clamp(0, 255).to(torch.uint8).view(20, 1, 2, 2)
    loaders = {"train_loader": tiny_loader(True, data=data), "val_loader": tiny_loader(False, "digits", data=data)}
    runner = tiny_runner(work_dir, hooks, task=Flat, **loaders, **options)
    if state is not None:
        runner.load_state_dict(state)
    runner.train()
    return runner


def read(work_dir):
    accumulator = event_accumulator.EventAccumulator(str(work_dir / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def points(work_dir, tag):
    return [(event.step, event.value) for event in read(work_dir).Scalars(tag)]


def test_tensorboard_reads_scalars_images_and_the_config(tmp_path):
    losses = []
    watch = at(after_step=lambda runner: losses.append(float(runner.losses["loss"])))
    runner = run(tmp_path, TensorBoard(every=5), watch, config={"model": {"type": "Flat"}})
    tags = read(tmp_path).Tags()
    assert tags["scalars"] == ["train/loss", "lr", "val/digits/accuracy"]
    assert (tags["images"], tags["tensors"]) == (["train/images"], ["config/text_summary"])
    means = [sum(losses[:5]) / 5, sum(losses[5:]) / 5]
    assert points(tmp_path, "train/loss") == [(5, pytest.approx(means[0])), (10, pytest.approx(means[1]))]
    assert points(tmp_path, "lr") == [(5, pytest.approx(0.045)), (10, pytest.approx(0.018225))]
    assert points(tmp_path, "val/digits/accuracy")[-1] == (10, pytest.approx(runner.scores["accuracy"]))
    text = read(tmp_path).Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"type": "Flat"' in text


def test_so_many_images_are_shown_once(tmp_path):
    run(tmp_path, TensorBoard(images=3))
    (image,) = read(tmp_path).Images("train/images")
    assert (image.step, image.height, image.width) == (0, 2, 3 * 2)


def test_no_images_where_none_are_wanted_or_there_are_none(tmp_path):
    run(tmp_path / "a", TensorBoard(images=0))
    tiny_runner(tmp_path / "b", [TensorBoard()]).train()
    assert read(tmp_path / "a").Tags()["images"] == read(tmp_path / "b").Tags()["images"] == []


@pytest.mark.parametrize("step", [3, 5, 6])
def test_a_run_that_was_killed_and_resumed_shows_each_point_once(tmp_path, step):
    run(tmp_path / "whole", TensorBoard(every=2))
    states = []
    keep = at(between_steps=lambda runner: states.append(snapshot(runner)))
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "parts", TensorBoard(every=2), keep, StopAt(8, "crash"))
    run(tmp_path / "parts", TensorBoard(every=2), state=states[step - 1])
    for tag in ("train/loss", "lr", "val/digits/accuracy"):
        assert points(tmp_path / "parts", tag) == points(tmp_path / "whole", tag)


def test_a_fresh_run_does_not_mix_with_the_one_before(tmp_path):
    for _ in range(2):
        run(tmp_path, TensorBoard())
    assert len(points(tmp_path, "val/digits/accuracy")) == 2
    assert (tmp_path / "tensorboard.1").is_dir()


def test_nan_is_left_out(tmp_path):
    run(tmp_path, TensorBoard(), metrics=[Scripted(0.5, math.nan)])
    assert points(tmp_path, "val/digits/accuracy") == [(5, 0.5)]


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'run: pip install "visreg\[log\]"'):
        TensorBoard()
