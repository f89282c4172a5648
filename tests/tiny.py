"""The smallest run that has everything: batch norm, dropout, momentum, a schedule, twenty samples in five batches."""

from __future__ import annotations

import copy
import itertools
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from visreg.batching import Batching
from visreg.data import DataInfo
from visreg.hook import Hook
from visreg.loader import TensorLoader
from visreg.metric import Metric
from visreg.runner import Runner
from visreg.schedule import Schedule
from visreg.task import Task

STEPS = 5  # in an epoch


def tiny_config(**sections):
    """Return a config whose run takes moments; ``sections`` replace its own, and of a dict those keys only."""
    values = {
        "task": {"type": "Classification", "mean": [0.5], "std": [0.5]},
        "model": {"type": "MLP", "image_size": 16, "widths": [8]},
        "loss": {"type": "CrossEntropyLoss"},
        "metrics": [{"type": "Accuracy"}],
        "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9},
        "default_hooks": [],
        "train": {"dataset": {"type": "Digits", "train": False, "size": 16}, "batch_size": 100},
        "val": {"dataset": {"type": "Digits", "train": False, "size": 16}, "batch_size": 100},
        "run": {"epochs": 2, "device": "cpu", "work_dir": "unused"},
    }
    for name, section in sections.items():
        known = values.get(name)
        merge = isinstance(known, dict) and isinstance(section, dict) and "type" not in section
        values[name] = {**known, **section} if merge else section
    return values


class TinyTask(Task):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.25), nn.Linear(6, 3))

    def forward(self, batch):
        return {"loss": nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])}

    def predict(self, batch):
        return {"label": self.model(batch["image"]).argmax(1)}


class LinearTask(Task):
    """No randomness, and a loss whose gradient is easy to work out by hand."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(4, 3)

    def forward(self, batch):
        return {"loss": nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])}

    predict = TinyTask.predict


class Share(Metric):
    """The share of labels that are right."""

    def names(self):
        return ("accuracy",)

    def reset(self):
        self.right, self.seen = 0, 0

    def update(self, predictions, batch):
        self.right += int((predictions["label"] == batch["label"]).sum())
        self.seen += len(batch["label"])

    def compute(self):
        return {"accuracy": self.right / self.seen}


class Scripted(Metric):
    """Scores that are known beforehand."""

    def __init__(self, *scores):
        self.scores = itertools.chain(scores, itertools.repeat(scores[-1]))

    def names(self):
        return ("accuracy",)

    def reset(self): ...

    def update(self, predictions, batch): ...

    def compute(self):
        return {"accuracy": next(self.scores)}


class StopAt(Hook):
    """Ends the run at a step: as a signal does, as a crash does, or as EarlyStopping does."""

    def __init__(self, step, how="signal"):
        self.step, self.how = step, how

    def after_step(self, runner):
        if runner.step == self.step:
            if self.how == "crash":
                raise RuntimeError("killed")
            runner.should_stop = True
            runner.interrupted = 15 if self.how == "signal" else 0


def at(**functions):
    """Return a hook whose methods are the given functions of a runner."""
    methods = {name: (lambda self, runner, function=function: function(runner)) for name, function in functions.items()}
    return type("At", (Hook,), methods)()


def tiny_data(size=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(size, 4, generator=generator)
    return {"image": image, "label": (image[:, 0] > 0).long() + (image[:, 1] > 1).long()}


def tiny_loader(train, name="tiny", data=None, batch_size=4):
    data = data or tiny_data()
    batching = Batching(size=len(data["label"]), batch_size=batch_size, train=train, seed=7)
    return TensorLoader(info=DataInfo(name=name, classes=("a", "b", "c")), tensors=data, batching=batching)


def tiny_runner(work_dir=Path("unused"), hooks=(), *, epochs=2, task=TinyTask, metrics=None, **options):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    task = task() if isinstance(task, type) else task  # a class is made with the seed just set
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    options.setdefault(
        "schedule", Schedule(per_step=[StepLR(optimizer, 3, 0.9)], per_epoch=[StepLR(optimizer, 1, 0.5)])
    )
    options.setdefault("train_loader", tiny_loader(train=True))
    options.setdefault("val_loader", tiny_loader(train=False, name="tiny val"))
    options.setdefault("total_steps", epochs * STEPS)
    options.setdefault("eval_steps", STEPS)
    metrics = [Share()] if metrics is None else metrics
    return Runner(task=task, optimizer=optimizer, metrics=metrics, hooks=list(hooks), work_dir=work_dir, **options)


def snapshot(runner):
    """Return a copy of the runner's whole state."""
    return copy.deepcopy(runner.state_dict())


def assert_same(one, other, path="state"):
    """Assert that two states are equal, bit for bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), f"{path}: {one} != {other}"
    else:
        assert one == other or (one != one and other != other), f"{path}: {one} != {other}"


class Constant(nn.Module):
    """Returns what it was given at the start, and keeps the images it sees."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, image):
        self.seen = image
        return self.output
