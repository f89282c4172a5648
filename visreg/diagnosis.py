"""What a failure in a dry run means: where it happened, and in which words to say so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from visreg.config import ConfigPath
from visreg.data import pixels
from visreg.errors import ConfigError, VisregError
from visreg.options import options_of
from visreg.registry import Registry, Spec, kind_of

LOOK_BACK = 6  # operations between a log-softmax and what a loss is given


def shape_of(values: Any) -> str:
    """Return the shape of a sample's or batch's image or clip, as text; of anything else, its type."""
    if not isinstance(values, Mapping):
        return type(values).__name__
    image = pixels(values)
    return str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__


def kept(value: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a transform made, if it is a sample or batch with all that was in it before."""
    if not isinstance(value, Mapping):
        raise TypeError(f"it returns a {type(value).__name__}; it must return the dict it got, changed")
    if lost := sorted(set(before) - set(value)):
        raise ValueError(f"it loses {', '.join(map(repr, lost))}; it must return the dict it got, changed")
    return dict(value)


def check_image(values: Mapping[str, Any]) -> None:
    """Make sure that the image or clip is still a tensor.

    Raises:
        TypeError: if a transform made something else of it.
    """
    image = pixels(values)
    if not isinstance(image, Tensor):
        raise TypeError(f"it leaves the image as a {type(image).__name__}; end with dict(type='ToImage'), or remove it")


def advice(values: Any, error: Exception) -> str:
    """Return what to do about a transform that fails on ``values``, where that is known."""
    image = pixels(values) if isinstance(values, Mapping) else None
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and "float" in str(error).lower():
        return "; put dict(type='ToDtype', dtype='float32', scale=True) before it"
    return "; write a whole number with a point, such as 1.0" if "not implemented for 'Long'" in str(error) else ""


def full_name(kind: type) -> str:
    """Return a base class as a user imports it."""
    return f"{'visreg' if kind.__module__.startswith('visreg.') else 'torch.nn'}.{kind.__name__}"


def call_of(spec: Spec) -> str:
    """Return the call that a spec stands for, as text."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in spec.items() if key != "type")
    return f"{spec['type']}({arguments if len(arguments) < 200 else arguments[:200] + '…'})"


@contextmanager
def innermost(task: nn.Module) -> Iterator[list[tuple[str, nn.Module, Any]]]:
    """Keep a stack of the modules whose forward is under way, each with the shape it was given."""
    stack: list[tuple[str, nn.Module, Any]] = []

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            stack.append((name, module, tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else None))

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        stack.pop()

    handles = []
    for name, module in task.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def hint(module: nn.Module, shape: Any) -> str:
    """Return what to do about a module that fails on an input of ``shape``, where that is known."""
    if isinstance(module, nn.Linear) and shape and shape[-1] != module.in_features:
        return f"; its in_features must be {shape[-1]}"
    if isinstance(module, nn.Conv2d) and shape and len(shape) == 4 and shape[1] != module.in_channels:
        return f"; its in_channels must be {shape[1]}"
    if shape and "targets" in inspect.signature(module.forward).parameters:  # Detection would give it a list
        return "; it computes its own losses: the task of such a model is Detection"
    return ""


def wrong_kind(stack: Sequence[tuple[str, nn.Module, Any]], batch: Mapping[str, Any]) -> str:
    """Return what to say of a model for images that fails on clips, or the other way around; else nothing.

    Args:
        stack: as of `innermost`.
        batch: what was given to the task.
    """
    kinds = {type(layer) for name, module, _ in stack if name == "model" for layer in module.modules()}
    ndim = len(stack[-1][2] or ())
    if "clip" in batch and ndim == 5 and nn.Conv2d in kinds and nn.Conv3d not in kinds:
        return "is for images, but the samples are clips (T, C, H, W); take a model for clips, such as r3d_18"
    if "image" in batch and ndim == 4 and nn.Conv3d in kinds:
        return "is for clips, but the samples are images (C, H, W); take a model for images, such as resnet18"
    return ""


def own_paths(error: Exception, within: ConfigPath = ()) -> list[tuple[ConfigPath, str]]:
    """Return (path, message) of an exception that says itself where in the config the mistake is."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    return [((*within, *_steps(problem.path)), problem.message) for problem in problems if problem.path]


def _steps(path: str) -> Iterator[str | int]:
    """Yield the steps of a path such as ``heads.digit.0``."""
    return (int(step) if step.isdigit() else step for step in path.split("."))


def place_of(module: str, sections: Mapping[str, Spec | None]) -> tuple[ConfigPath, Spec]:
    """Return the path and the spec of the innermost spec that made a module of the task, given its name in there."""
    steps = module.split(".") if module.split(".")[0] in ("model", "loss") else ["task", *module.split(".")]
    value: Any = sections
    path: ConfigPath = (steps[0],)
    spec = sections.get(steps[0]) or {}
    for end, step in enumerate(steps, start=1):
        value = value.get(step) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and "type" in value:
            path, spec = tuple(steps[:end]), value
    return path, spec


def failing_part(
    registry: Registry[Any], spec: Spec, make: Callable[[Registry[Any], Spec], Any]
) -> tuple[ConfigPath, Registry[Any], Spec]:
    """Return the path, kind and spec of the innermost part of a spec that cannot be made; of the spec itself if none.

    Args:
        registry: of which the spec is.
        spec: one that cannot be made.
        make: makes a part, or raises.
    """
    known = options_of(registry.get(spec["type"]))
    for option, value in spec.items():
        kind = kind_of(known[option].annotation if option in known else Any, registry, option)
        for path, part in _specs_in(value, (option,)):
            try:
                make(kind, part)
            except Exception:  # whatever a constructor raises, the config named it
                inside, inner_kind, inner = failing_part(kind, part, make)
                return (*path, *inside), inner_kind, inner
    return (), registry, spec


def _specs_in(value: Any, path: ConfigPath) -> Iterator[tuple[ConfigPath, Spec]]:
    """Yield the outermost specs in an option, each with its path."""
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        yield path, value
    elif isinstance(value, Mapping | list | tuple):
        for step, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _specs_in(item, (*path, step))


@contextmanager
def given_logits(task: nn.Module) -> Iterator[list[str]]:
    """Collect the names of those NLLLosses of a task that are given something whose gradient passed no logarithm."""
    found: list[str] = []

    def look(name: str, inputs: Any) -> None:
        if isinstance(inputs[0], Tensor) and inputs[0].grad_fn is not None and not _has_log(inputs[0]):
            found.append(name)

    losses = [(name, module) for name, module in task.named_modules() if type(module) is nn.NLLLoss]
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs)) for name, module in losses
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _has_log(value: Tensor) -> bool:
    """Return whether one of the last operations that led to ``value`` took a logarithm."""
    nodes: list[Any] = [value.grad_fn]
    for _ in range(LOOK_BACK):
        if any("Log" in node.name() for node in nodes):
            return True
        nodes = [before for node in nodes for before, _ in node.next_functions if before is not None]
    return False


def message_of(error: Exception) -> str:
    """Return what an exception says, in one line; with its type where that says more than the words."""
    if isinstance(error, ConfigError):
        return "; ".join(problem.message for problem in error.problems)
    text = (str(error.args[0]) if error.args else str(error)).strip().splitlines()
    first = text[0] if text else ""
    return (
        first
        if isinstance(error, (VisregError, ValueError, TypeError, RuntimeError))
        else f"{type(error).__name__}: {first}"
    )
