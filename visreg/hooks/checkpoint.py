"""Saves the run, so that it can go on later and be used elsewhere."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field
from attrs.validators import and_, ge, in_, instance_of, min_len, optional

from visreg import dist
from visreg.checkpoint import newest, save, step_of
from visreg.errors import ResourceError
from visreg.hook import Hook
from visreg.hooks.leftovers import free_name
from visreg.hooks.readings import monitored

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")

MAX_FAILURES = 3


@define(kw_only=True, eq=False)
class Checkpoint(Hook):
    """Saves ``checkpoints/step_00000938.pt`` in the work directory every so often, and ``checkpoints/best.pt``.

    The run is saved at its end as well, and when it is interrupted. A save that fails, as on a full disk, is reported
    and done again at the next interval; the third failure in a row ends the run. Files of steps that are still to come,
    which an earlier run left, or which were damaged, are moved to ``checkpoints.1``.

    Args:
        every: save after every so many epochs; 0 for not by epochs.
        every_steps: save after every so many optimizer steps as well.
        keep: how many of the latest to keep, from 1.
        best: the name of the score that decides which checkpoint is the best; there is no ``best.pt`` where not given.
            A score that is NaN is never the best.
        mode: whether ``"max"`` or ``"min"`` is best.
    """

    every: int = field(default=1, validator=[instance_of(int), ge(0)])
    every_steps: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    keep: int = field(default=1, validator=[instance_of(int), ge(1)])
    best: str | None = field(default=None, validator=optional(and_(instance_of(str), min_len(1))))
    mode: Literal["max", "min"] = field(default="max", validator=in_(("max", "min")))
    best_score: float | None = field(default=None, init=False)
    _is_best: bool = field(default=False, init=False)
    _saved: int = field(default=0, init=False)  # the step of the latest save
    _failures: int = field(default=0, init=False)
    _handled: BaseException | None = field(default=None, init=False, repr=False)

    def monitors(self) -> tuple[str, ...]:
        return (self.best,) if self.best else ()

    def before_train(self, runner: Runner) -> None:
        self._saved, self._is_best, self._failures = runner.step, False, 0
        self._handled = sys.exception()
        if dist.is_main():
            _prepare(_folder(runner), runner.step)

    def after_eval(self, runner: Runner) -> None:
        if self.best:
            score = monitored(runner, self.best, "Checkpoint")
            self._is_best = not math.isnan(score) and (self.best_score is None or self._is_better(score))

    def between_steps(self, runner: Runner) -> None:
        due = self._is_due(runner)
        if due or self._is_best:
            self._save(runner, also_as_last=due)

    def after_train(self, runner: Runner) -> None:
        failed = sys.exception() is not self._handled
        self._handled = None
        if runner.step > self._saved and not failed:
            self._save(runner, also_as_last=True, final=True)

    def _is_due(self, runner: Runner) -> bool:
        if self.every_steps and runner.step % self.every_steps == 0:
            return True
        return self.every > 0 and runner.step % (self.every * runner.steps_per_epoch) == 0

    def _is_better(self, score: float) -> bool:
        assert self.best_score is not None
        return score > self.best_score if self.mode == "max" else score < self.best_score

    def _save(self, runner: Runner, also_as_last: bool, final: bool = False) -> None:
        """Save what is due; every process must call, and the main one writes."""
        before, paths = self.best_score, []
        if also_as_last:
            paths.append(_folder(runner) / f"step_{runner.step:08d}.pt")
        if self._is_best:
            paths.append(_folder(runner) / "best.pt")
            self.best_score = runner.scores[self.best or ""]
        state = runner.state_dict()
        self._is_best = False
        try:
            if dist.is_main():
                for path in paths:
                    save(state, path)
                _prune(_folder(runner), self.keep)
            self._failures = 0
            self._saved = runner.step if also_as_last else self._saved
        except ResourceError as error:
            self.best_score = before
            self._failures += 1
            if final or self._failures >= MAX_FAILURES:
                raise
            logger.warning("%s; training goes on, and the next interval tries again", error)

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_score = state["best_score"]


def _folder(runner: Runner) -> Path:
    return runner.work_dir / "checkpoints"


def _prepare(folder: Path, step: int) -> None:
    """Make the folder, be sure that it can be written to, and move away what is of steps after ``step``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for torn in folder.glob(".*.pt.*"):  # a process that is killed while it saves leaves one
            torn.unlink()
        _set_aside_later(folder, step)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"{folder}: cannot write checkpoints: {reason}; choose another work_dir") from error


def _set_aside_later(folder: Path, step: int) -> None:
    later = [path for path in newest(folder) if step_of(path) > step]
    if step == 0 and (folder / "best.pt").exists():
        later.append(folder / "best.pt")
    if not later:
        return
    target = free_name(folder)
    target.mkdir()
    for path in later:
        path.rename(target / path.name)
    names = ", ".join(path.name for path in later)
    logger.warning("%s: %s of an earlier run moved to %s", folder, names, target.name)


def _prune(folder: Path, keep: int) -> None:
    for path in newest(folder)[keep:]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s: cannot remove the old checkpoint: %s", path, error.strerror)
