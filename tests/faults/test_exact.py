"""A run that was killed anywhere and resumed ends, bit for bit, as one that was not.

Every recipe trains 24 steps. A life of a run is a runner that is built from the config and trains until it is killed;
the next life is another runner, which has nothing but what the first left on the disk. The quick part kills every
recipe at a few places, ``pytest -m slow`` at every place of every step.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from pathlib import Path

import numpy
import pytest
import torch
from attrs import define, field
from tiny import assert_same, snapshot
from torch import nn

from visreg.build import build_runner
from visreg.checkpoint import resume
from visreg.data import DataInfo, Dataset
from visreg.hook import Hook
from visreg.registry import DATASETS, HOOKS, MODELS, TRANSFORMS
from visreg.resume import check_config

STEPS, SIZE, BATCH = 24, 22, 4  # six batches an epoch, the last of two
EVENTS = ("before_step", "after_backward", "after_step", "between_steps")
READS: list[int] = []  # of which samples, in this process
COUNTS: Counter[str] = Counter()


class KilledError(Exception):
    """The end of a life."""


@define(kw_only=True, eq=False)
class Spots(Dataset):
    """Noise of three classes, of which the first has half of the samples."""

    memory: bool = True

    @property
    def info(self):
        blank = {"image": torch.zeros(1, 8, 8, dtype=torch.uint8), "label": torch.tensor(0)}
        return DataInfo(name="spots", classes=("a", "b", "c"), sample=blank)

    def open(self):
        generator = torch.Generator().manual_seed(3)
        self._held = {
            "image": torch.randint(0, 256, (SIZE, 1, 8, 8), dtype=torch.uint8, generator=generator),
            "label": (torch.arange(SIZE) % 4 - 1).clamp(min=0),
        }

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        READS.append(index)
        return {name: tensor[index] for name, tensor in self._held.items()}

    def tensors(self):
        return self._held if self.memory else None

    _held: dict = field(factory=dict, init=False, repr=False)


class SpotNet(nn.Module):
    """Batch norm and dropout."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, num_classes)
        )

    def forward(self, image):
        return self.net(image)


class Jitter:
    """Draws from torch, numpy and Python."""

    def __call__(self, batch):
        factor = 0.5 + (float(torch.rand(())) + float(numpy.random.rand()) + random.random()) / 6
        return {**batch, "image": (batch["image"] * factor).to(torch.uint8)}


@define(kw_only=True, eq=False)
class Seen(Hook):
    """Notes which samples each step saw, and what became of them."""

    log: dict = field(factory=dict, init=False, repr=False)

    def after_step(self, runner):
        self.log[runner.step] = (runner.batch["index"].tolist(), float(runner.batch["image"].double().sum()))


@define(kw_only=True, eq=False)
class Kill(Hook):
    """Ends the life at an event of a step, counted from 1."""

    step: int = 0
    event: str = ""

    def _strike(self, runner, event, step):
        if (event, step) == (self.event, self.step):
            raise KilledError

    def before_step(self, runner):
        self._strike(runner, "before_step", runner.step + 1)

    def after_backward(self, runner):
        self._strike(runner, "after_backward", runner.step + 1)

    def after_step(self, runner):
        self._strike(runner, "after_step", runner.step)

    def between_steps(self, runner):
        self._strike(runner, "between_steps", runner.step)


def data(**options):
    return {"batch_size": BATCH, **options}


def stepwise(**options):
    return {"train": data(dataset={"type": "Spots", "memory": False}, transforms=[{"type": "Jitter"}], **options)}


def sampled(name, **options):
    return {"train": data(sampler={"type": name, **options})}


