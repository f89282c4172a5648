"""Runs that live in processes of their own, so that they can be killed; forked from one that has imported all there is.

A run here saves at every step, the best as well, and keeps one checkpoint only.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch
from tiny import snapshot, tiny_config, tiny_runner

from visreg import faults
from visreg.build import build_runner
from visreg.checkpoint import resume, save
from visreg.errors import ResourceError
from visreg.generators import seed_others
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.ema import EMA
from visreg.hooks.metrics_log import MetricsLog

STEPS = 7  # an epoch of five, and more
POINTS = (
    "save:opened", "save:half-written", "save:written", "save:synced", "save:renamed", "save:folder-synced",
    "save:linked", "prune:before", "prune:between", "prune:after",
)  # fmt: skip
KILLED = 137
TIME_LIMIT = 60  # seconds


def new_runner(work_dir: Path, asynchronous: bool, **options):
    checkpoint = Checkpoint(every_steps=1, keep=1, best="accuracy", asynchronous=asynchronous)
    options = {"total_steps": STEPS, "eval_steps": 2, **options}
    return tiny_runner(work_dir, [EMA(), MetricsLog(every=3), checkpoint], **options)


def live(work_dir: Path, asynchronous: bool, point: str = "", step: int = 0) -> None:
    """Train to the end and leave the state in ``end.pt``, or die at ``point`` of the save of ``step``.

    If that save does not come there, or was done before, it is the next one that does.
    """
    logging.disable()
    torch.set_num_threads(1)
    runner = new_runner(work_dir, asynchronous)
    state = resume(work_dir / "checkpoints")
    if state is not None:
        runner.load_state_dict(state)
    wanted, saves = max(step - runner.step, 1), 0

    def inject(reached: str) -> None:
        nonlocal saves
        saves += reached == "save:opened"
        if reached == point and saves >= wanted:
            os._exit(KILLED)

    faults.inject = inject
    runner.train()
    torch.save(snapshot(runner), work_dir / "end.pt")


def save_within_limit(folder: Path, size: int) -> None:
    """Save where no file may have more than ``size`` bytes, and exit as a command would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        save({"visreg": "0", "weights": torch.arange(20000.0)}, folder / "step_00000002.pt")
    except ResourceError as error:
        os._exit(error.exit_code)


def live_with_workers(work_dir: Path, workers: int) -> None:
    """Train like `live`, sample by sample, in so many worker processes."""
    logging.disable()
    torch.set_num_threads(1)
    config = tiny_config(
        default_hooks=[{"type": "MetricsLog", "every": 3}],
        hooks=[{"type": "EMA"}, {"type": "Checkpoint", "every_steps": 1, "keep": 1, "best": "accuracy"}],
        train={"transforms": [{"type": "RandomRotation", "degrees": 20}], "workers": workers, "batch_size": 90},
        run={"epochs": 5, "eval_every": 1, "work_dir": str(work_dir)},
    )
    seed_others(0)
    runner = build_runner(config)
    state = resume(work_dir / "checkpoints")
    if state is not None:
        runner.load_state_dict(state)
    runner.train()
    torch.save(snapshot(runner), work_dir / "end.pt")


class Lives:
    """A process that has imported all there is, and forks one that trains whenever it is asked to."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:0] = {sys.path!r}; import lives; lives.serve()"
        self.server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, name: str, *arguments, kill_after: float | None = None) -> int:
        """Call the function of this module, by SIGKILL not for longer than that; return how its process ended.

        That is its exit code, negative where a signal ended it.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps([name, kill_after, *map(str_of_path, arguments)]).encode() + b"\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def stop(self) -> None:
        self.server.communicate()


def str_of_path(argument):
    return str(argument) if isinstance(argument, Path) else argument


def serve() -> None:
    """Answer the requests of a `Lives`."""
    torch.set_num_threads(1)
    build_runner(tiny_config(train={"workers": 1, "transforms": [{"type": "RandomRotation", "degrees": 20}]}))
    new_runner(Path("unused"), False)  # imports what is imported late; one that trained could not be forked
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, kill_after, work_dir, *rest = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(TIME_LIMIT)  # ends the process
            try:
                globals()[name](Path(work_dir), *rest)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        deadline = time.monotonic() + (TIME_LIMIT + 1 if kill_after is None else kill_after)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
        print(os.waitstatus_to_exitcode(ended[1]), file=answers, flush=True)
