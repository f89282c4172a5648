"""The training loop."""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, get_args

import torch
from attrs import define, field
from attrs.validators import ge, in_
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import visreg
from visreg import dist, generators
from visreg.checkpoint import differences
from visreg.config import dumps_json
from visreg.data import Batch, split
from visreg.errors import CheckpointError, VisregError
from visreg.hook import Event, Hook
from visreg.loader import Loader
from visreg.metric import Metric
from visreg.schedule import Schedule
from visreg.task import Task

logger = logging.getLogger("visreg")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@define(kw_only=True, eq=False)
class Runner:
    """Trains a task and evaluates it, calling hooks on the way.

    Attributes:
        total_steps: the step that training ends at.
        eval_steps: evaluate whenever this many more steps are done, and at the end; 0 for never.
        accumulate: how many parts to cut each batch into, to save memory; the gradients are those of the whole.
        step: how many optimizer steps are done; position and epoch follow from it.
        batch: the latest training batch.
        losses: its losses by name, detached, on the device.
        scores: the latest evaluation's metrics, by name.
        evaluated: the step of that evaluation.
        should_stop: set it to end training after the current step.
        interrupted: the number of the signal that asked for it, or 0.
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
    compile: bool = False
    device: torch.device = field(factory=lambda: torch.device("cpu"))
    work_dir: Path = Path("work")
    config: Mapping[str, Any] = field(factory=dict, repr=False)

    step: int = field(default=0, init=False)
    batch: Batch = field(factory=dict, init=False, repr=False)
    losses: dict[str, Tensor] = field(factory=dict, init=False)
    scores: dict[str, float] = field(factory=dict, init=False)
    evaluated: int = field(default=0, init=False)
    should_stop: bool = field(default=False, init=False)
    interrupted: int = field(default=0, init=False)
    scaler: torch.amp.GradScaler = field(init=False, repr=False)
    _forward: Callable[[Batch], dict[str, Tensor]] = field(init=False, repr=False)
    _no_sync: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, init=False, repr=False)
    _callbacks: dict[Event, list[Callable[[Runner], None]]] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._callbacks = {event: _overridden(self.hooks, event) for event in get_args(Event)}
        self._forward = self.task

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """How many optimizer steps an epoch takes: one for each batch."""
        return len(self.train_loader) if self.train_loader is not None else 1

    @property
    def epochs(self) -> int:
        """How many epochs will have been begun when training ends."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether training is to end here."""
        return self.should_stop or self.step >= self.total_steps

    def train(self) -> None:
        """Train until ``total_steps`` are done or a hook asks to stop."""
        self.call("before_train")
        self.wrap()
        try:
            if self._eval_is_due():  # an interrupted run had no time for it
                self.evaluate()
                self.call("between_steps")
            while not self.finished:
                self.train_epoch()
        finally:
            self.call("after_train")
            self._unwrap()

    def wrap(self) -> None:
        """Join the task to the other processes' and compile it; to be done anew whenever other parameters train."""
        module: nn.Module = self.task
        self._unwrap()
        if dist.world_size() > 1:
            module = DistributedDataParallel(module, device_ids=[self.device] if self.device.type == "cuda" else None)
            self._no_sync = module.no_sync
        self._forward = torch.compile(module) if self.compile else module

    def _unwrap(self) -> None:
        """Free the wrapper, its hooks on the parameters, and what it holds of the process group."""
        self._forward, self._no_sync = self.task, nullcontext

    def train_epoch(self) -> None:
        """Take the steps of the current epoch that are still to be done, one for each batch."""
        assert self.train_loader is not None, "a runner that trains is built with a train_loader"
        self.task.train()
        self.call("before_epoch")
        for batch in self.train_loader.epoch(self.epoch, start=self.step % self.steps_per_epoch):
            self.batch = batch
            self.call("before_step")
            self.train_step(batch)
            self.step += 1
            self.call("after_step")
            if self._eval_is_due():
                self.evaluate()
            if self.step % self.steps_per_epoch == 0:
                self.call("after_epoch")
            self.call("between_steps")
            if self.finished:
                break

    def train_step(self, batch: Batch) -> None:
        """Take one optimizer step on ``batch``."""
        assert self.optimizer is not None, "a runner that trains is built with an optimizer"
        parts = split(batch, self.accumulate)
        self.losses = {}
        for part, share in parts[:-1]:
            with self._no_sync():
                self.backward(part, share)
        self.backward(*parts[-1])
        self.scaler.unscale_(self.optimizer)
        self.call("after_backward")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.schedule.after_step()
        if (self.step + 1) % self.steps_per_epoch == 0:
            self.schedule.after_epoch()

    def backward(self, part: Batch, share: float) -> None:
        """Add to the gradients, and to ``losses``, ``share`` of those of a part of the batch."""
        with self.autocast():
            losses = self._forward(part)
            loss = functools.reduce(operator.add, losses.values())
        self.scaler.scale(loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]  # torch's
        for name, value in losses.items():
            value = value.detach() if share == 1 else value.detach() * share
            self.losses[name] = self.losses[name] + value if name in self.losses else value

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the task on the validation batches; they are left in ``scores`` too."""
        was_training = self.task.training
        self.task.eval()
        dist.share(self.task.buffers())  # each process has normalised with statistics of its own
        try:
            self.call("before_eval")
            self.scores = self._score()
            self.evaluated = self.step
            self.schedule.after_eval(self.scores)
            self.call("after_eval")
        finally:
            self.task.train(was_training)
        return self.scores

    def _score(self) -> dict[str, float]:
        for metric in self.metrics:
            metric.reset()
        for batch in self.val_loader.epoch(0) if self.val_loader is not None else ():
            with self.autocast():
                predictions = self.task.predict(batch)
            for metric in self.metrics:
                metric.update(predictions, batch)
        return {name: score for metric in self.metrics for name, score in metric.compute().items()}

    def call(self, event: Event) -> None:
        """Call every hook that overrides ``event``, in order."""
        for callback in self._callbacks[event]:
            callback(self)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which matrix products use ``precision``."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on from here, and to use the model without its data.

        Every process must enter, since each has random state. Besides state there are ``visreg``, the version;
        ``config``, as JSON text that `visreg.config.loads_json` reads; ``data``, the name of the dataset that the
        scores are on; and ``classes``, the name of each class by index.
        """
        infos = [loader.info for loader in (self.val_loader, self.train_loader) if loader is not None]
        return {
            "visreg": visreg.__version__,
            "config": dumps_json(dict(self.config)),
            "data": infos[0].name if infos else "",
            "classes": next((list(info.classes) for info in infos if info.classes), []),
            "step": self.step,
            "scores": dict(self.scores),
            "evaluated": self.evaluated,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "hooks": [{"type": type(hook).__name__, "state": hook.state_dict()} for hook in self.hooks],
            "generators": dist.gather(generators.state(self.device)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises:
            CheckpointError: if it is of another model, optimizer or schedule, or of a run with other hooks.
        """
        self.load_task(state)
        for name in ("optimizer", "schedule", "scaler"):
            try:
                getattr(self, name).load_state_dict(state[name])
            except (ValueError, KeyError, RuntimeError) as error:
                raise CheckpointError(f"the checkpoint's {name} does not fit this config's: {error}") from error
        self.load_hooks(state)
        self.step, self.evaluated, self.scores = state["step"], state["evaluated"], dict(state["scores"])
        if len(state["generators"]) == dist.world_size():
            generators.set_state(state["generators"][dist.rank()], self.device)

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
        saved = [item for item in state["hooks"] if item["state"]]
        for hook in self.hooks:
            match = next((item for item in saved if item["type"] == type(hook).__name__), None)
            if match is not None:
                saved.remove(match)
                hook.load_state_dict(match["state"])
            elif hook.state_dict():
                logger.warning("the checkpoint knows nothing of the hook %s, which starts afresh", type(hook).__name__)
        for item in saved:
            logger.warning("the checkpoint has the state of a hook %s, which this config lacks", item["type"])

    def _eval_is_due(self) -> bool:
        if self.val_loader is None or not self.eval_steps or self.interrupted or self.evaluated == self.step:
            return False
        return self.step % self.eval_steps == 0 or self.step == self.total_steps


def _overridden(hooks: Sequence[Hook], event: Event) -> list[Callable[[Runner], None]]:
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise VisregError(f"{hook!r} is not a Hook; derive its class from visreg.Hook")
    return [getattr(hook, event) for hook in hooks if getattr(type(hook), event) is not getattr(Hook, event)]