MIX = [
    {"type": "ToDtype", "dtype": "float32", "scale": True},
    {"type": "RandomChoice", "transforms": [{"type": name, "num_classes": 3} for name in ("MixUp", "CutMix")]},
]
AUGMENTED = [
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomCrop", "size": 8, "padding": 1},
    {"type": "RandomErasing"},
    {"type": "ColorJitter", "brightness": 0.5},
]
ADAM = {"type": "AdamW", "lr": 0.01}
RECIPES = {
    "plain": {},
    "random batch_transforms": {"train": data(batch_transforms=[{"type": "Jitter"}])},
    "MixUp and CutMix": {"train": data(batch_transforms=MIX)},
    "random transforms": stepwise(),
    "transforms computed for batches": {"train": data(transforms=AUGMENTED, batch_transforms=MIX[1:])},
    "the same one by one": {
        "train": data(dataset={"type": "Spots", "memory": False}, transforms=AUGMENTED, batch_transforms=MIX[1:])
    },
    "accumulate": {"run": {"accumulate": 3}},
    "warm-up": {"schedule": {"type": "Cosine", "warmup_steps": 5}},
    "OneCycleLR": {"schedule": {"type": "OneCycleLR", "max_lr": 0.1}, "optimizer": ADAM},
    "ReduceLROnPlateau": {
        "schedule": [
            {"type": "Constant", "warmup_steps": 3},
            {"type": "ReduceLROnPlateau", "monitor": "accuracy", "mode": "max", "patience": 0},
        ],
        "run": {"epochs": None, "steps": STEPS, "eval_every": 2},
    },
    "schedules by epoch": {"schedule": [{"type": "StepLR", "step_size": 1}, {"type": "Constant", "warmup_steps": 9}]},
    "EMA and EarlyStopping": {
        "hooks": [
            {"type": "EMA"},
            {"type": "EarlyStopping", "monitor": "accuracy", "patience": 99},
            {"type": "ClipGrad", "max_norm": 1.0},
        ]
    },
    "bf16": {"run": {"precision": "bf16"}},
    "fp16": {"run": {"precision": "fp16"}, "optimizer": ADAM},
    "weighted": sampled("WeightedRandomSampler", num_samples=23),
    "class-aware": sampled("ClassAwareSampler"),
    "infinite": sampled("InfiniteSampler"),
    "repeated": {**stepwise(sampler={"type": "RepeatAugSampler", "num_repeats": 2})},
    "evaluation within an epoch": {"run": {"epochs": None, "steps": STEPS, "eval_every": 4}},
    "steps that end within an epoch": {"run": {"epochs": None, "steps": STEPS - 2, "eval_every": 7}},
    "drop_last and Adam": {
        "train": data(drop_last=True), "optimizer": {"type": "Adam", "amsgrad": True},
        "run": {"epochs": None, "steps": STEPS, "eval_every": 5},
    },
}  # fmt: skip
HOOKS_WITH_STATE = [{"type": "MetricsLog", "every": 5}, {"type": "Seen"}]


def config(name, work_dir, workers=0, kill=(0, ""), **run):
    """Return the config of a recipe, whose hooks save after every step and kill at ``kill``."""
    values = {
        "task": {"type": "Classification", "mean": [0.5], "std": [0.5]},
        "model": {"type": "SpotNet"},
        "loss": {"type": "CrossEntropyLoss"},
        "metrics": [{"type": "Accuracy"}],
        "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9},
        "default_hooks": [],
        "val": {"dataset": {"type": "Spots"}, "batch_size": 8},
        **RECIPES[name],
    }
    values["train"] = {"dataset": {"type": "Spots"}, "workers": workers, **(values.get("train") or data())}
    length = {"epochs": None, "steps": STEPS, "eval_every": 6} if "sampler" in values["train"] else {"epochs": 4}
    values["run"] = {**length, "device": "cpu", "work_dir": str(work_dir), **values.get("run", {}), **run}
    last = [{"type": "Kill", "step": kill[0], "event": kill[1]}, {"type": "Checkpoint", "every_steps": 1, "keep": 3}]
    values["hooks"] = [*values.get("hooks", []), *HOOKS_WITH_STATE, *last]
    return values


def life(name, work_dir, seen, **options):
    """Build a runner, resume what is there, and train; return the runner, or None if it was killed."""
    runner = build_runner(config(name, work_dir, **options))
    random.seed(0)  # as the command line does
    numpy.random.seed(0)
    next(hook for hook in runner.hooks if isinstance(hook, Seen)).log = seen
    state = resume(work_dir / "checkpoints")
    if state is not None:
        runner.load_state_dict(state)
    READS.clear()
    try:
        runner.train()
    except KilledError:
        return None
    return runner


