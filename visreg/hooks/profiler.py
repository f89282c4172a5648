"""Shows where the time of a step goes."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from attrs import define, field
from attrs.validators import ge, instance_of
from torch.profiler import ProfilerActivity, profile, schedule

from visreg import dist
from visreg.hook import Hook
from visreg.hooks.leftovers import set_aside
from visreg.hooks.time_table import TimeTable

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


@define(kw_only=True, eq=False)
class Profiler(Hook):
    """Traces some steps, writes ``trace.json`` in the work directory, and tells where their time went.

    The trace is for ui.perfetto.dev or chrome://tracing, and has every operation under the part of the step it belongs
    to. The table has the time of each part, in ms of a step and as a share: waiting for the batch, copying it to the
    device, forward (with the loss), backward, optimizer (with the look at its gradients), hooks, and the rest; on a GPU
    also the time in which that had nothing to do. Where a GPU is late, the parts are those of the processor that
    commands it. Profiling takes time of its own, most where operations are small. Afterwards the hook does nothing.
    Of a run that ends sooner, there is what was traced till then.

    Args:
        warmup: steps to leave out first, such as those that are compiled in.
        steps: how many to trace.
        memory: note every allocation too.
        shapes: note the shapes of what operations are given, too.
    """

    warmup: int = field(default=20, validator=[instance_of(int), ge(1)])
    steps: int = field(default=10, validator=[instance_of(int), ge(1)])
    memory: bool = field(default=False, validator=instance_of(bool))
    shapes: bool = field(default=False, validator=instance_of(bool))
    table: TimeTable | None = field(default=None, init=False, repr=False)
    _profile: profile | None = field(default=None, init=False, repr=False)
    _first: int = field(default=0, init=False, repr=False)

    def before_train(self, runner: Runner) -> None:
        self._first = runner.step + self.warmup
        left, needed = runner.total_steps - runner.step, self.warmup + self.steps
        if left < needed and dist.is_main():
            logger.warning("Profiler: takes %d steps, and the run has %d; lower warmup and steps", needed, left)

    def before_step(self, runner: Runner) -> None:
        # torch itself wants a step to warm up; afterwards only the name is of use, which ends the wait for a batch
        if runner.step == self._first - 1 and dist.is_main():
            self._begin(runner)

    def between_steps(self, runner: Runner) -> None:
        if self._profile is not None:
            self._profile.step()
            if self._traced == self.steps:
                self._end(runner)

    def after_train(self, runner: Runner) -> None:
        traced = self._traced
        if traced > 0:
            self._end(runner)
        elif self._profile is not None:
            self._profile.stop()
            self._profile = None
        if (traced or self.table is None) and dist.is_main():
            needed = f"{self.warmup} to warm up and {self.steps} to trace"
            logger.warning(
                "Profiler: training ended when %d of the steps that it takes, %s, were traced", traced, needed
            )

    @property
    def _traced(self) -> int:
        """How many whole steps are in the trace that is being made; of those told to torch, the first is left out."""
        return max(0, self._profile.step_num - 1) if self._profile is not None else 0

    def _begin(self, runner: Runner) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it complains of machines without a GPU
        gpu = [ProfilerActivity.CUDA] if runner.device.type == "cuda" else []
        self._profile = profile(
            activities=[ProfilerActivity.CPU, *gpu],
            schedule=schedule(wait=0, warmup=1, active=self.steps, repeat=1),
            profile_memory=self.memory,
            record_shapes=self.shapes,
            acc_events=True,
        )
        self._profile.start()

    def _end(self, runner: Runner) -> None:
        assert self._profile is not None
        done, traced, self._profile = self._profile, self._traced, None
        done.stop()
        path = runner.work_dir / "trace.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            set_aside(path)
            done.export_chrome_trace(str(path))
            where = f"trace in {path}, for ui.perfetto.dev"
        except (OSError, RuntimeError) as error:
            where = f"the trace cannot be written: {error}"
        self.table = TimeTable.of(done.events() or (), traced)  # type: ignore[no-untyped-call]  # torch's
        steps = f"steps {self._first + 1} to {self._first + traced}"
        logger.info("where the time of %s went, with that of profiling; %s\n%s", steps, where, self.table)
