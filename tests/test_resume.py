"""Going on from a checkpoint: which changes are told, which are refused, and what comes of accepting them."""

from __future__ import annotations

import copy
import json
import logging
import random

import attrs
import numpy
import pytest
import torch
from tiny import STEPS, LinearTask, TinyTask, assert_same, snapshot, tiny_config, tiny_data, tiny_loader, tiny_runner
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from visreg.build import build_runner
from visreg.checkpoint import load, save
from visreg.cli import main
from visreg.config import dumps_json, loads_json
from visreg.data import DataInfo
from visreg.errors import CheckpointError
from visreg.misfit import check_classes
from visreg.registry import KINDS
from visreg.resume import BREAKING, HARMLESS, check_config, config_changes, environment, restore_environment
from visreg.schedule import Schedule
from visreg.schema import DataConfig, RunConfig, Schema


def changed(**sections):
    return [(str(change).split(":")[0], change.breaking) for change in config_changes(BASE, tiny_config(**sections))]


BASE = tiny_config()
HOOK = {"type": "EMA", "decay": 0.9}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, []),
        ({"run": {"seed": 0}, "train": {"workers": "auto", "shuffle": None}, "hooks": [], "loss": BASE["loss"]}, []),
        ({"optimizer": {**BASE["optimizer"], "lr": 0.1}}, [("optimizer.lr", True)]),
        ({"optimizer": {"type": "Adam", "lr": 0.05}}, [("optimizer.type", True), ("optimizer.momentum", True)]),
        ({"schedule": {"type": "StepLR", "step_size": 1}}, [("schedule", True)]),
        ({"model": {**BASE["model"], "widths": [9]}}, [("model.widths[0]", True)]),
        ({"param_groups": {"no_decay": ["bias"]}}, [("param_groups", True)]),
        ({"train": {"batch_size": 50}}, [("train.batch_size", True)]),
        ({"train": {"sampler": {"type": "InfiniteSampler"}}}, [("train.sampler", True)]),
        ({"train": {"dataset": {"type": "Digits"}}}, [("train.dataset.train", True), ("train.dataset.size", True)]),
        ({"train": {"dataset": {**BASE["train"]["dataset"], "root": "x"}}}, [("train.dataset.root", False)]),
        ({"train": {"workers": 2}}, [("train.workers", False)]),
        ({"train": {"cache": "ram"}}, [("train.cache", True)]),
        ({"train": {"draft": False}}, [("train.draft", True)]),
        ({"train": {"batch_transforms": [{"type": "Identity"}]}}, [("train.batch_transforms", True)]),
        ({"run": {"seed": 1}}, [("run.seed", True)]),
        ({"run": {"precision": "bf16"}}, [("run.precision", True)]),
        ({"run": {"accumulate": 2}}, [("run.accumulate", True)]),
        ({"run": {"deterministic": True}}, [("run.deterministic", True)]),
        ({"run": {"epochs": 9, "work_dir": "x"}}, [("run.epochs", False), ("run.work_dir", False)]),
        ({"val": {"batch_size": 7}}, [("val.batch_size", False)]),
        ({"metrics": [{"type": "F1"}]}, [("metrics[0].type", False)]),
        ({"hooks": [{"type": "Console"}, HOOK]}, [("hooks.EMA", True), ("hooks.Console", False)]),
        ({"hooks": [HOOK, HOOK]}, [("hooks.EMA", True), ("hooks.EMA#2", True)]),
        ({"run": {"no_such_option": 1}}, [("run.no_such_option", True)]),
        ({"no_such_section": 1}, [("no_such_section", True)]),
    ],
)  # fmt: skip
def test_changes_are_told_apart(sections, expected):
    assert changed(**sections) == expected
    new = tiny_config(**sections)
    assert config_changes(new, copy.deepcopy(new)) == []
    assert config_changes(loads_json(dumps_json(new)), new) == []