@pytest.fixture(autouse=True)
def components():
    for registry, factory in ((DATASETS, Spots), (MODELS, SpotNet), (TRANSFORMS, Jitter), (HOOKS, Seen), (HOOKS, Kill)):
        registry.register(factory)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return what an uninterrupted run of a recipe ends with."""
    ended = {}

    def of(name):
        if name not in ended:
            folder, seen = tmp_path_factory.mktemp("whole"), {}
            runner = life(name, folder, seen)
            ended[name] = snapshot(runner), (folder / "metrics.jsonl").read_text(), seen
        return ended[name]

    return of


@pytest.fixture(scope="module", autouse=True)
def counted(request):
    yield
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nexact resume: {COUNTS['survived']}/{COUNTS['injected']} kills survived, bit for bit")


def check(name, whole, folder, kills, workers=(0,)):
    """Kill a run again and again, and compare how it ends."""
    COUNTS["injected"] += len(kills)
    seen, workers = {}, itertools.cycle(workers)
    for kill in kills:
        assert life(name, folder, seen, kill=kill, workers=next(workers)) is None, "it was to be killed"
    torch.manual_seed(99)
    runner = life(name, folder, seen, workers=next(workers))
    state, rows, log = whole
    found = snapshot(runner)
    for key in ("config", "environment"):
        del found[key]
    assert_same(found, {key: value for key, value in state.items() if key in found})
    assert (folder / "metrics.jsonl").read_text() == rows
    assert seen == log
    COUNTS["survived"] += len(kills)


def places(name):
    """Return three kills of a recipe, others for each, so that together they cover the run."""
    draw = random.Random(name)
    return [(step, draw.choice(EVENTS)) for step in sorted(draw.sample(range(1, STEPS - 2), 3))]


@pytest.mark.parametrize("name", RECIPES)
def test_killed_three_times(name, whole, tmp_path):
    check(name, whole(name), tmp_path, places(name))


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, STEPS - 1))
@pytest.mark.parametrize("name", RECIPES)
def test_killed_at_every_place(name, step, whole, tmp_path):
    for event in EVENTS:
        check(name, whole(name), tmp_path / event, [(step, event)])


LIVES = [(0, 2), (1, 0)]
MORE_LIVES = [*itertools.product((0, 1, 2, 4), repeat=2)]


@pytest.mark.parametrize("workers", LIVES, ids=str)
@pytest.mark.parametrize("name", ["random transforms"])
def test_killed_and_given_other_workers(name, workers, whole, tmp_path):
    check(name, whole(name), tmp_path, [(9, "after_step")], workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", MORE_LIVES, ids=str)
@pytest.mark.parametrize("name", ["random transforms", "repeated"])
@pytest.mark.parametrize("step", [1, 5, 6, 7, 13])
def test_killed_anywhere_and_given_other_workers(name, step, workers, whole, tmp_path):
    check(name, whole(name), tmp_path, [(step, "after_step"), (step + 6, "before_step")], workers)


@pytest.mark.parametrize("name", ["random transforms", "repeated"])
def test_seeking_reads_nothing_of_earlier_batches(name, whole, tmp_path):
    seen, batches = {}, whole(name)[2]  # which reads, too
    life(name, tmp_path, seen, kill=(10, "between_steps"))
    life(name, tmp_path, seen)
    wanted = [batches[step][0] for step in range(10, STEPS + 1)]
    assert list(itertools.chain(*wanted)) == READS


def test_held_in_memory_or_read_one_by_one_gives_the_same(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "one by one", {"train": data(dataset={"type": "Spots", "memory": False})})
    check("one by one", whole("plain"), tmp_path, [(9, "after_step")])


def test_transforms_of_batches_and_of_samples_end_the_same(whole):
    one, other = whole("transforms computed for batches"), whole("the same one by one")
    assert_same(other[0]["task"], one[0]["task"])
    assert other[1:] == one[1:]


def test_in_memory_may_change_between_two_lives(whole, tmp_path, monkeypatch):
    seen = {}
    assert life("plain", tmp_path, seen, kill=(9, "after_step")) is None
    monkeypatch.setitem(RECIPES, "one by one", {"train": data(in_memory=False)})
    runner = life("one by one", tmp_path, seen)
    assert_same(snapshot(runner)["task"], whole("plain")[0]["task"])
    assert seen == whole("plain")[2]


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch):
    draw = random.Random(0)
    monkeypatch.setattr("time.time", lambda: draw.choice((0.0, 86_400.0, 4e9)))
    monkeypatch.setattr("time.time_ns", lambda: draw.choice((0, 86_400_000_000_000)))
    check("plain", whole("plain"), tmp_path, [(9, "after_step"), (9, "between_steps"), (17, "before_step")])
    for number, path in enumerate(sorted(Path(tmp_path, "checkpoints").glob("step_*.pt"))):
        os.utime(path, (1e9 - number, 1e9 - number))  # the newest is the oldest
    assert resume(tmp_path / "checkpoints")["step"] == STEPS


def test_every_augmentation_is_another(whole):
    """Of one sample in every epoch, and of every repetition within one."""
    for name, times in (("random transforms", 1), ("repeated", 2)):
        runner = build_runner(config(name, Path("unused")))
        images: dict[int, list] = {}
        for batch in itertools.chain(*(runner.train_loader.epoch(epoch) for epoch in range(3))):
            for index, image in zip(batch["index"].tolist(), batch["image"], strict=True):
                images.setdefault(index, []).append(image.sum().item())
        assert set(map(len, images.values())) == {3 * times}
        assert sum(len(set(sums)) < len(sums) for sums in images.values()) <= 1


def test_the_config_of_a_killed_run_is_no_change(tmp_path):
    life("plain", tmp_path, {}, kill=(3, "after_step"))
    check_config(resume(tmp_path / "checkpoints"), config("plain", tmp_path, kill=(3, "after_step")))
