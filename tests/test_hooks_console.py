from __future__ import annotations

import io
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import StopAt, tiny_runner

from visreg.hooks import console as module
from visreg.hooks.console import Console
from visreg.metrics.accuracy import Accuracy


def test_a_line_for_each_evaluation_says_on_which_data(capsys):
    runner = tiny_runner(hooks=[Console()])
    runner.train()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    number = r"\d+\.\d{4}"
    for epoch, rate, line in ((1, "0.045", lines[0]), (2, "0.0182", lines[1])):
        start = rf"epoch {epoch}/2  step {5 * epoch}/10  loss {number}"
        assert re.fullmatch(rf"{start}  val on tiny val accuracy {number}  lr {rate}  \d+\.\d s", line)
    assert f"accuracy {runner.scores['accuracy']:.4f}" in lines[1]


def test_a_line_for_each_epoch_without_evaluation(capsys):
    tiny_runner(hooks=[Console()], eval_steps=10).train()
    lines = capsys.readouterr().out.splitlines()
    assert [("val on" in line) for line in lines] == [False, True]
    assert lines[0].startswith("epoch 1/2  step 5/10  loss ")


def test_the_losses_are_means_since_the_line_before(capsys):
    losses = []
    console = Console(interval=1e-9)  # a line at every step, which must not change the means
    runner = tiny_runner(hooks=[console])
    after_step = console.after_step
    runner._callbacks["after_step"] = [
        lambda runner: losses.append(float(runner.losses["loss"])),
        after_step,
    ]
    runner.train()
    rows = [line for line in capsys.readouterr().out.splitlines() if "val on" in line]
    found = [float(re.search(r"loss (\S+)", row)[1]) for row in rows]
    assert found == pytest.approx([sum(losses[:5]) / 5, sum(losses[5:]) / 5], abs=1e-4)


def test_lines_in_between_have_speed_and_time_left(capsys):
    tiny_runner(hooks=[Console(interval=1e-9)], epochs=1).train()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"epoch 1/1  step 1/5  [\d,]+ samples/s  ETA \d:\d\d  loss \d\.\d{4}", lines[0])


def test_an_evaluation_outside_training_says_nothing(capsys):
    tiny_runner(hooks=[Console()]).evaluate()
    assert capsys.readouterr().out == ""


def test_other_processes_say_nothing(capsys, monkeypatch):
    monkeypatch.setattr(module.dist, "is_main", lambda: False)
    tiny_runner(hooks=[Console(interval=1e-9)]).train()
    assert capsys.readouterr().out == ""


def test_nothing_is_read_from_the_device_between_lines(monkeypatch):
    reads = []
    read = module.LossMean.read
    monkeypatch.setattr(module.LossMean, "read", lambda self: (reads.append(len(self.seen)), read(self))[1])
    tiny_runner(hooks=[Console()]).train()
    assert reads == [5, 5]


@pytest.mark.parametrize("stdout", [None, io.StringIO()])
def test_a_stdout_that_is_gone_does_not_stop_training(monkeypatch, stdout):
    if stdout is not None:
        stdout.close()
    monkeypatch.setattr(module, "_say", lambda line: module._quietly(lambda: print(line, file=stdout)))
    runner = tiny_runner(hooks=[Console()])
    runner.train()
    assert runner.finished


TINY = Path(__file__).parent
PROGRAM = f"""
import sys
sys.path.insert(0, {str(TINY)!r})
from tiny import tiny_runner, StopAt
from visreg.hooks.console import Console
from visreg.metrics.accuracy import Accuracy
runner = tiny_runner(hooks=[Console(refresh=1e-9, interval=1e-9), *map(StopAt, map(int, sys.argv[1:]))], epochs=40)
runner.train()
print("steps", runner.step, file=sys.stderr)
"""


def test_training_goes_on_when_nobody_reads_any_more():
    """As under ``visreg train … | head -1``."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(), errors.splitlines()) == (0, ["steps 200"])


def in_terminal(*arguments):
    """Return what a program writes to a terminal of 150 columns, and its exit code."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=slave, stderr=subprocess.DEVNULL, env=environment
    )
    os.close(slave)
    output = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        output += part
    os.close(master)
    return output.decode(), process.wait()


def test_in_a_terminal_there_is_a_bar_and_a_line_that_stays_for_each_evaluation():
    output, code = in_terminal()
    assert code == 0
    assert "━" in output
    assert re.search(r"samples/s  ETA \d:\d\d  loss \d\.\d{4}", output)
    assert "evaluating" in output
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    rows = [line for line in re.split(r"[\r\n]+", plain) if "val on tiny val accuracy" in line]
    assert len(rows) == 40
    assert output.count("\x1b[?25h") == 1, "the cursor is shown again"


def test_an_interrupted_run_gives_the_terminal_back():
    output, code = in_terminal("7")
    assert code == 0
    assert "\x1b[?25h" in output


def test_clock():
    assert module._clock(0.4) == "0:00"
    assert module._clock(3600) == "1:00:00"


def rows(text):
    return [re.sub(r"\d+\.\d s$", "", line) for line in text.splitlines() if "val on" in line]


@pytest.mark.parametrize("interval", [1e-9, 30.0])
def test_a_resumed_epoch_tells_the_mean_of_the_whole_epoch(interval, capsys):
    tiny_runner(hooks=[Console()]).train()
    wanted = rows(capsys.readouterr().out)
    first = tiny_runner(hooks=[Console(interval=interval), StopAt(8)])
    first.train()
    state = first.state_dict()
    second = tiny_runner(hooks=[Console(interval=interval), StopAt(100)])
    second.load_state_dict(state)
    second.train()
    assert rows(capsys.readouterr().out) == wanted


def test_what_was_not_seen_is_left_out(capsys):
    class Sizes(Accuracy):
        def names(self):
            return ("accuracy", "large")

        def compute(self):
            return {**super().compute(), "large": math.nan}

    runner = tiny_runner(hooks=[Console()], metrics=[Sizes()])
    runner.train()
    assert math.isnan(runner.scores["large"])
    assert "large" not in capsys.readouterr().out


def test_a_slow_run_has_a_speed_too():
    pace = module._Pace(start_step=0)
    runner = tiny_runner()
    runner.step = 1
    assert re.match(r"0\.\d+ samples/s", pace.progress(runner, pace.tick + 100))
