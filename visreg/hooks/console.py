"""Tells a person how training goes."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import define, field
from attrs.validators import gt

from visreg import dist
from visreg.hook import Hook
from visreg.hooks.readings import LossMean, data_name, learning_rate
from visreg.metric import known

if TYPE_CHECKING:
    from rich.progress import Progress

    from visreg.runner import Runner

logger = logging.getLogger("visreg.console")  # for a log file; a person sees what is printed


@define(kw_only=True, eq=False)
class Console(Hook):
    """Shows a live bar in a terminal, and one line for each evaluation, or each epoch without one.

    A line has the mean losses since the line before it, the scores with the dataset they are on, the learning rate of
    the next step, and the seconds since the line before it. Where there is no terminal, lines also come every
    ``interval`` seconds. The losses are those of the main process. Nothing is read from the device in between. A score
    that is NaN, such as that of large objects where there are none, is left out.

    Args:
        refresh: seconds between two refreshes of the bar, more than 0.
        interval: seconds between two lines where there is no terminal, more than 0.
    """

    refresh: float = field(default=0.25, validator=gt(0))
    interval: float = field(default=30.0, validator=gt(0))
    _main: bool = field(default=False, init=False, repr=False)
    _live: bool = field(default=False, init=False, repr=False)
    _bar: Progress | None = field(default=None, init=False, repr=False)
    _pace: _Pace = field(init=False, repr=False)
    _losses: _Losses = field(init=False, repr=False, factory=lambda: _Losses())
    _due: float = field(default=0.0, init=False, repr=False)
    _row_step: int = field(default=-1, init=False, repr=False)

    def before_train(self, runner: Runner) -> None:
        self._main = dist.is_main()
        self._live = self._main and sys.stdout is not None and sys.stdout.isatty()
        self._pace = _Pace(start_step=runner.step)
        self._due = self._pace.row + (self.refresh if self._live else self.interval)
        self._row_step = runner.step

    def after_step(self, runner: Runner) -> None:
        if self._main:
            self._losses.mean.seen.append(runner.losses)
            if time.perf_counter() >= self._due or len(self._losses.mean.seen) >= 4096:
                self._tick(runner)

    def before_eval(self, runner: Runner) -> None:
        if self._main and self._live:
            self._show(runner, "evaluating")

    def after_eval(self, runner: Runner) -> None:
        if self._main:
            self._row(runner, runner.scores)

    def after_epoch(self, runner: Runner) -> None:
        if self._main and self._row_step != runner.step:
            self._row(runner, {})

    def state_dict(self) -> dict[str, Any]:
        self._losses.fold()
        return {"sums": dict(self._losses.sums), "steps": self._losses.steps} if self._losses.steps else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses = _Losses(sums={str(name): float(value) for name, value in state["sums"].items()})
        self._losses.steps = int(state["steps"])

    def after_train(self, runner: Runner) -> None:
        self._main = False
        if self._bar is not None:
            _quietly(self._bar.stop)
            self._bar = None

    def _tick(self, runner: Runner) -> None:
        now = time.perf_counter()
        latest = self._losses.fold()
        if now >= self._due:
            text = f"{self._pace.progress(runner, now)}  {_numbers(latest)}"
            if self._live:
                self._show(runner, text)
            else:
                _say(f"{_position(runner)}  {text}")
            self._due = time.perf_counter() + (self.refresh if self._live else self.interval)

    def _row(self, runner: Runner, scores: Mapping[str, float]) -> None:
        """Leave a line that stays."""
        self._losses.fold()
        parts = [_position(runner), _numbers(self._losses.read())]
        if scores:
            parts.append(f"val on {data_name(runner)} {_numbers(known(scores))}")
        parts += [f"lr {learning_rate(runner):.3g}", f"{self._pace.lap():.1f} s"]
        line = "  ".join(part for part in parts if part)
        logger.info(line)
        if self._bar is not None:
            console = self._bar.console
            _quietly(lambda: console.print(line, markup=False, highlight=False, soft_wrap=True))
        else:
            _say(line)
        self._row_step = runner.step
        self._due = time.perf_counter() + (self.refresh if self._live else self.interval)

    def _show(self, runner: Runner, text: str) -> None:
        """Redraw the bar, which stands for the epoch."""
        if self._bar is None:
            self._bar = _new_bar()
        total = runner.steps_per_epoch
        done = (runner.step - 1) % total + 1
        bar, task = self._bar, self._bar.task_ids[0]
        bar.update(task, total=total, completed=done, description=_position(runner), text=text)
        _quietly(bar.refresh)


@define(eq=False)
class _Pace:
    """How fast training goes, in this life of the run; the clocks are `time.perf_counter`'s, in seconds."""

    start_step: int
    start: float = field(factory=time.perf_counter)
    row: float = field(factory=time.perf_counter)
    tick: float = field(factory=time.perf_counter)
    tick_step: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tick_step = self.start_step

    def progress(self, runner: Runner, now: float) -> str:
        """Return the samples per second since the last call, and the time left at the pace since the start."""
        assert runner.train_loader is not None
        steps = runner.step - self.tick_step
        speed = steps * runner.train_loader.batch_size / max(now - self.tick, 1e-9)
        shown = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        left = (runner.total_steps - runner.step) * (now - self.start) / max(runner.step - self.start_step, 1)
        self.tick, self.tick_step = now, runner.step
        return f"{shown} samples/s  ETA {_clock(left)}"

    def lap(self) -> float:
        """Return the seconds since the last call."""
        before, self.row = self.row, time.perf_counter()
        self.tick = self.row
        return self.row - before


@define(eq=False)
class _Losses:
    """The mean losses since the last kept line, and how many steps they are of."""

    mean: LossMean = field(factory=LossMean)
    sums: dict[str, float] = field(factory=dict)
    steps: int = 0

    def fold(self) -> dict[str, float]:
        """Read what waits on the device, and return its means."""
        self.steps += sum(map(bool, self.mean.seen))  # a step that was skipped has none
        for name, column in self.mean.columns().items():
            for value in column.tolist():  # one by one, so that it rounds the same whenever it is read
                self.sums[name] = self.sums.get(name, 0.0) + value
        return self.mean.read()

    def read(self) -> dict[str, float]:
        """Return the means over all that was folded, and start anew."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means


def _position(runner: Runner) -> str:
    epoch = min(-(-runner.step // runner.steps_per_epoch) or 1, max(runner.epochs, 1))
    return f"epoch {epoch}/{runner.epochs}  step {runner.step}/{runner.total_steps}"


def _numbers(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())


def _clock(seconds: float) -> str:
    """Return a time as people write it.

    >>> _clock(59.6), _clock(3723)
    ('1:00', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _new_bar() -> Progress:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, TextColumn

    class Patient(Terminal):
        def on_broken_pipe(self) -> None:  # rich would end the program
            self.quiet = True

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}", markup=False))
    bar = Progress(*columns, console=Patient(), auto_refresh=False, transient=True)
    bar.add_task("", text="")
    _quietly(bar.start)
    return bar


def _say(line: str) -> None:
    _quietly(lambda: print(line, flush=True))


def _quietly(write: Callable[[], object]) -> None:
    """Write to the terminal; training goes on where nobody listens any more."""
    try:
        write()
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # or Python would fail once more at exit, when it flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # the terminal is gone, or stdout is closed
        pass
