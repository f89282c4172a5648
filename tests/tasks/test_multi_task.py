"""Several tasks on one model: their losses, weights and predictions, and that nothing of them is lost."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import Constant, StopAt, assert_same, snapshot, tiny_config
from torch import nn

from visreg.build import build_runner
from visreg.checkpoint import load, newest, resume
from visreg.data import DataInfo
from visreg.errors import ConfigError
from visreg.evaluate import evaluate_checkpoint
from visreg.losses.overlap import DiceLoss
from visreg.losses.yolo import YOLOLoss
from visreg.models.multi_head import LinearHead, MultiHead
from visreg.models.unet import UNetEncoder, UNetHead
from visreg.models.yolo import YOLO
from visreg.registry import DATASETS
from visreg.task import Task
from visreg.tasks.classification import Classification
from visreg.tasks.detection import Detection
from visreg.tasks.multi_task import MultiTask
from visreg.tasks.segmentation import SemanticSegmentation

LOGITS = {
    "digit": torch.tensor([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0]]),
    "parity": torch.tensor([[0.5, -0.5], [0.0, 2.0]]),
}
BATCH = {
    "image": torch.full((2, 1, 4, 4), 51, dtype=torch.uint8),
    "label": torch.tensor([2, 1]),
    "parity": torch.tensor([0, 1]),
    "index": torch.arange(2),
}


def two_labels(output=LOGITS, weights=None, **options):
    model = Constant(output)
    tasks = {
        "digit": Classification(model, nn.CrossEntropyLoss()),
        "parity": Classification(model, nn.CrossEntropyLoss(label_smoothing=0.1), target="parity"),
    }
    return MultiTask(model, tasks, weights, **options)


def single(name):
    loss = nn.CrossEntropyLoss(label_smoothing=0.1 if name == "parity" else 0.0)
    return Classification(Constant(LOGITS[name]), loss, target="label" if name == "digit" else name)


def test_losses_and_predictions_are_those_of_each_task_alone():
    task = two_labels()
    assert task(BATCH) == {f"{name}/loss": single(name)(BATCH)["loss"] for name in LOGITS}
    for name, found in task.predict(BATCH).items():
        assert_same(found, single(name).predict(BATCH))
    assert list(task.predict(BATCH)["parity"]) == ["parity", "scores"]


def test_the_model_sees_each_batch_once_and_normalised_once():
    task = two_labels(mean=[0.1], std=[0.5])
    seen = []
    task.model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    task(BATCH)
    task.predict(BATCH)
    assert len(seen) == 2
    for image in seen:
        assert torch.allclose(image, torch.full_like(image, 0.2))


def test_fixed_weights_multiply_and_default_to_one():
    plain, weighted = two_labels()(BATCH), two_labels(weights={"parity": 0.25})(BATCH)
    assert weighted == {"digit/loss": plain["digit/loss"], "parity/loss": 0.25 * plain["parity/loss"]}


def test_learnt_weights_are_the_papers():
    """The sum is Σ exp(-s) L + s / 2, with s = log σ²; its gradient with respect to s is 1/2 - exp(-s) L."""
    task, plain = two_labels(weights="uncertainty"), two_labels()(BATCH)
    logs = {"digit": 0.7, "parity": -1.2}
    with torch.no_grad():
        for name, value in logs.items():
            task.log_variances[name].fill_(value)
    losses = task(BATCH)
    sum(losses.values()).backward()
    for name, value in logs.items():
        loss = plain[f"{name}/loss"].item()
        assert losses[f"{name}/loss"].item() == pytest.approx(math.exp(-value) * loss)
        assert losses[f"{name}/log_sigma"].item() == pytest.approx(value / 2)
        assert task.log_variances[name].grad.item() == pytest.approx(0.5 - math.exp(-value) * loss)


def test_learnt_weights_find_their_optimum():
    """Where the losses stand still, σ² comes to be twice the loss."""
    task = two_labels(weights="uncertainty")
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        sum(task(BATCH).values()).backward()
        optimizer.step()
    for name, loss in two_labels()(BATCH).items():
        variance = task.log_variances[name.partition("/")[0]].exp()
        assert variance.item() == pytest.approx(2 * loss.item(), rel=1e-3)


def test_nothing_of_a_batch_is_kept():
    task = two_labels(weights="uncertainty")
    before = list(task.state_dict())
    task(BATCH)
    assert list(task.state_dict()) == before
    assert [name for name, _ in task.named_parameters()] == ["log_variances.digit", "log_variances.parity"]
    copy.deepcopy(task)  # which a tensor that has a graph refuses


def test_heads_of_other_kinds(tmp_path):
    """A classifier, a segmenter and a detector on one backbone, each with its own loss and kind of prediction."""

    class Boxes(nn.Module):
        """A dense detector's head and neck, on features of strides 2, 4 and 8."""

        def __init__(self):
            super().__init__()
            self.whole = YOLO(7, in_channels=8, strides=[2, 4])

        def forward(self, features):
            return self.whole(features[0])

    torch.manual_seed(0)
    dataset = DATASETS.build({"type": "ShapeScenes", "size": 4, "targets": ["label", "boxes", "mask"]})
    samples = [dataset[index] for index in range(4)]
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    batch = {key: torch.stack(value) if key in ("image", "label", "mask") else value for key, value in batch.items()}
    batch["index"] = torch.arange(4)
    model = MultiHead(
        UNetEncoder(width=8, depth=2), {"scene": LinearHead(7), "pixels": UNetHead(8, width=8), "things": Boxes()}
    )
    task = MultiTask(
        model,
        {
            "scene": Classification(model, nn.CrossEntropyLoss()),
            "pixels": SemanticSegmentation(model, DiceLoss()),
            "things": Detection(model, YOLOLoss()),
        },
        "uncertainty",
    )
    losses = task(batch)
    assert {name.partition("/")[0] for name in losses} == {"scene", "pixels", "things"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    found = task.eval().predict(batch)
    assert {name: sorted(value) for name, value in found.items()} == {
        "scene": ["label", "scores"], "pixels": ["mask", "scores"], "things": ["boxes", "labels", "scores"]
    }  # fmt: skip
    assert found["pixels"]["mask"].shape == (4, 64, 64)
    assert task.mismatch(batch, dataset.info) is None


def test_any_task_can_be_one_of_several():
    class Mean(Task):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return {"far": (self.model(batch["image"]) - 1).square().mean(), "size": self.model(batch["image"]).sum()}

        def predict(self, batch):
            return {"value": self.model(batch["image"])}

    model = nn.ModuleDict({"a": nn.Flatten()})
    model.forward = lambda image: {"a": model["a"](image)}
    task = MultiTask(model, {"a": Mean(model)}, {"a": 2.0})
    assert list(task(BATCH)) == ["a/far", "a/size"]
    assert task(BATCH)["a/size"].item() == pytest.approx(2 * 0.2 * 32)
    assert task.predict(BATCH)["a"]["value"].shape == (2, 16)


@pytest.mark.parametrize(
    ("output", "path", "message"),
    [
        (LOGITS["digit"], "model", "must return a dict with an output for each task, got Tensor; use MultiHead"),
        ({"digit": LOGITS["digit"], "party": LOGITS["parity"]}, "task.tasks.parity", "did you mean 'party'"),
        ({**LOGITS, "extra": LOGITS["digit"]}, "model.heads.extra", "no task is for this output"),
        ({**LOGITS, "parity": torch.zeros(2, 2, 4, 4)}, "model.heads.parity", "head 'parity': the model must return"),
    ],
)
def test_outputs_that_do_not_fit_the_tasks(output, path, message):
    with pytest.raises(ConfigError, match=message) as caught:
        two_labels(output)(BATCH)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_every_head_that_does_not_fit_the_classes_is_named():
    info = DataInfo(name="numbers", classes=tuple("0123"), others={"parity": ("even", "odd", "neither")})
    with pytest.raises(ConfigError) as caught:
        two_labels().mismatch(BATCH, info)
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        ("model.heads.digit", "the model has 3 outputs for the 4 classes of numbers"),
        ("model.heads.parity", "the model has 2 outputs for the 3 classes of numbers"),
    ]
    assert two_labels().mismatch(BATCH, DataInfo(name="", classes=tuple("012"))) is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"pairty": 1.0}, "weights: there is no task 'pairty'; did you mean 'parity'"),
        ({"parity": -1.0}, "weights: that of parity must be 0 or more, and finite, got -1.0"),
        ({"parity": math.inf}, "must be 0 or more, and finite, got inf"),
    ],
)
def test_impossible_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        two_labels(weights=weights)


