"""Going back to the latest checkpoint after numbers that are not finite, to go on without their batch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from visreg import dist
from visreg.checkpoint import resume, save
from visreg.errors import NotFiniteError
from visreg.step import drop_gradients

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


def save_start(runner: Runner) -> None:
    """Have a checkpoint to go back to from the first step on, in which the steps to skip are known."""
    state = runner.state_dict()
    if dist.is_main():
        save(state, _folder(runner) / f"step_{runner.step:08d}.pt")


def roll_back(runner: Runner, error: NotFiniteError) -> None:
    """Go back to the latest checkpoint, to go on from there without the step that ``error`` is about.

    Raises:
        NotFiniteError: if that is not asked for, or was done often enough.
    """
    if runner.on_nan != "rollback":
        raise error
    if len(runner.skipped) >= runner.max_rollbacks:
        message = f"{error}; {len(runner.skipped)} batches were skipped already, all that run.max_rollbacks allows"
        raise NotFiniteError(message, step=error.step) from error
    dist.gather(None)  # the main process has written what the others are about to read
    state = resume(_folder(runner))
    if state is None:
        raise error
    assert runner.optimizer is not None
    drop_gradients(runner.optimizer)
    skipped = [*runner.skipped, error.step]
    runner.load_state_dict(state)
    runner.skipped, runner.should_stop = skipped, runner.interrupted != 0
    count = f"{len(skipped)} of at most {runner.max_rollbacks}"
    logger.warning("%s", error)
    logger.warning("back at step %d, to go on without the batch of step %d, %s", runner.step, error.step, count)


def _folder(runner: Runner) -> Path:
    return runner.work_dir / "checkpoints"
