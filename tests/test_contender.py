"""How long a setting may take to begin, and that nothing of it goes on when that is over."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_config

from visreg import benchmark as module
from visreg.benchmark import benchmark, rows
from visreg.build import build_trainer
from visreg.candidates import AS_IS, PRECISION, ROUNDING, Setting
from visreg.config import config_from
from visreg.contender import Contender, LateError, OneBatch, rehearse
from visreg.errors import ConfigError, Problem

COMPILED = Setting({"run.compile": True}, ROUNDING)


def sample(config):
    runner = build_trainer(config)
    runner.batch = next(iter(runner.train_loader.epoch(0)))
    return OneBatch.of(runner)


def runs(number):
    """Return whether there is such a process, and it has not ended."""
    status = Path(f"/proc/{number}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(number):
    """Wait for a process to end."""
    deadline = time.monotonic() + 30
    while runs(number) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not runs(number)


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    """It stands for a compiler that starts others."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $$ $! > {tmp_path}/started.partial\n"
                      f"mv {tmp_path}/started.partial {tmp_path}/started\nwait\n")  # fmt: skip
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    calls, started = count(), tmp_path / "started"
    clock = SimpleNamespace(monotonic=lambda: 9.0 * (next(calls) > 0 and started.exists()), sleep=time.sleep)
    monkeypatch.setattr("visreg.contender.time", clock)  # the time is over when the script is as far
    config = config_from(tiny_config())
    with pytest.raises(LateError, match=r"^not within 1 s, which --limit can make longer$"):
        rehearse(config, [], sample(config), 1)
    assert all(gone(int(number)) for number in started.read_text().split())


def test_what_ends_by_itself_leaves_nothing_either_and_is_seen_to_fail_here(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/started\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.delattr(os, "waitid", raising=False)  # as on macOS with an older Python
    config = config_from(tiny_config())
    rehearse(config, [], sample(config), 60)
    assert gone(int((tmp_path / "started").read_text()))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "TimeoutError"),
        (TimeoutError("reading took\ntoo long"), "TimeoutError: reading took"),
        (RuntimeError("\n\n"), "RuntimeError"),
        (ConfigError([Problem("run", "not here\nat all")]), "not here"),
    ],
)
def test_what_keeps_a_setting_from_running_is_told_in_one_line(error, said):
    """A TimeoutError is like any other: it may be that of a plugin."""
    reference, contender = Contender(AS_IS, times=[1.0]), Contender(COMPILED)
    with contender.working():
        raise error
    assert contender.reason == f"cannot run here: {said}"
    assert [*rows([reference, contender])][-1] == f"  {COMPILED!s:40}  cannot run here: {said}"


def test_a_setting_that_is_late_is_told_and_the_others_go_on(apart, monkeypatch, capsys):
    slow, last = Setting({"run.precision": "bf16"}, PRECISION), Setting({"run.channels_last": True}, ROUNDING)
    rehearsed = []

    def late(config, plugin_files, loader, limit):
        rehearsed.append(config.values["run"]["compile"])
        raise LateError(limit)

    def take(self, steps):
        time.sleep(0.2 if self.setting == slow else 0)
        return 0.1

    monkeypatch.setattr(module, "rehearse", late)
    monkeypatch.setattr(module.OneBatch, "of", lambda runner: object())
    monkeypatch.setattr(Contender, "take", take)
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([COMPILED, slow, last]))
    benchmark(config_from(tiny_config()), rounds=2, limit=0.1)
    out = capsys.readouterr().out
    assert "  run.compile=True                          not within 0.1 s, which --limit can make longer\n" in out
    assert "  run.precision='bf16'                      not within 0.1 s, which --limit can make longer\n" in out
    assert re.search(r"run\.channels_last=True +100\.000  1\.00 \(", out)
    assert rehearsed == [True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of older compilers
def test_a_setting_is_rehearsed_once(tmp_path, monkeypatch):
    rehearsed, seen = [], sample(config_from(tiny_config()))
    monkeypatch.setattr(module, "rehearse", lambda *args: rehearsed.append(args[0].values["run"]))
    monkeypatch.setattr(module, "build_trainer", lambda *args: pytest.fail("as if it could not be built"))
    race = module.Race(config_from(tiny_config()), (), steps=1, rounds=1, folder=str(tmp_path), sample=seen)
    both = Setting({"run.compile": True, "run.channels_last": True}, ROUNDING)
    for setting in (COMPILED, both, COMPILED, Setting({"run.channels_last": True}, ROUNDING)):
        with pytest.raises(pytest.fail.Exception):
            race.enter(setting)
    assert [run.get("channels_last", False) for run in rehearsed] == [False, True]


def test_a_config_that_is_compiled_as_it_is_takes_as_long_as_it_takes(apart, monkeypatch):
    monkeypatch.setattr(module, "rehearse", lambda *args: pytest.fail("it has no limit"))
    monkeypatch.setattr(Contender, "take", lambda self, steps: 0.1)
    monkeypatch.setattr(module.OneBatch, "of", lambda runner: object())
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([Setting({"run.compile": False}, ROUNDING)]))
    benchmark(config_from(tiny_config(run={"compile": True})), rounds=2, limit=0)


