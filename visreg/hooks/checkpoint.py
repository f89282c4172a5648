"""Saves the run, so that it can go on later and be used elsewhere."""

from __future__ import annotations

import logging
import math
import stat
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field
from attrs.validators import and_, ge, in_, instance_of, min_len, optional

from visreg import dist
from visreg.checkpoint import newest, save, step_of
from visreg.errors import ResourceError
from visreg.faults import reach
from visreg.hook import Hook
from visreg.hooks.leftovers import free_name
from visreg.hooks.readings import monitored
from visreg.snapshot import Writer
from visreg.whole_file import remove_torn

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")

MAX_FAILURES = 3
WORTHWHILE, BEARABLE = 1 << 20, 4 << 30  # bytes of parameters


@define
class _Save:
    """What to make of a save once it is known how it went."""

    step: int
    best_before: float | None


@define(kw_only=True, eq=False)
class Checkpoint(Hook):
    """Saves ``checkpoints/step_00000938.pt`` in the work directory every so often, and ``checkpoints/best.pt``.

    The run is saved at its end as well, and when it is interrupted. A save that fails, as on a full disk, is reported
    and done again at the next interval; the third failure in a row ends the run. Files of steps that are still to come,
    which an earlier run left, or which were damaged, are moved to ``checkpoints.1``.

    Args:
        every: save after every so many epochs; 0 for not by epochs.
        every_steps: save after every so many optimizer steps as well.
        keep: how many of the latest to keep, from 1; where there is another one, damage to the latest costs little.
        best: the name of the score that decides which checkpoint is the best; there is no ``best.pt`` where not given.
            A score that is not finite is never the best.
        mode: whether ``"max"`` or ``"min"`` is best.
        asynchronous: whether training goes on while a copy of the state is written, which takes as much host memory as
            the checkpoint is long; ``"auto"`` is for models of 1 MiB to 4 GiB. A run does not end before all is
            written, and a crash meanwhile leaves the checkpoint before.
    """

    every: int = field(default=1, validator=[instance_of(int), ge(0)])
    every_steps: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    keep: int = field(default=2, validator=[instance_of(int), ge(1)])
    best: str | None = field(default=None, validator=optional(and_(instance_of(str), min_len(1))))
    mode: Literal["max", "min"] = field(default="max", validator=in_(("max", "min")))
    asynchronous: bool | Literal["auto"] = field(default="auto", validator=in_((True, False, "auto")))
    best_score: float | None = field(default=None, init=False, validator=optional(instance_of((float, int, Real))))
    _is_best: bool = field(default=False, init=False)
    _saved: int = field(default=0, init=False)  # the step of the latest save that is known to have gone well
    _under_way: _Save | None = field(default=None, init=False)
    _writer: Writer = field(factory=Writer, init=False, repr=False)
    _failures: int = field(default=0, init=False)
    _handled: BaseException | None = field(default=None, init=False, repr=False)

    def monitors(self) -> tuple[str, ...]:
        return (self.best,) if self.best else ()

    def before_train(self, runner: Runner) -> None:
        self._saved, self._is_best, self._failures = runner.step, False, 0
        self._handled = sys.exception()
        if dist.is_main():
            _prepare(_folder(runner), runner.step, self.keep)

    def after_eval(self, runner: Runner) -> None:
        if self.best:
            self._settle()  # so that it is known which score is to be beaten
            score = monitored(runner, self.best, "Checkpoint")
            self._is_best = isinstance(score, Real) and math.isfinite(score) and self._is_better(score)

    def between_steps(self, runner: Runner) -> None:
        due = self._is_due(runner)
        if due or self._is_best:
            self._save(runner, also_as_last=due, beside=not runner.finished and self._pays(runner))

    def after_train(self, runner: Runner) -> None:
        failed = sys.exception() is not self._handled
        self._handled = None
        if failed:  # and the other processes may not get here
            self._under_way = None
            if (error := self._writer.wait()) is not None:
                logger.warning("%s", error)
            return
        self._settle()
        if runner.step > self._saved:
            self._save(runner, also_as_last=True, final=True)

    def _pays(self, runner: Runner) -> bool:
        if self.asynchronous != "auto":
            return self.asynchronous
        return WORTHWHILE <= sum(parameter.nbytes for parameter in runner.task.parameters()) <= BEARABLE

    def _is_due(self, runner: Runner) -> bool:
        if self.every_steps and runner.step % self.every_steps == 0:
            return True
        return self.every > 0 and runner.step % (self.every * runner.steps_per_epoch) == 0

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return True
        return score > self.best_score if self.mode == "max" else score < self.best_score

    def _save(self, runner: Runner, *, also_as_last: bool, beside: bool = False, final: bool = False) -> None:
        """Save what is due, ``beside`` the training that goes on; every process must call, and the main one writes."""
        self._settle()
        self._under_way = _Save(runner.step if also_as_last else self._saved, self.best_score)
        names = []
        if self._is_best:  # comes first: a run that goes on from this step takes it that its best one is there
            names.append("best.pt")
            self.best_score = runner.scores[self.best or ""]
        if also_as_last:
            names.append(f"step_{runner.step:08d}.pt")
        self._is_best = False
        state = runner.state_dict()
        if dist.is_main():
            self._writer.start(partial(_write, _folder(runner), names, self.keep), state, copied=beside)
        if not beside:
            self._settle(final=final)

    def _settle(self, *, final: bool = False) -> None:
        """Wait for the save that is under way and take note of how it went; every process must call."""
        save, self._under_way = self._under_way, None
        if save is None:
            return
        error = self._writer.wait()
        if not dist.gather(error is not None)[0]:
            self._saved, self._failures = save.step, 0
            return
        self.best_score = save.best_before
        self._failures += 1
        if error is None:
            error = ResourceError("the main process cannot save the checkpoint")
        if final or self._failures >= MAX_FAILURES or not isinstance(error, ResourceError):
            raise error
        if dist.is_main():
            logger.warning("%s; training goes on, and the next interval tries again", error)

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_score = state["best_score"]


def _folder(runner: Runner) -> Path:
    return runner.work_dir / "checkpoints"


def _prepare(folder: Path, step: int, keep: int) -> None:
    """Make the folder, be sure that it can be written to, and move away what is of steps after ``step``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for place in (folder, folder.parent):
            remove_torn(place)
        _warn_if_open(folder)
        _set_aside_later(folder, step)
        if [step_of(path) for path in newest(folder)[:1]] == [step]:  # it was just resumed, so it is whole
            _prune(folder, keep)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"{folder}: cannot write checkpoints: {reason}; choose another work_dir") from error


def _warn_if_open(folder: Path) -> None:
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        logger.warning("%s: anyone may change the checkpoints in it; chmod o-w would end that", folder)


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


def _write(folder: Path, names: Sequence[str], keep: int, state: Any) -> None:
    save(state, *(folder / name for name in names))
    reach("prune:before")
    _prune(folder, keep)
    reach("prune:after")


def _prune(folder: Path, keep: int) -> None:
    for path in newest(folder)[keep:]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s: cannot remove the old checkpoint: %s", path, error.strerror)
        reach("prune:between")
