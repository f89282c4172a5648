"""The sections of a config, with what is filled in and what is refused."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from tiny import tiny_config

from visreg.registry import KINDS
from visreg.schema import DEFAULT_HOOKS, SECTIONS, DataConfig, ParamGroups, RunConfig, Schema
from visreg.slots import SLOTS


def test_defaults_are_filled_in():
    schema = Schema.of(tiny_config())
    assert (schema.train.workers, schema.train.in_memory, schema.train.drop_last, schema.train.shuffle) == (
        "auto", "auto", False, None,
    )  # fmt: skip
    assert (schema.run.seed, schema.run.precision, schema.run.accumulate, schema.run.steps) == (0, "fp32", 1, None)
    assert (schema.test, schema.hooks, schema.schedules, schema.plugins) == (None, (), [], ())
    assert schema.param_groups == ParamGroups()


def test_what_is_wrong_is_left_out():
    values = tiny_config(run={"epochs": -1}, modle={})
    schema = Schema.of(values, without={("run", "epochs"), ("modle",), ("model",)})
    assert schema.run.epochs is None
    assert schema.run.work_dir == "unused"
    assert schema.model is None


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (RunConfig, {"epochs": 0}), (RunConfig, {"steps": 0}), (RunConfig, {"eval_every": 0}),
        (RunConfig, {"seed": -1}), (RunConfig, {"accumulate": 0}), (RunConfig, {"max_rollbacks": 0}),
        (RunConfig, {"work_dir": ""}),
        (RunConfig, {"device": "tpu"}), (RunConfig, {"device": "cuda:x"}), (RunConfig, {"device": "cpu0"}),
        (DataConfig, {"dataset": {}, "batch_size": 0}), (DataConfig, {"dataset": {}, "batch_size": 1, "workers": -1}),
        (ParamGroups, {"layer_decay": 0.0}), (ParamGroups, {"layer_decay": 1.1}),
        (ParamGroups, {"lr_scale": {"a": -1}}),
    ],
    ids=str,
)  # fmt: skip
def test_impossible_values_are_refused(section, values):
    with pytest.raises(ValueError, match="must"):
        section(**values)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(device):
    assert RunConfig(epochs=1, device=device).device == device


def test_one_schedule_or_several():
    step = {"type": "StepLR"}
    assert Schema.of(tiny_config(schedule=step)).schedules == [step]
    assert Schema.of(tiny_config(schedule=[step, step])).schedules == [step, step]


def test_default_hooks_give_way_to_those_of_their_type():
    values = tiny_config(hooks=[{"type": "MetricsLog", "every": 1}, {"type": "EMA"}])
    assert [hook["type"] for hook in hooks_of(Schema.of(values))] == ["MetricsLog", "EMA"]
    del values["default_hooks"]
    assert [hook["type"] for hook in hooks_of(Schema.of(values))] == ["MetricsLog", "EMA", "Console", "Checkpoint"]
    assert [hook["type"] for hook in DEFAULT_HOOKS] == ["Console", "MetricsLog", "Checkpoint"]


def hooks_of(schema):
    return [item[1] if isinstance(item, tuple) else item for item in schema.all_hooks]


def test_the_runs_folder_is_named_after_the_config():
    values = tiny_config(run={"work_dir": None})
    assert Schema.of(values).work_dir(Path("configs/cnn.py")) == Path("work/cnn")
    assert Schema.of(values).work_dir(None) == Path("work/run")
    assert Schema.of(tiny_config()).work_dir(Path("cnn.py")) == Path("unused")


def test_every_registry_has_a_place_in_a_config():
    assert {slot.registry.kind for slot in SLOTS.values()} == set(KINDS)
    top = attrs.fields_dict(Schema)
    for name in SLOTS:
        assert name in top or name in attrs.fields_dict(DataConfig)
    assert set(SECTIONS) <= set(top)


@pytest.mark.parametrize("section", [Schema, *dict.fromkeys(SECTIONS.values())])
def test_every_key_is_explained(section):
    for name in attrs.fields_dict(section):
        assert f"{name}:" in section.__doc__ or f"{name}," in section.__doc__, name