def test_every_option_of_training_has_a_line_that_says_what_it_decides():
    known = {*BREAKING, *HARMLESS}
    options = [("train", name) for name in attrs.fields_dict(DataConfig)]
    options += [("run", name) for name in attrs.fields_dict(RunConfig)]
    sections = [(name,) for name in attrs.fields_dict(Schema) if name not in ("default_hooks", "run", "train")]
    assert [path for path in options + sections if path not in known] == []
    assert not BREAKING.keys() & HARMLESS.keys()
    hooks = [path[1] for path in known if path[0] == "hooks" and len(path) > 1]
    assert set(hooks) <= set(KINDS["hooks"])


def test_hooks_are_compared_by_type_and_in_order():
    clip = {"type": "ClipGrad", "max_norm": 1.0}
    old = tiny_config(hooks=[HOOK, clip, {"type": "Console"}])
    assert config_changes(old, tiny_config(hooks=[{"type": "Console"}, HOOK, clip])) == []
    (change,) = config_changes(old, tiny_config(hooks=[clip, HOOK, {"type": "Console"}]))
    assert change.breaking
    assert "['EMA', 'ClipGrad'] → ['ClipGrad', 'EMA']" in str(change)


def test_what_a_schedule_waits_for_must_stay():
    schedule = [{"type": "ReduceLROnPlateau", "monitor": "accuracy"}]
    old = tiny_config(schedule=schedule)
    for sections in ({"val": {"batch_size": 3}}, {"run": {"eval_every": 2}}, {"metrics": [{"type": "F1"}]}):
        assert [change.breaking for change in config_changes(old, tiny_config(schedule=schedule, **sections))] == [True]


def test_where_samples_are_kept_makes_no_difference_and_is_shown():
    disk, ram = tiny_config(train={"cache": "disk"}), tiny_config(train={"cache": "ram"})
    assert config_changes(disk, ram) == []
    assert "train.cache: (not given) → 'ram' (" in str(config_changes(BASE, ram)[0])
    assert "train.cache: 'disk' → (not given) (" in str(config_changes(disk, BASE)[0])


def state_of(config, step=3):
    return {"config": dumps_json(config), "step": step}


def test_a_refusal_lists_what_breaks_first_and_at_most_twenty_lines():
    with pytest.raises(CheckpointError) as caught:
        check_config(state_of(BASE), tiny_config(optimizer={**BASE["optimizer"], "lr": 0.1}, run={"epochs": 5}))
    lines = str(caught.value).splitlines()
    assert lines[1] == "  optimizer.lr: 0.05 → 0.1 (how the weights are changed)"
    assert lines[2].startswith("  run.epochs: 2 → 5 (how long to train")
    assert "--resume-override" in lines[-1]
    many = tiny_config(model={"type": "MLP", **{f"option{number}": number for number in range(40)}})
    with pytest.raises(CheckpointError) as caught:
        check_config(state_of(BASE), many)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-2] == "  ... and 23 more"


def test_what_is_harmless_or_accepted_is_told(caplog):
    caplog.set_level(logging.INFO)
    check_config(state_of(BASE), BASE)
    assert caplog.text == ""
    check_config(state_of(BASE), tiny_config(run={"epochs": 5}))
    assert "run.epochs: 2 → 5" in caplog.text
    check_config(state_of(BASE), tiny_config(run={"seed": 5}), override=True)
    assert "run.seed: (not given) → 5" in caplog.text


# More, or other, steps than the run was to have


def one_cycle(runner, steps):
    return Schedule(per_step=[OneCycleLR(runner.optimizer, 0.5, total_steps=steps)])


def made(steps, lr=0.1, schedule=one_cycle, **options):
    runner = tiny_runner(total_steps=steps, schedule=Schedule(), **options)
    for group in runner.optimizer.param_groups:
        group["lr"] = lr
    if schedule is not None:
        runner.schedule = schedule(runner, steps)
    return runner


def rates(runner):
    group = runner.optimizer.param_groups[0]
    return {key: group[key] for key in ("lr", "momentum", "weight_decay")}


