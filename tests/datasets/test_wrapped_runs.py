"""Runs on wrapped datasets: whatever reads the samples, and wherever it was stopped, the run is the same."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import StopAt, assert_same, snapshot, tiny_config

from visreg.build import build_runner
from visreg.check import check_config
from visreg.checkpoint import resume
from visreg.config import config_from
from visreg.errors import ConfigError, DataError

DIGITS = {"type": "Digits", "train": False, "size": 16}
FOLDS = {"type": "KFold", "dataset": DIGITS, "folds": 4, "stratify": True}
TRAINED = {**FOLDS, "part": "train"}
SCENES = {"type": "ShapeScenes", "size": 12, "image_size": 32, "targets": ["masks", "boxes", "mask"]}
MIXED = {"type": "Mosaic", "size": 32, "epochs": 2, "dataset": {"type": "CopyPaste", "dataset": SCENES}}


def digits(dataset, **train):
    return tiny_config(
        train={"dataset": dataset, "batch_size": 50, **train},
        val={"dataset": {**FOLDS, "part": "val"}},
        run={"epochs": 3},
    )


def scenes(dataset=MIXED, **train):
    return tiny_config(
        task={"type": "SemanticSegmentation"},
        model={"type": "UNet", "num_classes": 8, "width": 4, "depth": 2},
        metrics=[{"type": "PixelAccuracy"}],
        train={"dataset": {"type": "Repeat", "times": 2, "dataset": dataset}, "batch_size": 6, **train},
        val={"dataset": {**SCENES, "targets": ["mask"]}, "batch_size": 6},
        run={"epochs": 3},
    )


def made(config, work_dir):
    config = copy.deepcopy(config)
    config["run"]["work_dir"] = str(work_dir)
    return build_runner({**config, "hooks": [{"type": "Checkpoint", "every_steps": 1}]})


WRAPPED = [
    TRAINED,
    {"type": "ClassBalanced", "threshold": 0.3, "dataset": TRAINED},
    {
        "type": "Subset",
        "fraction": 0.5,
        "dataset": {"type": "Concat", "datasets": [TRAINED, {**DIGITS, "train": True}]},
    },
]


@pytest.mark.parametrize("dataset", WRAPPED, ids=lambda spec: spec["type"])
def test_in_memory_and_sample_by_sample_train_the_same(dataset, tmp_path, apart):
    whole = made(digits(dataset), tmp_path / "memory")
    single = made(digits(dataset, in_memory=False, sampler=None), tmp_path / "single")
    for runner in (whole, single):
        runner.train()
    assert type(whole.train_loader) is not type(single.train_loader)
    assert_same(snapshot(whole)["task"], snapshot(single)["task"])


def test_samplers_find_the_labels_of_what_is_wrapped(apart):
    config = digits({"type": "Repeat", "times": 2, "dataset": TRAINED}, sampler={"type": "ClassAwareSampler"})
    loader = build_runner(config).train_loader
    labels = torch.cat([batch["label"] for batch in loader.epoch(0)])
    assert labels.bincount().tolist() == pytest.approx([len(labels) / 10] * 10, abs=1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [3, 7])
def test_a_run_on_mosaics_that_was_killed_and_resumed_ends_as_one_that_was_not(workers, step, tmp_path, apart):
    whole = made(scenes(), tmp_path / "whole")
    whole.train()
    killed = made(scenes(workers=workers), tmp_path / "killed")
    killed._callbacks["after_step"].append(StopAt(step, "crash").after_step)
    with pytest.raises(RuntimeError, match="killed"):
        killed.train()
    again = made(scenes(workers=workers), tmp_path / "killed")
    again.load_state_dict(resume(tmp_path / "killed" / "checkpoints"))
    again.train()
    assert_same(snapshot(again)["task"], snapshot(whole)["task"])


def test_a_sample_that_is_seen_twice_is_mixed_twice_and_at_the_end_not_at_all(apart):
    batches = build_runner(scenes(shuffle=False)).train_loader
    first, second, last = (torch.cat([batch["image"] for batch in batches.epoch(epoch)]) for epoch in range(3))
    assert not any(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first[:12], first[12:], strict=True))
    pasted = sum(not torch.equal(*pair) for pair in zip(last[:12], last[12:], strict=True))
    assert 0 < pasted < 12  # CopyPaste goes on


def problems(config):
    with pytest.raises(ConfigError) as caught:
        check_config(config_from(config))
    return str(caught.value)


def test_what_cannot_be_is_found_without_data(apart):
    for change, message in (
        ({"fold": 4}, "train.dataset.fold: is 4, and the 4 folds are 0 to 3"),
        ({"part": "tain"}, "train.dataset.part: expected 'train' or 'val'"),
        ({"dataset": {**DIGITS, "tran": True}}, "train.dataset.dataset.tran: no such option; did you mean 'train'"),
        ({"dataset": None}, "train.dataset.dataset: expected"),
    ):
        assert message in problems(digits({**FOLDS, "part": "train", **change}))
    other = {"type": "ShapeScenes", "targets": ["label"], "image_size": 32}
    found = problems(digits({"type": "Concat", "datasets": [DIGITS, other]}))
    assert (
        "train.dataset.datasets: datasets[0], digits (scikit-learn, not MNIST), and datasets[1], ShapeScenes" in found
    )
    found = problems(scenes({"type": "Mosaic", "size": 40, "dataset": {**SCENES, "targets": ["label"]}}))
    assert "ShapeScenes has 'label', which Mosaic cannot mix" in found


def test_a_class_that_is_not_there_is_an_error_of_the_config(apart):
    found = problems(digits({"type": "Subset", "classes": ["seven"], "dataset": DIGITS}))
    assert "train.dataset.classes: digits (scikit-learn, not MNIST) has no class 'seven'" in found


def test_a_choice_inside_of_a_wrapper_must_be_that_of_the_other_split(apart):
    missing = {"type": "MNIST", "root": "nowhere", "download": False}
    choice = {"type": "FirstAvailable", "datasets": [missing, {**DIGITS, "size": 28}]}
    config = digits({"type": "Subset", "count": 60, "dataset": choice})
    config["model"]["image_size"] = 28
    config["val"]["dataset"] = {**DIGITS, "size": 28, "train": True}
    build_runner(config)
    config["val"]["dataset"] = {"type": "FakeData", "size": 30, "image_size": [1, 28, 28], "num_classes": 10}
    with pytest.raises(DataError, match=r"train.dataset: is digits .*, but val.dataset is FakeData"):
        build_runner(config)
