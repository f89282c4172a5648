"""Which settings are tried, how they are compared, and what is made of it; how long they take is up to the machine."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import torch
from test_picture import photo
from tiny import tiny_config

from visreg import benchmark as module
from visreg.benchmark import benchmark, conclusion, finalists, rows
from visreg.build import build_trainer
from visreg.candidates import AS_IS, DRAWS, NOTHING, PRECISION, ROUNDING, Setting, candidates, together
from visreg.check import check_config
from visreg.cli import main
from visreg.config import apply_overrides, config_from, load_config
from visreg.contender import WARMUP, Contender
from visreg.errors import ConfigError, VisregError

LAST = Setting({"run.channels_last": True}, ROUNDING)
FUSED = Setting({"optimizer.fused": True}, ROUNDING)
FOREACH = Setting({"optimizer.foreach": True}, ROUNDING)
BF16 = Setting({"run.precision": "bf16"}, PRECISION)
WORKERS = Setting({"train.workers": 2}, NOTHING)


def photos(root):
    for number in range(4):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(40, 50, seed=number).save(path)


def tried(**sections):
    """Return the settings that are tried for a config, as text."""
    config = config_from(tiny_config(**sections))
    return [str(setting) for setting in candidates(check_config(config), build_trainer(config))]


def timed(*times):
    """Return contenders of settings that took a number of seconds in each round, or have a reason not to run."""
    made = []
    for setting, seconds in times:
        reason = seconds if isinstance(seconds, str) else ""
        made.append(Contender(setting, times=[] if reason else list(seconds), reason=reason))
    return made


def test_what_is_tried():
    assert tried() == [
        "run.channels_last=True", "optimizer.fused=True", "optimizer.foreach=True", "run.compile=True",
        "run.precision='bf16'", "run.gradient_checkpointing=True",
    ]  # fmt: skip


def test_what_a_config_has_is_tried_without():
    run = {"channels_last": True, "compile": True, "precision": "bf16", "gradient_checkpointing": True}
    optimizer = {"type": "SGD", "lr": 0.1, "foreach": True}
    assert tried(run=run, optimizer=optimizer) == [
        "run.channels_last=False", "optimizer.fused=True optimizer.foreach=None", "optimizer.foreach=False",
        "run.compile=False",
    ]  # fmt: skip


def test_only_options_that_the_optimizer_has_are_tried():
    assert tried(optimizer={"type": "Adafactor"})[1] == "optimizer.foreach=True"


def test_workers_are_tried_where_samples_are_read_one_by_one(monkeypatch):
    monkeypatch.setattr("visreg.candidates.cores", lambda: 8)
    found = tried(train={"in_memory": False, "workers": 4})
    assert [each for each in found if each.startswith("train.")] == [
        "train.workers=0", "train.workers=8",
    ]  # fmt: skip


@pytest.mark.parametrize("setting", [LAST, FUSED, BF16, together([LAST, FUSED, BF16])], ids=str)
def test_its_words_give_the_config_its_values(setting):
    config = apply_overrides(config_from(tiny_config()), setting.overrides)
    written = {}
    exec("\n".join(setting.lines), written)  # as one would write it
    for path, value in setting.changes.items():
        section, name = path.split(".")
        assert config.values[section][name] == written[section][name] == value
    check_config(config)


@pytest.mark.parametrize("setting", [LAST, together([Setting({"run.compile": "reduce-overhead"}, ROUNDING), BF16])])
def test_what_is_told_works_as_it_is(setting, small):
    (_, flags, _, *lines) = conclusion(timed((AS_IS, [1] * 3), (setting, [0.5] * 3)))
    child = small.with_name("faster.py")
    child.write_text("\n".join([f"_base_ = {small.name!r}", *map(str.strip, lines)]))
    for arguments in ([str(small), *shlex.split(flags)], [str(child)]):
        with pytest.raises(SystemExit) as caught:
            main(["check", *arguments])
        assert caught.value.code == 0
    values = [load_config(child).values, apply_overrides(load_config(small), shlex.split(flags)[1:]).values]
    for path, value in setting.changes.items():
        section, name = path.split(".")
        assert [each[section][name] for each in values] == [value] * 2


def test_together_they_change_what_the_worst_changes():
    assert together([WORKERS, LAST]).effect == ROUNDING
    assert together([WORKERS, LAST, BF16]).effect == PRECISION
    assert together([WORKERS]).effect == together([]).effect == NOTHING


@pytest.mark.parametrize(("p", "effect"), [(0.5, DRAWS), (0.0, ROUNDING)])
def test_what_is_compiled_draws_other_numbers(p, effect):
    config = config_from(tiny_config())
    runner = build_trainer(config)
    runner.task.add_module("dropout", torch.nn.Dropout(p))
    (found,) = (each for each in candidates(check_config(config), runner) if "run.compile" in each.changes)
    assert found.effect == together([found, LAST, WORKERS]).effect == effect
    (line, *_) = conclusion(timed((AS_IS, [1] * 3), (found, [0.5] * 3)))
    assert line.startswith(f"fastest with the same results but for {effect}: 0.50")


def test_what_saves_memory_is_never_recommended():
    memory = Setting({"run.gradient_checkpointing": True}, NOTHING)
    assert finalists(timed((AS_IS, [1] * 3), (memory, [0.1] * 3), (LAST, [0.8] * 3))) == [LAST]


def test_the_last_round_is_between_what_was_faster():
    found = finalists(
        timed((AS_IS, [1] * 3), (LAST, [0.8] * 3), (FUSED, [0.95, 0.9, 0.9]), (FOREACH, [0.7] * 3), (WORKERS, [2] * 3))
    )
    assert [str(each) for each in found] == ["optimizer.foreach=True", "optimizer.foreach=True run.channels_last=True"]


def test_what_changes_the_precision_is_a_choice_of_its_own():
    found = finalists(timed((AS_IS, [1] * 3), (LAST, [0.8] * 3), (BF16, [0.5] * 3)))
    assert [str(each) for each in found] == [
        "run.channels_last=True", "run.precision='bf16'", "run.precision='bf16' run.channels_last=True",
    ]  # fmt: skip


def test_what_is_not_faster_or_cannot_run_is_no_choice():
    assert finalists(timed((AS_IS, [1] * 3), (LAST, [0.99] * 3), (FUSED, "no such option"))) == []
    assert [*conclusion([])] == ["nothing here is clearly faster than the config as it is"]
    slower = timed((AS_IS, [1] * 3), (LAST, [1.1, 1, 1]))
    assert [*conclusion(slower)] == ["nothing here is clearly faster than the config as it is"]


@pytest.mark.parametrize("times", [[0.84, 0.94, 0.94, 0.9, 1.12], [0.93, 0.94, 0.94, 1.05], [0.5, 0.5]])
def test_what_may_be_chance_is_no_choice(times):
    pair = timed((AS_IS, [1] * len(times)), (LAST, times))
    assert finalists(pair) == []
    assert [*conclusion(pair)] == ["nothing here is clearly faster than the config as it is"]


def test_what_changes_more_has_to_be_faster_than_what_changes_less():
    one, both = (LAST, [0.7, 0.8, 0.7]), (together([LAST, FUSED]), [0.6, 0.81, 0.6])
    lines = [*conclusion(timed((AS_IS, [1] * 3), one, both, (BF16, [0.6, 0.9, 0.6])))]
    assert lines[0].startswith("fastest with the same results but for the last bits: 0.70 (0.70 to 0.80)")
    assert [line for line in lines if "--set" in line] == ["    --set run.channels_last=True"]


def test_rounds_are_compared_one_by_one():
    (_, _, line) = rows(timed((AS_IS, [1, 2, 4]), (LAST, [0.5, 1.5, 2])))
    assert "0.50 (0.50 to 0.75)" in line
    assert "1500.000" in line


def test_the_best_is_told_as_lines_of_a_config():
    lines = [
        *conclusion(timed((AS_IS, [1] * 3), (together([LAST, FUSED]), [0.5] * 3), (LAST, [0.7] * 3), (BF16, [0.6] * 3)))
    ]
    assert lines == [
        "fastest with the same results but for the last bits: 0.50 (0.50 to 0.50) of the time",
        "    --set run.channels_last=True optimizer.fused=True",
        "    or, in a config whose _base_ is this one:",
        "    run = dict(channels_last=True)",
        "    optimizer = dict(fused=True)",
    ]


def test_a_benchmark_leaves_nothing_and_tells_what_cannot_run(apart, monkeypatch, capsys):
    impossible = [Setting({"optimizer.nonsense": True}, ROUNDING), Setting({"run.device": "cuda:99"}, ROUNDING)]
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([LAST, *impossible]))
    hooks = [{"type": "EMA"}, {"type": "Checkpoint", "every_steps": 1}, {"type": "Profiler"}]
    run = {"epochs": 1, "on_nan": "rollback", "work_dir": None}
    config = tiny_config(
        hooks=hooks, default_hooks=[{"type": "Console"}], run=run, schedule={"type": "OneCycleLR", "max_lr": 0.1}
    )
    benchmark(config_from(config), steps=2, rounds=3)
    out, err = capsys.readouterr()
    assert err.splitlines()[:2] == ["trying as it is", "trying run.channels_last=True"]
    assert "cannot tell" not in out
    assert "on cpu" in out
    assert "3 rounds of 2 steps each" in out
    assert re.search(r"as it is +\d+\.\d{3}  1\.00", out)
    assert re.search(r"run\.channels_last=True +\d+\.\d{3}  \d+\.\d\d \(", out)
    assert re.search(r"optimizer\.nonsense=True +cannot run here: no such option", out)
    assert re.search(r"run\.device='cuda:99' +cannot run here: .*GPU", out)
    assert "Traceback" not in out
    assert list(Path().iterdir()) == []


def test_what_fails_in_a_step_is_told_too(apart, monkeypatch, capsys):
    def fail(contender, steps):
        if contender.setting == LAST:
            raise RuntimeError("no compiler\nat all")
        return 0.1

    monkeypatch.setattr(Contender, "take", fail)
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([LAST]))
    benchmark(config_from(tiny_config()), rounds=2)
    out = capsys.readouterr().out
    assert "run.channels_last=True                    cannot run here: RuntimeError: no compiler\n" in out
    assert "2 rounds of 5 steps each" in out  # half a second's


def test_a_mistake_in_the_config_is_one_as_always(apart):
    with pytest.raises(ConfigError, match=r"optimizer\.lrr"):
        benchmark(config_from(tiny_config(optimizer={"lrr": 1})))


def test_several_processes_are_refused(world):
    world(0, 2)
    with pytest.raises(VisregError, match="without torchrun"):
        benchmark(config_from(tiny_config()))


def test_a_cache_is_left_as_it_was(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    monkeypatch.setenv("VISREG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([WORKERS]))
    train = {"dataset": {"type": "ImageFolder", "root": str(tmp_path / "photos")}, "cache": "disk", "workers": 0}
    train |= {"transforms": [{"type": "RandomResizedCrop", "size": 32}], "batch_size": 2, "in_memory": False}
    model = {"type": "ConvNet", "in_channels": 3, "image_size": 32, "num_classes": 2}
    benchmark(config_from(tiny_config(train=train, model=model, val=None, metrics=[])), steps=1, rounds=1)
    assert not (tmp_path / "cache").exists()
    assert os.environ["VISREG_CACHE"] == str(tmp_path / "cache")


def test_data_in_memory_is_there_once(tmp_path):
    race = module.Race(config_from(tiny_config()), (), steps=1, rounds=1, folder=str(tmp_path))
    one, other = race.enter(AS_IS), race.enter(LAST)
    assert one.runner.train_loader is other.runner.train_loader
    assert one.runner.task is not other.runner.task
    assert one.runner.step == other.runner.step == WARMUP


def test_the_command(small, monkeypatch, capsys):
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([LAST]))
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", str(small), "--steps", "1", "--rounds", "1"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "ms per step" in out
    assert "1 round of 1 step each\n" in out
    assert "1 round cannot tell a faster setting from chance; take 3 or more" in out
    assert not (small.parent / "work").exists()
    assert torch.is_grad_enabled()