def test_a_task_that_would_normalise_again_is_refused():
    model = Constant(LOGITS)
    with pytest.raises(ConfigError, match=r"task\.tasks\.digit: of no use, since the model sees each image once"):
        MultiTask(model, {"digit": Classification(model, nn.CrossEntropyLoss(), mean=[0.5])})


# Whole runs


def config(tmp_path, **changes):
    """Return a config whose two heads learn the digit, and whether it is below five."""
    dataset = {
        "type": "Superclass",
        "dataset": {"type": "Digits", "train": False, "size": 16},
        "key": "group",
        "classes": {"low": list("01234"), "high": list("56789")},
    }
    loss = {"type": "CrossEntropyLoss"}
    values = tiny_config(
        task={
            "type": "MultiTask", "mean": [0.5], "std": [0.5], "weights": "uncertainty",
            "tasks": {
                "digit": {"type": "Classification", "loss": loss},
                "group": {"type": "Classification", "target": "group", "loss": loss},
            },
        },
        model={
            "type": "MultiHead", "backbone": {"type": "MLP", "image_size": 16, "widths": [32]},
            "heads": {
                "digit": {"type": "LinearHead", "num_classes": 10, "dropout": 0.1},
                "group": {"type": "LinearHead", "num_classes": 2},
            },
        },
        metrics=[
            {
                "type": "PerHead",
                "heads": {
                    "digit": [{"type": "Accuracy"}],
                    "group": [{"type": "Accuracy", "key": "group"}, {"type": "F1", "key": "group"}],
                },
            }
        ],
        optimizer={"type": "Adam", "lr": 0.01},
        train={"dataset": dataset, "batch_size": 32},
        val={"dataset": dataset, "batch_size": 100},
        run={"epochs": 3, "work_dir": str(tmp_path)},
    )  # fmt: skip
    del values["loss"]
    return {**values, **changes, "run": {**values["run"], **changes.get("run", {})}}


