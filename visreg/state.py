"""The state of a run: what a checkpoint holds, and how a runner takes it up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

import visreg
from visreg import dist, generators
from visreg.config import dumps_json
from visreg.data import DataInfo
from visreg.errors import CheckpointError, VisregError
from visreg.misfit import TO_RESUME, check_classes, check_data, check_form, check_optimizer, options
from visreg.resume import environment

if TYPE_CHECKING:
    from visreg.hook import Hook
    from visreg.runner import Runner

logger = logging.getLogger("visreg")

MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError)


def state_of(runner: Runner) -> dict[str, Any]:
    """Return what `Runner.state_dict` does."""
    info = _info(runner)
    return {
        "visreg": visreg.__version__,
        "config": dumps_json(dict(runner.config)),
        "data": info.name,
        "classes": list(info.classes),
        "class_names": {key: list(names) for key, names in info.class_names.items()},
        "train": _plan(runner),
        "environment": environment(runner.device),
        "step": runner.step,
        "skipped": list(runner.skipped),
        "overflows": runner.overflows,
        "accumulate": runner.accumulate,
        "scores": dict(runner.scores),
        "evaluated": runner.evaluated,
        "task": runner.task.state_dict(),
        "optimizer": runner.optimizer.state_dict() if runner.optimizer else {},
        "schedule": runner.schedule.state_dict(),
        "scaler": runner.scaler.state_dict(),
        "hooks": [{"type": type(hook).__name__, "state": hook.state_dict()} for hook in runner.hooks],
        "generators": dist.gather(generators.state(runner.device)),
    }


def restore(runner: Runner, state: Mapping[str, Any], override: bool) -> None:
    """Do what `Runner.load_state_dict` does."""
    check_form(state, TO_RESUME, "resumed")
    check_classes(state, _info(runner))
    check_data(state["train"], _plan(runner), override)
    runner.load_task(state)
    _restore_optimizer(runner, state, override)
    runner.load_hooks(state)
    runner.skipped, runner.overflows = list(state.get("skipped", ())), state.get("overflows", 0)
    runner.accumulate = max(runner.accumulate, state.get("accumulate", 1))
    runner.step, runner.evaluated, runner.scores = state["step"], state["evaluated"], dict(state["scores"])
    _restore_generators(runner, state["generators"])


def _restore_optimizer(runner: Runner, state: Mapping[str, Any], override: bool) -> None:
    """Take up the optimizer, its schedule and its scaler."""
    assert runner.optimizer is not None, "a runner that goes on is built with an optimizer"
    was, now, step = state["train"].get("total_steps"), runner.total_steps, state["step"]
    anew = step < now and (override or (was != now and not runner.schedule.is_constant))
    try:
        check_optimizer(runner.optimizer, state["train"].get("optimizer"), state["optimizer"])
        if anew:
            runner.schedule.replay(state["schedule"], step, runner.steps_per_epoch)
            logger.info("the schedule is that of %d steps, as it is after step %d", now, step)
        else:
            runner.schedule.load_state_dict(state["schedule"])
        own = options(runner.optimizer)
        runner.optimizer.load_state_dict(dict(state["optimizer"]))
        for group, kept in zip(runner.optimizer.param_groups, own, strict=True):
            group.update(kept if anew else {name: value for name, value in kept.items() if name not in group})
        if state["scaler"] or not override:
            runner.scaler.load_state_dict(state["scaler"])
    except MALFORMED as error:
        raise CheckpointError(f"the checkpoint's optimizer or schedule does not fit the config's: {error}") from error


def restore_hooks(hooks: Sequence[Hook], state: Mapping[str, Any]) -> None:
    """Do what `Runner.load_hooks` does."""
    saved = [item for item in state["hooks"] if item["state"]]
    for hook in hooks:
        match = next((item for item in saved if item["type"] == type(hook).__name__), None)
        if match is not None:
            saved.remove(match)
            _restore_hook(hook, match["state"])
        elif hook.state_dict():
            logger.warning("the checkpoint knows nothing of the hook %s, which starts afresh", type(hook).__name__)
    for item in saved:
        logger.warning("the checkpoint has the state of a hook %s, which this config lacks", item["type"])


def _restore_hook(hook: Hook, state: dict[str, Any]) -> None:
    """Give a hook what a checkpoint, which anyone may have written, has of it."""
    try:
        hook.load_state_dict(state)
    except MALFORMED as error:
        if isinstance(error, VisregError):
            raise
        name = type(hook).__name__
        raise CheckpointError(
            f"the checkpoint's state of the hook {name} cannot be taken up: {type(error).__name__}: {error}"
        ) from error


def _restore_generators(runner: Runner, saved: list[Mapping[str, Any]]) -> None:
    if len(saved) != dist.world_size():
        logger.warning(
            "%d processes go on from what %d left: dropout and random batch_transforms draw other numbers",
            dist.world_size(),
            len(saved),
        )
        return
    try:
        generators.set_state(saved[dist.rank()], runner.device)
    except MALFORMED as error:
        raise CheckpointError(f"the checkpoint's generators cannot be taken up: {error}") from error


def _info(runner: Runner) -> DataInfo:
    """Return what is known of the data that the scores are on, with the names of the classes if any has them."""
    infos = [loader.info for loader in (runner.val_loader, runner.train_loader) if loader is not None]
    named = next((info for info in infos if info.classes), None)
    return evolve(named or infos[0], name=infos[0].name) if infos else DataInfo(name="")


def _plan(runner: Runner) -> dict[str, Any]:
    """Return what is trained on, for how long, and by which optimizer."""
    loader = runner.train_loader
    return {
        "data": loader.info.name if loader is not None else "",
        "samples": loader.samples if loader is not None else 0,
        "total_steps": runner.total_steps,
        "optimizer": type(runner.optimizer).__name__,
    }
