"""Whether a checkpoint fits a run: its data, classes and optimizer; the weights are compared in `visreg.checkpoint`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch.optim import Optimizer

from visreg.data import DataInfo
from visreg.errors import CheckpointError, first
from visreg.options import options_of

SCHEDULED = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")  # what schedules keep in the groups
ELEMENTWISE = frozenset({"momentum_buffer", "exp_avg", "square_avg"})  # what other optimizers keep may be smaller


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(score, int | float | torch.Tensor | None) for name, score in value.items()
    )


def _is_hook(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("state"), dict)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _is_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and _is_list(_is(str))(value[key]) for key in value)


def _is_list(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


# What is in a checkpoint: what must be there to use it, and to resume it, and what may be.
TO_USE: Mapping[str, Callable[[Any], bool]] = {
    "config": _is(str), "step": _is_count, "classes": _is_list(_is(str)), "task": _is(dict),
    "hooks": _is_list(_is_hook),
}  # fmt: skip
TO_RESUME: Mapping[str, Callable[[Any], bool]] = {
    "step": _is_count, "scores": _is_scores, "evaluated": _is_count, "classes": _is_list(_is(str)), "train": _is(dict),
    "task": _is(dict), "optimizer": _is(dict), "schedule": _is(dict), "scaler": _is(dict), "hooks": _is_list(_is_hook),
    "generators": _is_list(_is(dict)),
}  # fmt: skip
AT_MOST: Mapping[str, Callable[[Any], bool]] = {
    "skipped": _is_list(_is_count), "overflows": _is_count, "accumulate": _is_count, "environment": _is(dict),
    "class_names": _is_names,
}  # fmt: skip


def check_form(state: Mapping[str, Any], needed: Mapping[str, Callable[[Any], bool]], purpose: str) -> None:
    """Check that a checkpoint has all that is ``needed``, each of the right type; anyone may have written it.

    Raises:
        CheckpointError: if not; says that it cannot be ``purpose``.
    """
    lacking = [name for name, is_right in needed.items() if not is_right(state.get(name))]
    lacking += [name for name, is_right in AT_MOST.items() if name in state and not is_right(state[name])]
    if lacking:
        raise CheckpointError(f"not a checkpoint that can be {purpose}: it lacks {', '.join(lacking)}")


def alike(own: Any, saved: Any) -> bool:
    """Return whether ``saved`` can stand where ``own`` does: a number for a number and so on, all the way down.

    >>> alike({"lr": 0.1, "betas": (0.9, 0.99)}, {"lr": 1, "betas": [1, 1]}), alike({"lr": 0.1}, {"lr": "x"})
    (True, False)
    """
    if own is None:
        return True  # nothing is known of it
    if isinstance(own, Mapping):
        shared = [key for key in own if isinstance(saved, Mapping) and key in saved]
        return isinstance(saved, Mapping) and all(alike(own[key], saved[key]) for key in shared)
    if isinstance(own, (list, tuple)):
        return isinstance(saved, (list, tuple)) and all(alike(own[0], item) for item in saved if own)
    if isinstance(own, bool):
        return saved is None or isinstance(saved, bool)
    if isinstance(own, (int, float, torch.Tensor)):
        return isinstance(saved, (int, float, torch.Tensor))
    return isinstance(saved, type(own))


def check_data(saved: Mapping[str, Any], now: Mapping[str, Any], override: bool = False) -> None:
    """Check that the training data is that of the checkpoint: the order of the samples follows from its size.

    Args:
        saved: ``data``, its name, and ``samples``, its size; of the checkpoint.
        now: the same of this run.
        override: accept another.

    Raises:
        CheckpointError: if it is other data.
    """
    lines = [f"{key}: {saved.get(key)} → {now[key]}" for key in ("data", "samples") if saved.get(key) != now[key]]
    if lines and not override:
        raise CheckpointError(
            f"the training data is not the checkpoint's: {', '.join(lines)}; give it the same data, or accept another "
            "with --resume-override"
        )


def check_classes(state: Mapping[str, Any], info: DataInfo) -> None:
    """Check that every class of some data has the index that it had; nothing is known where there are no names.

    Args:
        state: the checkpoint.
        info: of the data: what both have names for is compared, and where that is nothing, the classes of the two.

    Raises:
        CheckpointError: if not; lists up to 20 that differ.
    """
    saved = DataInfo(name="", classes=tuple(state["classes"]), others=state.get("class_names", {}))
    for key in [key for key in saved.others if key in info.class_names] or ["label"]:
        was, now = saved.classes_of(key), info.classes_of(key)
        rows = renamed(was, now, "the checkpoint", "the data")
        if rows:
            whose = f" of {key!r}" if now != info.classes else ""
            counts = f"{len(was)} there, {len(now)} here"
            raise CheckpointError(
                "\n  ".join([f"the classes{whose} are not the checkpoint's ({counts}):", *first(rows)])
            )


def renamed(one: Sequence[str], other: Sequence[str], first_place: str, second_place: str) -> list[str]:
    """Return a line for each class that has another name there; none where one of the two has no names at all.

    >>> renamed(["cat", "dog"], ["cat"], "train", "val"), renamed(["cat"], [], "train", "val")
    (["1: 'dog' in train, no such class in val"], [])
    """
    if not one or not other:
        return []
    texts = [[repr(name) for name in names] for names in (one, other)]
    pairs = enumerate(zip_longest(*texts, fillvalue="no such class"))
    return [f"{index}: {was} in {first_place}, {now} in {second_place}" for index, (was, now) in pairs if was != now]


def check_optimizer(optimizer: Optimizer, name: str | None, saved: Mapping[str, Any]) -> None:
    """Check that an optimizer can take up a saved state.

    Args:
        optimizer: the one to go on with.
        name: the class of the one whose state was saved.
        saved: that state, as of PyTorch's ``state_dict``.

    Raises:
        CheckpointError: if it is of another optimizer, or of other parameters; lists up to 20 differences.
    """
    own = type(optimizer).__name__
    if name != own:
        raise CheckpointError(f"the checkpoint's optimizer is {name}, and this config's is {own}; use the same")
    groups = [[len(group["params"]) for group in each] for each in (saved["param_groups"], optimizer.param_groups)]
    if groups[0] != groups[1]:
        raise CheckpointError(
            f"the checkpoint's optimizer has groups of {groups[0]} parameters, and this config's of {groups[1]}; "
            "use the same model and param_groups"
        )
    if not alike(options(optimizer), saved["param_groups"]):
        raise CheckpointError("the checkpoint's optimizer has options that are none of this config's")
    lines = first(_state_differences(optimizer, saved))
    if lines:
        raise CheckpointError("\n  ".join(["the checkpoint's optimizer is of other parameters:", *lines]))


def options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return, of each group, what a config or a schedule has set, and not what the optimizer keeps there for itself."""
    names = {*options_of(type(optimizer).__init__), *SCHEDULED} - {"params"}
    return [{key: value for key, value in group.items() if key in names} for group in optimizer.param_groups]


def _state_differences(optimizer: Optimizer, saved: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each state that has one number for each of its parameter's, and is of another shape."""
    for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for parameter, number in zip(group["params"], saved_group["params"], strict=True):
            for name, value in saved["state"].get(number, {}).items():
                if name in ELEMENTWISE and not isinstance(value, torch.Tensor | None):
                    yield f"{name} of parameter {number}: no tensor"
                elif name in ELEMENTWISE and value is not None and value.shape != parameter.shape:
                    shapes = f"{tuple(value.shape)} in the checkpoint, {tuple(parameter.shape)} in the model"
                    yield f"{name} of parameter {number}: {shapes}"
