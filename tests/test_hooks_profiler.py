"""The profiler: names for the parts of a step, a table of them, and nothing that changes a run."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from tiny import assert_same, at, snapshot, tiny_config, tiny_runner
from torch.autograd import DeviceType

from visreg import check_config
from visreg.config import config_from
from visreg.errors import ConfigError
from visreg.hooks.profiler import Profiler
from visreg.hooks.time_table import TimeTable
from visreg.phase import phase


def event(name, start, end, thread=1, device=DeviceType.CPU, annotation=False):
    """Return what torch's profiler would say of an operation; times are in µs."""
    times = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(
        name=name, time_range=times, thread=thread, device_type=device, is_user_annotation=annotation
    )


STEP = (
    ("ProfilerStep*", 0, 1000), ("between_steps", -5, 10), ("host to device", 50, 80), ("before_step", 110, 120),
    ("forward", 120, 400), ("aten::conv2d", 150, 300), ("backward", 410, 700), ("optimizer", 700, 800),
    ("after_step", 800, 850), ("between_steps", 950, 1010),
)  # fmt: skip


def test_parts_of_a_step_add_up():
    events = [event(name, start + shift, end + shift) for shift in (0, 1000) for name, start, end in STEP]
    table = TimeTable.of([*events, event("forward", 0, 1000, thread=2)])
    assert (table.steps, table.total, table.idle) == (2, 1.0, None)
    expected = {
        "data wait": 0.07,  # from 10 to 110, without the 30 of copying
        "host to device": 0.03, "forward": 0.28, "backward": 0.29, "optimizer": 0.1,
        "hooks": 0.13,  # 10, 10, 50, 50; and 10 that are of the next step, as of the one before
    }  # fmt: skip
    found = dict(table.parts)
    assert sum(found.values()) == pytest.approx(table.total)
    rest = found.pop("rest")
    assert found["hooks"] == pytest.approx(0.125, abs=0.01)
    del found["hooks"], expected["hooks"]
    assert found == pytest.approx(expected)
    assert rest >= 0


def test_an_evaluation_is_a_part_only_where_there_is_one():
    events = [event(*each) for each in STEP]
    assert "evaluation" not in TimeTable.of(events).parts
    assert TimeTable.of([*events, event("evaluation", 860, 940)]).parts["evaluation"] == pytest.approx(0.08)


def test_a_gpu_is_idle_where_none_of_its_kernels_runs():
    gpu = DeviceType.CUDA
    kernels = [
        event("gemm", 100, 300, device=gpu),
        event("copy", 200, 400, device=gpu),
        event("late", 900, 1500, device=gpu),
    ]
    marks = [
        event("forward", 0, 1000, device=gpu, annotation=True),
        event("ProfilerStep*", 0, 1000, device=gpu, annotation=True),
    ]
    table = TimeTable.of([*(event(*each) for each in STEP), *kernels, *marks])
    assert table.idle == pytest.approx(0.6)
    assert "GPU idle" in str(table)


def test_a_table_of_a_run(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    profiler = Profiler(warmup=2, steps=4)
    runner = tiny_runner(tmp_path, [profiler])
    runner.train()
    table = profiler.table
    assert table.steps == 4
    assert sum(table.parts.values()) == pytest.approx(table.total)
    assert (
        min(table.parts[name] for name in ("data wait", "forward", "backward", "optimizer", "hooks", "evaluation")) > 0
    )
    assert "where the time of steps 3 to 6 went" in caplog.text
    assert "data wait" in caplog.text
    trace = json.loads((tmp_path / "trace.json").read_text())
    names = [each["name"] for each in trace["traceEvents"] if each.get("cat") == "user_annotation"]
    assert {name: names.count(name) for name in ("forward", "backward", "optimizer", "before_step")} == dict.fromkeys(
        ("forward", "backward", "optimizer", "before_step"), 4
    )


def test_each_part_of_a_batch_has_its_forward(tmp_path):
    profiler = Profiler(warmup=1, steps=2)
    tiny_runner(tmp_path, [profiler], accumulate=2).train()
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert [each["name"] for each in trace["traceEvents"] if each.get("cat") == "user_annotation"].count("forward") == 4


def test_a_run_is_the_same_with_a_profiler(tmp_path):
    states = []
    for hooks in ([], [Profiler(warmup=1, steps=2)]):
        runner = tiny_runner(tmp_path, hooks)
        runner.train()
        state = snapshot(runner)
        state.pop("hooks")
        states.append(state)
    assert_same(*states)


def test_it_ends_by_itself(tmp_path):
    on = []
    profiler = Profiler(warmup=2, steps=3)
    seen = at(after_step=lambda runner: on.append(torch.autograd.profiler._is_profiler_enabled))
    tiny_runner(tmp_path, [profiler, seen]).train()
    assert on == [False, False, True, True, True, False, False, False, False, False]


def test_a_run_that_is_too_short_is_told_so(tmp_path, caplog):
    tiny_runner(tmp_path, [Profiler(warmup=8, steps=5)]).train()
    assert "takes 13 steps, and the run has 10; lower warmup and steps" in caplog.text
    assert "training ended when 2 of the steps that it takes, 8 to warm up and 5 to trace, were traced" in caplog.text
    assert not torch.autograd.profiler._is_profiler_enabled
    assert (tmp_path / "trace.json").exists()


def test_a_run_that_ends_before_anything_is_traced_leaves_nothing(tmp_path, caplog):
    profiler = Profiler(warmup=10, steps=5)
    tiny_runner(tmp_path, [profiler]).train()
    assert "training ended when 0 of the steps" in caplog.text
    assert profiler.table is None
    assert not torch.autograd.profiler._is_profiler_enabled
    assert not (tmp_path / "trace.json").exists()


def test_a_crash_ends_it_too_and_leaves_what_was_traced(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    profiler = Profiler(warmup=1, steps=5)

    def crash(runner):
        if runner.step == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        tiny_runner(tmp_path, [profiler, at(after_step=crash)]).train()
    assert not torch.autograd.profiler._is_profiler_enabled
    assert profiler.table.steps == 2  # the third was not whole
    assert sum(profiler.table.parts.values()) == pytest.approx(profiler.table.total)
    assert "where the time of steps 2 to 3 went" in caplog.text
    assert "2 of the steps that it takes" in caplog.text
    assert (tmp_path / "trace.json").exists()


def test_a_trace_that_cannot_be_written_does_not_stop_training(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("")
    runner = tiny_runner(tmp_path / "file", [Profiler(warmup=1, steps=2)])
    runner.train()
    assert "the trace cannot be written" in caplog.text
    assert runner.finished


def test_nothing_is_named_where_nobody_looks():
    assert phase("forward") is phase("backward")
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile, phase("forward"):
        torch.zeros(2)
    assert "forward" in [each.name for each in profile.events()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"hooks\[0\]\.steps"), ({"warmup": 0}, r"hooks\[0\]\.warmup"),
        ({"wait": 1}, r"hooks\[0\]\.wait: no such option"),
    ],
)  # fmt: skip
def test_mistakes(options, message):
    with pytest.raises(ConfigError, match=message):
        check_config(config_from(tiny_config(hooks=[{"type": "Profiler", **options}])))