@pytest.mark.parametrize("longer", [2 * STEPS, 3 * STEPS + 2])
def test_a_finished_run_given_more_steps_has_the_schedule_of_the_new_length(longer, caplog):
    caplog.set_level(logging.INFO)
    finished = made(STEPS)
    finished.train()
    expected = made(longer)
    for _ in range(STEPS):
        expected.optimizer.step()
        expected.schedule.after_step()
    again = made(longer)
    again.load_state_dict(snapshot(finished))
    assert rates(again) == rates(expected)
    assert f"the schedule is that of {longer} steps, as it is after step {STEPS}" in caplog.text
    assert_same(snapshot(again)["task"], snapshot(finished)["task"])
    assert_same(snapshot(again)["optimizer"]["state"], snapshot(finished)["optimizer"]["state"])
    again.train()
    assert again.step == longer
    assert again.schedule.per_step[0].last_epoch == longer


@pytest.mark.parametrize("steps", [STEPS, STEPS - 1])
def test_a_finished_run_given_no_more_steps_takes_none(steps, caplog):
    finished = made(STEPS)
    finished.train()
    before = snapshot(finished)
    again = made(steps)
    again.load_state_dict(before)
    again.train()
    found = snapshot(again)
    assert found["train"].pop("total_steps") == steps
    del before["train"]["total_steps"]
    assert_same(found, before)


def test_the_same_length_is_no_replay(caplog):
    caplog.set_level(logging.INFO)
    state = snapshot(made(STEPS))
    made(STEPS).load_state_dict(state)
    made(2 * STEPS, schedule=None).load_state_dict(snapshot(made(STEPS, schedule=None)))
    assert "the schedule is that of" not in caplog.text


def test_accepted_options_of_the_optimizer_replace_those_of_the_checkpoint():
    half = made(4 * STEPS, lr=0.2)
    half.total_steps = STEPS
    half.train()
    half.total_steps = 4 * STEPS
    state = snapshot(half)
    again = made(4 * STEPS, lr=0.2, schedule=None)
    again.optimizer.param_groups[0]["weight_decay"] = 0.07
    again.schedule = one_cycle(again, 4 * STEPS)
    expected = copy.deepcopy(again.optimizer), again.total_steps
    again.load_state_dict(state, override=True)
    again_rates = rates(again)
    assert again_rates["weight_decay"] == 0.07
    assert again_rates["lr"] == rates(half)["lr"]
    assert_same(snapshot(again)["optimizer"]["state"], state["optimizer"]["state"])
    assert expected[0].state_dict()["state"] == {}
    constant = made(4 * STEPS, lr=0.3, schedule=None)
    constant.load_state_dict(state, override=True)
    assert rates(constant)["lr"] == 0.3
    constant.train()
    assert rates(constant)["lr"] == 0.3


def test_what_an_optimizer_keeps_in_its_groups_is_the_checkpoints():
    runner = made(STEPS)
    runner.train()
    runner.optimizer.param_groups[0]["own_count"] = 17
    again = made(2 * STEPS)
    again.load_state_dict(snapshot(runner), override=True)
    assert again.optimizer.param_groups[0]["own_count"] == 17


# Checkpoints of something else


def other_task():
    task = TinyTask()
    task.model[0] = nn.Linear(4, 7)
    task.model[1] = nn.BatchNorm1d(7)
    task.model[3] = nn.Linear(7, 3)
    return task


def with_optimizer(make):
    runner = tiny_runner(schedule=Schedule())
    runner.optimizer = make(runner.task)
    runner.train()
    return snapshot(runner)


def edited(**changes):
    state = snapshot(tiny_runner())
    for path, value in changes.items():
        *keys, last = path.split("__")
        place = state
        for key in keys:
            place = place[key]
        place[last] = value
    return state


def trained(**options):
    runner = tiny_runner(**options)
    runner.train()
    return snapshot(runner)


def two_groups(task):
    return torch.optim.SGD([{"params": [parameter]} for parameter in task.parameters()], lr=0.1)


