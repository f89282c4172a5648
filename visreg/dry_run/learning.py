"""The optimizer and the schedules of a config, tried on blank gradients."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from visreg.config import ConfigPath
from visreg.diagnosis import message_of
from visreg.dry_run.parts import FailedError, Parts
from visreg.parts import groups_for, schedule_context
from visreg.registry import OPTIMIZERS, SCHEDULES
from visreg.schema import RunConfig
from visreg.specs import Spec
from visreg.task import Task

UNKNOWN_LENGTH = 1 << 40  # of a run whose data has not been counted


def build_optimizer(parts: Parts, task: Task | None) -> Optimizer | None:
    """Return the task's optimizer; without a task, try it on a weight of no use."""
    groups: list[dict[str, Any]] = [{"params": [nn.Parameter(torch.zeros(2, 2))]}]
    if task is not None and not any(weight.requires_grad for weight in task.parameters()):
        parts.found.append((("model",), "has no parameter to train"))
        return None
    try:
        if task is not None and not parts.is_broken("param_groups") and not parts.is_broken("optimizer"):
            groups = groups_for(task, parts.schema)
        with _compiler_left_out():
            optimizer: Optimizer = parts.build(OPTIMIZERS, parts.schema.optimizer, ("optimizer",), params=groups)
    except FailedError:
        return None
    except ValueError as error:
        parts.found.append((("param_groups",), message_of(error)))
        return None
    run = parts.schema.run or RunConfig(epochs=1)
    steps = run.steps or (run.epochs or 0) * parts.steps or UNKNOWN_LENGTH
    for place, spec in schedules_of(parts):
        own, length, _ = schedule_context(spec, steps, run.epochs or UNKNOWN_LENGTH)
        with suppress(FailedError):
            _move(parts, parts.build(SCHEDULES, own, place, optimizer=optimizer, **length), optimizer, place)
    return optimizer


def schedules_of(parts: Parts) -> Iterator[tuple[ConfigPath, Spec]]:
    """Yield the path and the spec of each schedule that is not known to be wrong."""
    single = isinstance(parts.schema.schedule, Mapping)
    for index, spec in enumerate(parts.schema.schedules):
        place: ConfigPath = ("schedule",) if single else ("schedule", index)
        if not parts.is_broken(*place):
            yield place, spec


def _move(parts: Parts, schedule: Any, optimizer: Optimizer, place: ConfigPath) -> None:
    """Let a schedule set the learning rate once, and look at it; then put it back."""
    before = [group["lr"] for group in optimizer.param_groups]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants an optimizer step first
            schedule.step(*[0.0] * isinstance(schedule, ReduceLROnPlateau))
    except Exception as error:  # whatever a schedule raises, the config named it
        parts.found.append((place, f"cannot take a step: {message_of(error)}"))
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    if not all(0 <= rate < math.inf for rate in rates):
        parts.found.append((place, f"sets the learning rate to {min(rates)}; it must not be below 0"))
    for group, rate in zip(optimizer.param_groups, before, strict=True):
        group["lr"] = rate


def try_step(parts: Parts, losses: Mapping[str, Tensor], optimizer: Optimizer) -> None:
    """Take an optimizer step, which some optimizers want more for than a gradient."""
    try:
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # torch's
        _step(optimizer)
    except Exception as error:  # whatever an optimizer raises, the config named it
        parts.reraise_if_unable(error)
        parts.found.append((("optimizer",), f"cannot take a step: {message_of(error)}"))


@contextmanager
def _compiler_left_out() -> Iterator[None]:
    """Let optimizers be made without torch importing its compiler first, which takes a second."""
    decorated = Optimizer.add_param_group
    Optimizer.add_param_group = inspect.unwrap(decorated)  # type: ignore[method-assign]  # for the moment
    try:
        yield
    finally:
        Optimizer.add_param_group = decorated  # type: ignore[method-assign]  # as it was


def _step(optimizer: Optimizer) -> None:
    """Take a step; one of torch's own optimizers without what it does for its compiler, which it would import."""
    if type(optimizer).__module__.startswith("torch.optim."):
        with torch.set_grad_enabled(bool(optimizer.defaults.get("differentiable"))):
            inspect.unwrap(type(optimizer).step)(optimizer)
    else:
        optimizer.step()