def test_both_heads_and_their_weights_are_learnt(tmp_path):
    runner = build_runner(config(tmp_path, run={"epochs": 12, "work_dir": str(tmp_path)}))
    runner.train()
    assert runner.scores["digit/accuracy"] > 0.9
    assert runner.scores["group/accuracy"] > 0.9
    for value in runner.task.log_variances.values():
        assert value.item() < -0.1
    assert runner.losses.keys() == {f"{name}/{key}" for name in ("digit", "group") for key in ("loss", "log_sigma")}


HOOKS = [
    {"type": "EMA", "decay": 0.9},
    {"type": "Freeze", "patterns": ["backbone"], "epochs": 1},
    {"type": "EarlyStopping", "monitor": "group/accuracy", "patience": 5},
    {"type": "Checkpoint", "every_steps": 5, "best": "group/accuracy"},
]
MORE = {
    "hooks": HOOKS,
    "optimizer": {"type": "AdamW", "lr": 0.01},
    "param_groups": {"no_decay": ["log_variances"], "lr_scale": {"model.backbone": 0.5}},
}


def test_a_run_that_was_killed_and_resumed_ends_as_one_that_was_not(tmp_path):
    whole = build_runner(config(tmp_path / "whole", **MORE))
    whole.train()
    killed = build_runner(config(tmp_path / "killed", **MORE))
    killed.hooks.append(StopAt(17, "crash"))
    killed.__attrs_post_init__()
    with pytest.raises(RuntimeError, match="killed"):
        killed.train()
    torch.manual_seed(99)
    again = build_runner(config(tmp_path / "killed", **MORE))
    state = resume(tmp_path / "killed" / "checkpoints")
    assert state["step"] == 15
    assert "log_variances.group" in state["task"]
    again.load_state_dict(state)
    again.train()
    one, other = snapshot(again), snapshot(whole)
    assert one.pop("config") != other.pop("config")  # the folder
    assert_same(one, other)
    assert one["class_names"]["group"] == ["low", "high"]


def test_a_checkpoint_is_evaluated_with_the_names_of_each_heads_classes(tmp_path):
    runner = build_runner(config(tmp_path, hooks=[{"type": "Checkpoint"}]))
    runner.train()
    found = evaluate_checkpoint(newest(tmp_path / "checkpoints")[0])
    assert found.scores == runner.scores
    assert [(table.classes, list(table.columns)) for table in found.per_class] == [(("low", "high"), ["group/f1"])]


PLAIN = {"type": "SGD", "lr": 0.05}  # others make steps of gradients that are nothing but rounding


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"compile": True}, {"precision": "bf16"}, {"accumulate": 2}])
def test_the_ways_to_run_it_agree(tmp_path, changes):
    runners = [
        build_runner(config(tmp_path, optimizer=PLAIN, run={"epochs": 1, "work_dir": str(tmp_path), **more}))
        for more in ({}, changes)
    ]
    for runner in runners:
        for module in runner.task.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        runner.train()
    for (name, one), other in zip(runners[0].task.named_parameters(), runners[1].task.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=2e-3, msg=name)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """Every parameter is used, the learnt weights agree, and the scores of the heads are those of all samples."""
    values = config(tmp_path / "one", hooks=[{"type": "Checkpoint"}], optimizer=PLAIN)
    values["model"]["heads"]["digit"]["dropout"] = 0.0
    values["train"]["drop_last"] = True  # or two processes would share a batch of three
    one = build_runner(values)
    one.train()
    values["run"]["work_dir"] = str(tmp_path / "two")
    (tmp_path / "two.json").write_text(json.dumps(values))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "visreg", "train", str(tmp_path / "two.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    state = load(newest(tmp_path / "two" / "checkpoints")[0])
    for name, value in one.task.state_dict().items():
        torch.testing.assert_close(state["task"][name], value, rtol=1e-3, atol=1e-3, msg=name)
    assert state["scores"] == pytest.approx(one.scores, abs=0.02)