def other_state():
    state = trained()
    state["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(3, 3)
    return state


FOREIGN = {
    "other layers": (lambda: trained(task=LinearTask), "another model"),
    "other widths": (lambda: trained(task=other_task()), r"model\.0\.bias: \(7,\) in the checkpoint, \(6,\)"),
    "other dtype": (lambda: edited(task=tiny_runner().task.double().state_dict()), "float64 in the checkpoint"),
    "other optimizer": (lambda: with_optimizer(lambda task: torch.optim.Adam(task.parameters())), "is Adam, and this"),
    "other groups": (lambda: with_optimizer(two_groups), r"groups of \[1, 1, 1, 1, 1, 1\] parameters"),
    "other state": (other_state, r"momentum_buffer of parameter 0: \(3, 3\) in the checkpoint, \(6, 4\)"),
    "other schedule": (lambda: edited(schedule=Schedule().state_dict()), "it is of none, and this is of StepLR"),
    "other size": (lambda: trained(train_loader=tiny_loader(True, data=tiny_data(24))), "samples: 24 → 20"),
    "other data": (lambda: trained(train_loader=tiny_loader(True, name="other")), "data: other → tiny"),
    "other classes": (lambda: edited(class_names__label=["a", "x", "c"]), "1: 'x' in the checkpoint, 'b' in the data"),
    "fewer classes": (lambda: edited(class_names__label=["a", "b"]), "2: no such class in the checkpoint, .c. in"),
    "not of a run": (lambda: {"visreg": "0.1.0", "task": {}}, "it lacks step, scores"),
    "other scaler": (lambda: {**snapshot(tiny_runner()), "scaler": {}}, "GradScaler"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_refused_in_a_few_lines(name):
    make, message = FOREIGN[name]
    runner = tiny_runner(precision="fp16" if name == "other scaler" else "fp32")
    with pytest.raises(CheckpointError, match=message) as caught:
        runner.load_state_dict(make())
    assert len(str(caught.value).splitlines()) <= 21


def test_other_data_can_be_accepted_but_not_other_classes():
    runner = tiny_runner(epochs=3)
    runner.load_state_dict(trained(train_loader=tiny_loader(True, data=tiny_data(24), name="other")), override=True)
    runner.train()
    assert runner.step == 3 * STEPS
    with pytest.raises(CheckpointError, match="the classes are not the checkpoint's"):
        runner.load_state_dict(edited(class_names={"label": ["b", "a", "c"]}), override=True)


def test_classes_that_differ_are_listed():
    def check(was, now):
        check_classes({"classes": list(was)}, DataInfo(name="letters", classes=tuple(now)))

    check([], ["a"])
    check(["a"], ())
    check(["a"], ("a",))
    with pytest.raises(CheckpointError) as caught:
        check([f"a{index}" for index in range(100)], [f"b{index}" for index in range(100)])
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[0] == "the classes are not the checkpoint's (100 there, 100 here):"
    assert lines[-1] == "  ... and 81 more"


# The machine


def test_the_environment_is_plain_and_the_number_of_threads_comes_back(caplog):
    caplog.set_level(logging.INFO)
    cpu = torch.device("cpu")
    here = environment(cpu)
    assert json.loads(json.dumps(here)) == here == snapshot(tiny_runner())["environment"]
    restore_environment(here, cpu)
    assert caplog.text == ""
    try:
        restore_environment({**here, "threads": 2, "torch": "1.0"}, cpu)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(here["threads"])
    assert "computing with 2 threads, as before, and not 1" in caplog.text
    assert (
        f"the last bits may differ from those of a run that was never stopped: torch 1.0 → {torch.__version__}"
        in caplog.text
    )


def test_another_number_of_processes_is_told(caplog):
    state = snapshot(tiny_runner())
    state["generators"] *= 2
    tiny_runner().load_state_dict(state)
    assert "1 processes go on from what 2 left" in caplog.text


# The command


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code


def newest(config):
    return max((config.parent / "work" / "checkpoints").glob("step_*.pt"))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("optimizer.lr=0.2", "optimizer.lr: 0.1 → 0.2"),
        ("run.seed=3", "run.seed"),
        ("train.batch_size=128", "train.batch_size: 256 → 128"),
        ('train.transforms=[{"type": "RandomInvert"}]', "train.transforms"),
        ('train.sampler={"type": "InfiniteSampler"}', "train.sampler"),
        ("run.precision='bf16'", "run.precision"),
        ('hooks=[{"type": "EMA"}]', "hooks.EMA"),
        ('schedule={"type": "Cosine"}', "schedule"),
    ],
)
def test_an_edited_config_is_refused_unless_told_otherwise(small, capsys, change, path):
    assert run("train", small, "--set", "run.epochs=1") == 0
    before, config = newest(small), (small.parent / "work" / "config.json").read_text()
    capsys.readouterr()
    assert run("train", small, "--resume", "--set", change) == 4
    error = capsys.readouterr().err
    assert path in error
    assert error.count("error:") == 1
    assert "Traceback" not in error
    assert newest(small) == before
    assert (small.parent / "work" / "config.json").read_text() == config
    assert run("train", small, "--resume-override", "--set", change) == 0
    assert path in capsys.readouterr().out
    state = load(newest(small))
    assert state["step"] > load_step(before)
    if path.startswith("optimizer.lr"):
        assert state["optimizer"]["param_groups"][0]["lr"] == 0.2


def load_step(path):
    return int(path.stem.removeprefix("step_"))


def test_harmless_edits_are_told_and_change_nothing(small, capsys):
    assert run("train", small, "--work-dir", small.parent / "whole") == 0
    assert run("train", small, "--set", "run.epochs=1") == 0
    capsys.readouterr()
    harmless = ["val.batch_size=99", "train.workers=1", 'hooks=[{"type": "MetricsLog", "every": 3}]']
    assert run("train", small, "--resume", "--set", *harmless) == 0
    out = capsys.readouterr().out
    for text in ("val.batch_size: 256 → 99", "train.workers: (not given) → 1", "run.epochs: 1 → 2"):
        assert text in out
    whole, found = (load(max((small.parent / name / "checkpoints").glob("step_*.pt"))) for name in ("whole", "work"))
    for key in ("step", "task", "optimizer", "schedule", "generators"):
        assert_same(found[key], whole[key])


def test_a_crafted_checkpoint_ends_in_one_message(small, tmp_path, capsys):
    assert run("train", small, "--set", "run.epochs=1") == 0
    state = load(newest(small))
    for number, change in enumerate(
        (
            {"class_names": {"label": [*state["classes"][:-1], "ten"]}},
            {"train": {**state["train"], "samples": 7}},
            {"optimizer": {}},
            {"schedule": {}},
            {"config": "{"},
            {"generators": [{}]},
        )
    ):
        path = tmp_path / f"{number}.pt"
        save({**state, **change}, path)
        capsys.readouterr()
        assert run("train", small, "--resume", path) == 4, change
        error = capsys.readouterr().err
        assert error.count("error:") == 1
        assert "Traceback" not in error


def test_a_built_run_of_a_changed_length_goes_on(tmp_path):
    run_options = {"work_dir": str(tmp_path), "epochs": 1}
    config = tiny_config(run=run_options, schedule={"type": "OneCycleLR", "max_lr": 0.1})
    runner = build_runner(config)
    runner.train()
    longer = build_runner(tiny_config(run={**run_options, "epochs": 3}, schedule=config["schedule"]))
    longer.load_state_dict(snapshot(runner))
    longer.train()
    assert longer.step == 3 * runner.step


JITTER = """
import random
import numpy
import torch
from visreg import TRANSFORMS

@TRANSFORMS.register
class BatchJitter:
    def __call__(self, batch):
        factor = (random.random() + numpy.random.rand()) / 2
        return {**batch, "image": (batch["image"] * factor).to(torch.uint8)}
"""


def test_a_seed_is_all_that_a_run_depends_on_though_a_plugin_draws_from_python_and_numpy(small):
    (small.parent / "jitter.py").write_text(JITTER)
    small.write_text(
        small.read_text() + 'plugins = ["./jitter.py"]\ntrain["batch_transforms"] = [dict(type="BatchJitter")]\n'
    )
    found = {}
    for name, settings in {"one": [], "same": [], "other": ["run.seed=1"]}.items():
        random.seed(name)
        numpy.random.seed(len(name))
        work = small.parent / name
        assert run("train", small, "--work-dir", work, "--set", "run.epochs=1", *settings) == 0
        found[name] = load(max((work / "checkpoints").glob("step_*.pt")))
    assert_same(found["one"]["generators"], found["same"]["generators"])
    assert_same(found["one"]["task"], found["same"]["task"])
    assert found["one"]["generators"][0]["python"] != found["other"]["generators"][0]["python"]
