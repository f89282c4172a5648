"""Signals that land anywhere: the run stops, has saved, and resumed ends as one that was never stopped."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.tiny import assert_same
from visreg import faults
from visreg.checkpoint import load
from visreg.cli import main
from visreg.hook import Hook

STEPS = 10  # of two epochs
CONFIG = f"""
plugins = [{str(Path(__file__).with_name("signal_parts.py"))!r}]
task = dict(type="Classification", mean=[0.5], std=[0.5])
model = dict(type="SignalNet")
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy"), dict(type="SignalMetric")]
optimizer = dict(type="SGD", lr=0.1, momentum=0.9)
schedule = dict(type="Cosine")
hooks = [dict(type="SignalHook"), dict(type="EMA", decay=0.9), dict(type="EarlyStopping", monitor="drawn", patience=9)]
default_hooks = [dict(type="Console"), dict(type="MetricsLog", every=2), dict(type="Checkpoint", keep=2)]
train = dict(dataset=dict(type="SignalData", train=True), batch_size=4, workers=0)
val = dict(dataset=dict(type="SignalData", train=False), batch_size=8, workers=0)
run = dict(epochs=2, device="cpu")
"""
PLACES = {  # where, at which step, and which step is saved
    "a batch": ("forward", 3, 3),
    "a batch of an epoch's end": ("forward", 5, 5),
    "a wait for data": ("wait_for_data", 3, 3),
    "a wait for an epoch's first data": ("wait_for_data", 5, 5),
    "a wait for validation data": ("wait_for_val_data", 5, 5),
    "a validation's model": ("predict", 5, 5),
    "a validation's metric": ("update", 10, 10),
    "a save": ("save:opened", 5, 5),
    "a save that is nearly done": ("save:renamed", 5, 5),
    "before_train": ("before_train", 0, None),
    "before_epoch": ("before_epoch", 5, 5),
    "before_step": ("before_step", 3, 3),
    "after_backward": ("after_backward", 3, 3),
    "after_step": ("after_step", 3, 3),
    "after_step of an epoch's end": ("after_step", 5, 5),
    "before_eval": ("before_eval", 5, 5),
    "after_eval": ("after_eval", 5, 5),
    "after_epoch": ("after_epoch", 5, 5),
    "between_steps": ("between_steps", 4, 4),
    "after the last step": ("after_step", 10, 10),
    "after_train": ("after_train", 10, 10),
}


def run(config, *arguments, kill=""):
    """Run ``visreg train`` in this process and return its exit code."""
    os.environ.update(KILL=kill or "none 0 0 0", NOW="0")
    try:
        with pytest.raises(SystemExit) as caught:
            main(["train", str(config), *map(str, arguments)])
    finally:
        del os.environ["KILL"], os.environ["NOW"]
        faults.inject = faults._nothing
    return caught.value.code


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("signals") / "config.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def whole(config):
    """The folder of a run that was never stopped."""
    folder = config.with_name("whole")
    assert run(config, "--work-dir", folder) == 0
    return folder


def newest(folder):
    return load(max((folder / "checkpoints").glob("step_*.pt")))


def assert_ends_as(whole, folder):
    one, other = newest(whole), newest(folder)
    for name in ("step", "task", "optimizer", "schedule", "scores", "evaluated", "hooks", "generators"):
        assert_same(one[name], other[name], name)
    assert (whole / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()


def resumed(config, folder, *arguments):
    assert run(config, "--work-dir", folder, "--resume", *arguments) == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_stops_saves_and_costs_nothing(config, whole, tmp_path, capsys, place, number):
    where, step, saved = PLACES[place]
    assert run(config, "--work-dir", tmp_path, kill=f"{where} {step} {int(number)} 1") == 128 + number
    advice = "there is nothing yet to resume" if where == "before_train" else "--resume goes on from there"
    assert advice in capsys.readouterr().out
    if saved is not None:
        assert newest(tmp_path)["step"] in (saved, saved + 1)  # a hook may be called when the next step has begun
    assert "interrupted at step" in (tmp_path / "log.txt").read_text()
    assert_ends_as(whole, resumed(config, tmp_path))


def test_what_is_saved_after_an_interrupted_evaluation_are_the_weights_that_train(config, tmp_path):
    """The EMA's are put back before any other hook is called, such as a Checkpoint in front of it."""
    order = ["--set", 'hooks=[{"type": "Checkpoint"}, {"type": "SignalHook"}, {"type": "EMA"}]']
    assert run(config, "--work-dir", tmp_path / "whole", *order) == 0
    assert run(config, "--work-dir", tmp_path / "run", *order, kill=f"predict 5 {int(signal.SIGTERM)} 1") == 143
    assert_ends_as(tmp_path / "whole", resumed(config, tmp_path / "run", *order))


