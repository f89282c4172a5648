"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from attrs import define, field, setters
from attrs.validators import ge, in_
from torch import Tensor
from torch.optim import Optimizer

from visreg import dist, generators
from visreg.callbacks import Callback, call_all, callbacks_of
from visreg.checkpoint import differences
from visreg.data import Batch
from visreg.errors import CheckpointError, NotFiniteError
from visreg.hook import Event, Hook
from visreg.loader import Loader
from visreg.metric import Metric
from visreg.phase import phase
from visreg.rollback import roll_back, save_start
from visreg.schedule import Schedule
from visreg.signals import Left, Signals
from visreg.state import restore, restore_hooks, state_of
from visreg.step import Step
from visreg.task import Task

T = TypeVar("T")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@define(kw_only=True, eq=False, on_setattr=setters.NO_OP)
class Runner:
    """Trains a task and evaluates it, calling hooks on the way.

    Attributes:
        total_steps: the step that training ends at.
        eval_steps: evaluate whenever this many more steps are done, and at the end; 0 for never.
        compile: whether to compile the training step, or the mode to do so in.
        accumulate: how many parts to cut each batch into, to save memory; the gradients are those of the whole.
        steps_per_epoch: how many optimizer steps an epoch takes: one for each batch.
        step: how many optimizer steps are done; position and epoch follow from it.
        batch: the latest training batch.
        losses: its losses by name, detached, on the device.
        scores: the latest evaluation's metrics, by name.
        evaluated: the step of that evaluation.
        on_nan: what to do about a loss or gradient that is not finite: ``"stop"``, or ``"rollback"`` to the latest
            checkpoint and go on without that batch, or ``"ignore"``, which does not look.
        max_rollbacks: how often to do so.
        skipped: the steps, from 1, that are left out for it: they count, and change no weight.
        overflows: how many steps in a row fp16's scaler has left out.
        should_stop: set it to end training after the current step.
        interrupted: the number of the signal that asked for it, or 0; all processes learn of it at the same step.
        signals: what signals have asked for; nothing, unless it is entered.
    """

    task: Task
    optimizer: Optimizer | None = None
    schedule: Schedule = field(factory=Schedule)
    train_loader: Loader | None = None
    val_loader: Loader | None = None
    metrics: Sequence[Metric] = ()
    hooks: Sequence[Hook] = ()
    total_steps: int = field(default=0, validator=ge(0))
    eval_steps: int = field(default=0, validator=ge(0))
    accumulate: int = field(default=1, validator=ge(1))
    precision: str = field(default="fp32", validator=in_(DTYPES))
    compile: bool | str = False
    device: torch.device = field(factory=lambda: torch.device("cpu"))
    on_nan: str = field(default="stop", validator=in_(("stop", "rollback", "ignore")))
    max_rollbacks: int = field(default=3, validator=ge(1))
    work_dir: Path = Path("work")
    config: Mapping[str, Any] = field(factory=dict, repr=False)

    steps_per_epoch: int = field(init=False)
    step: int = field(default=0, init=False)
    batch: Batch = field(factory=dict, init=False, repr=False)
    losses: dict[str, Tensor] = field(factory=dict, init=False)
    scores: dict[str, float] = field(factory=dict, init=False)
    evaluated: int = field(default=0, init=False)
    should_stop: bool = field(default=False, init=False)
    interrupted: int = field(default=0, init=False)
    skipped: list[int] = field(factory=list, init=False)
    overflows: int = field(default=0, init=False)
    signals: Signals = field(factory=Signals, init=False, repr=False)
    scaler: torch.amp.GradScaler = field(init=False, repr=False)
    _step: Step = field(init=False, repr=False)
    _callbacks: dict[Event, list[Callback]] = field(init=False, repr=False)
    _agreement: dist.Agreement = field(factory=dist.Agreement, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._callbacks = callbacks_of(self.hooks)
        self._step = Step.of(self)
        self.steps_per_epoch = len(self.train_loader) if self.train_loader is not None else 1

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self.steps_per_epoch

    @property
    def epochs(self) -> int:
        """How many epochs will have been begun when training ends."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether training is to end here."""
        return self.should_stop or self.step >= self.total_steps

    def train(self) -> None:
        """Train until ``total_steps`` are done or a hook asks to stop.

        Raises:
            NotFiniteError: if a loss or gradient is not finite, unless ``on_nan`` says to go on without it.
            ResourceError: if there is not enough memory for a single sample.
        """
        while True:
            try:
                return self._train()
            except NotFiniteError as error:
                roll_back(self, error)

    def _train(self) -> None:
        self._step = Step.of(self)
        self.call("before_train")
        self.wrap()
        try:
            if self.on_nan == "rollback":
                save_start(self)
            self.obey_signals()
            if self._eval_is_due():
                self.finish_step()
            while not self.finished:
                self.train_epoch()
            self._step.finite.settle(self)
        finally:
            self.call("after_train")
            self._step.unwrap(self)
            self._agreement.close()

    def wrap(self) -> None:
        """Join the task to the other processes' and compile it; to be done anew whenever other parameters train."""
        self._step.wrap(self)

    def train_epoch(self) -> None:
        """Take the steps of the current epoch that are still to be done, one for each batch."""
        assert self.train_loader is not None, "a runner that trains is built with a train_loader"
        self.task.train()
        self.call("before_epoch")
        for batch in self._batches():
            self.batch = batch
            self.call("before_step")
            self.train_step(batch)
            self.step += 1
            self.call("after_step")
            self.obey_signals()
            self.finish_step()
            if self.finished:
                break

    def _batches(self) -> Iterator[Batch]:
        """Return the batches of the epoch that are still to be trained on; a signal ends the wait for one."""
        assert self.train_loader is not None
        batches = self.train_loader.epoch(self.epoch, start=self.step % self.steps_per_epoch)
        if not self.train_loader.waits:
            return batches
        return iter(lambda: self._unless_signalled(lambda: next(batches, None)), None)

    def finish_step(self) -> None:
        """Do what is due after a step, once it is taken or, if a signal left no time for the evaluation, resumed at."""
        if self._eval_is_due():
            if not self.interrupted:
                self.evaluate()
            if self._eval_is_due():
                return
        if self.step % self.steps_per_epoch == 0:
            self.call("after_epoch")
        self.call("between_steps")

    def train_step(self, batch: Batch) -> None:
        """Take one optimizer step on ``batch``, unless it is among those that are ``skipped``."""
        if self.step + 1 in self.skipped:
            self.losses = {}
        else:
            self._step.take(self, batch)
        self.optimizer._opt_called = True  # type: ignore[union-attr]  # else schedulers warn if the first is left out
        self.schedule.after_step()
        if (self.step + 1) % self.steps_per_epoch == 0:
            self.schedule.after_epoch()

    def gradients(self, batch: Batch) -> bool:
        """Add those of ``batch`` to the gradients, and set ``losses``; return whether there was memory for it."""
        return self._step.gradients(self, batch)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the task on the validation batches; they are left in ``scores`` too.

        Where a signal ends it, it leaves nothing, returns an empty dict, and is due as before.
        """
        self._step.finite.settle(self)
        was_training = self.task.training
        self.task.eval()
        try:
            self.call("before_eval")
            dist.share(self.task.buffers())  # each process has normalised with statistics of its own
            with phase("evaluation"):
                scores = self._unless_signalled(self._score)
            if scores is None:
                self.call("after_interrupted_eval")
                return {}
            self.scores = scores
            self.evaluated = self.step
            self.schedule.after_eval(self.scores)
            self.call("after_eval")
        finally:
            self.task.train(was_training)
        return self.scores

    def _score(self) -> dict[str, float]:
        for metric in self.metrics:
            metric.reset()
        batches = iter(self.val_loader.epoch(0)) if self.val_loader is not None else iter(())
        for _ in range(len(self.val_loader) if self.val_loader is not None else 0):
            if self.signals.listening:
                self.obey_signals()
                if self.interrupted:
                    raise Left(self.interrupted)
            if (batch := next(batches, None)) is None:  # the others have one more, but all agree equally often
                continue
            with self.autocast():
                predictions = self.task.predict(batch)
            for metric in self.metrics:
                metric.update(predictions, batch)
        return {name: score for metric in self.metrics for name, score in metric.compute().items()}

    def obey_signals(self) -> None:
        """Stop if a signal asks for it; every process must call, and all of them stop at the same call."""
        self.signals.tell()
        number = self._agreement.largest(self.signals.received)
        if number:
            self.interrupted, self.should_stop = number, True

    def _unless_signalled(self, function: Callable[[], T]) -> T | None:
        """Return what ``function`` returns, or None if a signal ends it; the generators are then as they were before.

        One of several processes must not leave by itself what the others stay in.
        """
        if not self.signals.listening:
            return function()
        before = generators.state(self.device)
        try:
            return function() if dist.world_size() > 1 else self.signals.leavable(function)
        except Left:
            generators.set_state(before, self.device)
            self.obey_signals()
            return None

    def call(self, event: Event) -> None:
        """Call every hook that overrides ``event``, in order; where none does, that costs next to nothing."""
        if callbacks := self._callbacks[event]:
            call_all(callbacks, event, self)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which matrix products use ``precision``."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here, and to use the model without its data.

        Every process must enter, since each has random state. Besides state there are ``visreg``, the version;
        ``config``, as JSON text that `visreg.config.loads_json` reads; ``data``, the name of the dataset that the
        scores are on; ``classes``, the name of each class by index, and ``class_names``, the same by key of a sample;
        ``train``, the data that is trained on and for how many steps; and ``environment``, what the last bits depend
        on.
        """
        self._step.finite.settle(self)
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any], *, override: bool = False) -> None:
        """Go on from where ``state`` was taken, with this run's length, and the schedule that belongs to it.

        Args:
            state: what `state_dict` returned.
            override: train on, though on other data, and with the options of this run's optimizer and this run's
                schedule, at the same step; else those are the state's.

        Raises:
            CheckpointError: if it is of another model, optimizer, schedule or data.
        """
        restore(self, state, override)

    def load_task(self, state: Mapping[str, Any]) -> None:
        """Take the weights from ``state``, and nothing else.

        Raises:
            CheckpointError: if they are of another model; lists up to 20 differences.
        """
        lines = differences(self.task.state_dict(), state["task"])
        if lines:
            raise CheckpointError("\n  ".join(["the checkpoint is of another model:", *lines]))
        self.task.load_state_dict(state["task"])

    def load_hooks(self, state: Mapping[str, Any]) -> None:
        """Give each hook the state of the hook of its type, the first to the first and so on; warn of any left over."""
        restore_hooks(self.hooks, state)

    def _eval_is_due(self) -> bool:
        if self.val_loader is None or not self.eval_steps or self.evaluated == self.step:
            return False
        return self.step % self.eval_steps == 0 or self.step == self.total_steps
