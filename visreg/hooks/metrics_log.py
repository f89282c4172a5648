"""Writes losses and scores to a file that programs can read."""

from __future__ import annotations

import json
import logging
import math
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field
from attrs.validators import ge, instance_of

from visreg import dist
from visreg.errors import ResourceError
from visreg.hook import Hook
from visreg.hooks.leftovers import set_aside
from visreg.hooks.readings import LossMean, data_name, flattened, learning_rate

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


@define(kw_only=True, eq=False)
class MetricsLog(Hook):
    """Writes ``metrics.jsonl`` in the work directory: a JSON object on each line.

    ::

        {"step": 50, "epoch": 0, "lr": 0.01, "loss": 2.2871}
        {"step": 938, "epoch": 1, "data": "MNIST", "accuracy": 0.9462}

    The first kind comes every ``every`` steps, and at the end for the steps that are left: ``epoch`` counts those that
    are complete, ``lr`` is the rate of the next step, and the losses are means over these steps and all processes. The
    second comes after each evaluation. Numbers that are not finite are null. A run that was killed and resumed has the
    same lines as one that never stopped; a file that another run left is renamed to ``metrics.jsonl.1``.

    Args:
        every: how many optimizer steps a line of losses is about.
    """

    every: int = field(default=50, validator=[instance_of(int), ge(1)])
    _losses: LossMean = field(factory=LossMean, init=False, repr=False)
    _file: FileIO | None = field(default=None, init=False, repr=False)
    # How many bytes of the file are known to be right.
    _offset: int = field(default=0, init=False, validator=[instance_of(int), ge(0)])
    # Lines that the disk would not take.
    _waiting: bytes = field(default=b"", init=False, repr=False, validator=instance_of(bytes))

    def before_train(self, runner: Runner) -> None:
        if dist.is_main():
            fresh = runner.step == 0 and not runner.skipped  # else it is this run that was rolled back
            self._file, self._offset = _open(runner.work_dir / "metrics.jsonl", runner.step, self._offset, fresh)

    def after_step(self, runner: Runner) -> None:
        self._losses.seen.append(runner.losses)
        if runner.step % self.every == 0:
            self._write(_loss_row(runner, self._losses.read(over_processes=True)))

    def after_eval(self, runner: Runner) -> None:
        fixed = {"step": runner.step, "epoch": runner.epoch, "data": data_name(runner)}
        self._write(flattened(fixed, runner.scores))

    def after_train(self, runner: Runner) -> None:
        if runner.finished and self._losses.seen:
            # Not counted in the offset: a run that is given more steps takes this line back and completes it.
            offset = self._offset
            self._write(_loss_row(runner, self._losses.means(over_processes=True)))
            self._offset = offset
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is None:  # another process's, or an evaluation that is not part of training
            return
        self._waiting += json.dumps({name: _strict(value) for name, value in row.items()}).encode() + b"\n"
        try:
            written = self._file.write(self._waiting)
        except OSError as error:
            logger.warning("%s: cannot write: %s; the next line tries again", self._file.name, error.strerror)
            return
        self._offset += written
        self._waiting = self._waiting[written:]

    def state_dict(self) -> dict[str, Any]:
        waiting = self._waiting.decode()
        if self._file is not None:
            with suppress(OSError):  # what a save counts on is to be on the disk before it
                os.fsync(self._file.fileno())
        return {"offset": self._offset, "waiting": waiting, "losses": self._losses.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._offset, self._waiting = state["offset"], state["waiting"].encode()
        self._losses.load_state_dict(state["losses"])


def _loss_row(runner: Runner, losses: dict[str, float]) -> dict[str, Any]:
    return flattened({"step": runner.step, "epoch": runner.epoch, "lr": learning_rate(runner)}, losses)


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _open(path: Path, step: int, offset: int, fresh: bool) -> tuple[FileIO, int]:
    """Return the file, which ends where the run stands, and how long it is in bytes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            set_aside(path)
            offset = 0
        file = FileIO(path, "a")
        size = file.seek(0, 2)
        if size < offset:
            logger.warning("%s: lines from before step %d are missing", path, step)
        file.truncate(min(size, offset))
        return file, file.seek(0, 2)
    except OSError as error:
        raise ResourceError(f"{path}: cannot write: {error.strerror or error}; choose another work_dir") from error