def test_a_wait_for_workers_is_left(config, whole, tmp_path):
    workers = ["--set", "train.workers=2"]
    assert run(config, "--work-dir", tmp_path, *workers, kill=f"wait_for_a_worker 0 {int(signal.SIGTERM)} 1") == 143
    assert_ends_as(whole, resumed(config, tmp_path, *workers))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_training_there_is_nothing_to_save(config, tmp_path, capfd, number):
    assert run(config, "--work-dir", tmp_path / "run", kill=f"open 0 {int(number)} 1") == 128 + number
    assert capfd.readouterr().err == f"{signal.Signals(number).name}: stopped before training began\n"
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("where", ["forward 8", "after_step 7", "before_eval 10", "save:opened 10"])
def test_a_second_interrupt_stops_at_once_and_tears_nothing(config, whole, tmp_path, where):
    """A thread may write the checkpoint, in which case the main thread learns of both signals at once, and saves it."""
    assert run(config, "--work-dir", tmp_path, kill=f"{where} {int(signal.SIGINT)} 2") == 130
    assert newest(tmp_path)["step"] in ((5, 10) if "save" in where else (5,))
    assert_ends_as(whole, resumed(config, tmp_path))


def test_a_second_sigterm_changes_nothing(config, whole, tmp_path):
    assert run(config, "--work-dir", tmp_path, kill=f"save:opened 5 {int(signal.SIGTERM)} 2") == 143
    assert_ends_as(whole, resumed(config, tmp_path))


def test_a_lost_terminal_changes_nothing(config, whole, tmp_path):
    assert run(config, "--work-dir", tmp_path, kill=f"forward 3 {int(signal.SIGHUP)} 1") == 0
    assert "SIGHUP: the terminal is gone; training goes on" in (tmp_path / "log.txt").read_text()
    assert_ends_as(whole, tmp_path)


class Gone(io.StringIO):
    """A stdout whose other end is not there any more; what is done to its descriptor mends it."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def flush(self):
        if self.number:
            raise OSError(self.number, os.strerror(self.number))

    def write(self, text):
        self.flush()
        return super().write(text)

    def fileno(self):
        self.number = 0
        return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize("number", [5, 9, 28, 32], ids=["EIO", "EBADF", "ENOSPC", "EPIPE"])
def test_a_lost_stdout_changes_nothing(config, whole, tmp_path, monkeypatch, number):
    monkeypatch.setattr(sys, "stdout", Gone(number))
    assert run(config, "--work-dir", tmp_path) == 0
    assert "epoch 2/2  step 10/10" in (tmp_path / "log.txt").read_text()
    assert_ends_as(whole, tmp_path)


POINTS = [name for name in vars(Hook) if name.startswith(("before_", "after_", "between_"))]


@pytest.mark.parametrize("event", [name for name in POINTS if name != "after_interrupted_eval"])
def test_a_bug_in_a_hook_is_placed_and_the_run_goes_on_from_the_newest_checkpoint(config, whole, tmp_path, event):
    step = {"before_train": 0, "before_step": 7, "after_backward": 7, "after_step": 8, "between_steps": 8}.get(
        event, 10
    )
    step = 5 if event == "before_epoch" else step
    os.environ["RAISE"] = f"{event} {step}"
    try:
        with pytest.raises(ZeroDivisionError) as caught:
            main(["train", str(config), "--work-dir", str(tmp_path)])
    finally:
        del os.environ["RAISE"]
    assert caught.value.__notes__ == [f"raised by the hook SignalHook in {event}, at step {step}"]
    if event != "before_train":
        # At the end nothing is half done, so that all is saved; in the midst of a step it is not.
        assert newest(tmp_path)["step"] == (10 if event == "after_train" else 5)
    assert_ends_as(whole, resumed(config, tmp_path))