def test_steps_are_of_whole_batches():
    """A model is compiled anew for another size, which would be timed."""
    runner = build_trainer(config_from(tiny_config(train={"batch_size": 100, "drop_last": False})))
    sizes = [len(batch["image"]) for batch in runner.train_loader.epoch(0)]
    assert 0 < sizes[-1] < 100
    contender = Contender(COMPILED)
    contender.begin(runner)
    taken = [len(next(contender._batches)["image"]) for _ in range(2 * len(sizes))]
    assert taken == [100] * 2 * len(sizes)


def test_a_model_that_would_diverge_is_timed_all_the_same():
    runner = build_trainer(config_from(tiny_config(optimizer={"type": "SGD", "lr": 900.0, "weight_decay": 1.0})))
    contender = Contender(AS_IS)
    contender.begin(runner)
    assert contender.take(30) > 0
    assert torch.stack([*runner.losses.values()]).isfinite().all()


def test_one_batch_seems_to_be_an_epoch():
    config = config_from(tiny_config())
    runner, loader = build_trainer(config), sample(config)
    assert len(loader) == len(runner.train_loader)
    batches = [*pickle.loads(pickle.dumps(loader)).epoch(0)]
    assert len(batches) == len(loader)
    assert torch.equal(batches[-1]["image"], next(iter(runner.train_loader.epoch(0)))["image"])
    assert build_trainer(config, (), loader).train_loader is loader


@pytest.fixture
def rehearsing(tmp_path):
    """Start a rehearsal in a process of its own, whose standard input stays open."""
    processes = []

    def start(*plugins):
        config = config_from(tiny_config())
        code = "from visreg.contender import rehearsal; rehearsal()"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, cwd=tmp_path,
        )  # fmt: skip
        processes.append(process)
        process.stdin.write(pickle.dumps((config, plugins, sample(config))))
        process.stdin.flush()
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stderr.close()


@pytest.mark.slow
def test_a_rehearsal_ends_with_the_process_that_wants_it(tmp_path, rehearsing):
    plugin = tmp_path / "endless.py"
    plugin.write_text(
        "import os, pathlib, time\npathlib.Path(__file__).with_suffix('.pid').touch()\ntime.sleep(1000)\n"
    )
    process = rehearsing(plugin)
    while not plugin.with_suffix(".pid").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(30) == -signal.SIGKILL


@pytest.mark.slow
def test_a_rehearsal_that_succeeds_ends_in_peace(rehearsing):
    process = rehearsing()
    assert (process.wait(120), process.stderr.read()) == (0, b"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of older compilers
@pytest.mark.slow
def test_what_was_rehearsed_is_compiled(apart, monkeypatch, capsys):
    monkeypatch.setattr(module, "candidates", lambda schema, runner: iter([COMPILED]))
    benchmark(config_from(tiny_config()), steps=1, rounds=1, limit=300)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  run.compile=True"))
    assert "(" in row
