"""What a failure in a dry run means: where it happened, and in which words to say so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from visreg.config import ConfigPath
from visreg.errors import ConfigError, VisregError
from visreg.registry import Spec

LOOK_BACK = 6  # operations between a log-softmax and a loss


def shape_of(values: Any) -> str:
    """Return the shape of a sample's or batch's image, as text; of anything else, its type."""
    if not isinstance(values, Mapping):
        return type(values).__name__
    image = values.get("image")
    return str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__


def kept(value: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a transform made, if it is a sample or batch with all that was in it before."""
    if not isinstance(value, Mapping):
        raise TypeError(f"it returns a {type(value).__name__}; it must return the dict it got, changed")
    if lost := sorted(set(before) - set(value)):
        raise ValueError(f"it loses {', '.join(map(repr, lost))}; it must return the dict it got, changed")
    return dict(value)


def check_image(values: Mapping[str, Any]) -> None:
    """Make sure that the image is still a tensor.

    Raises:
        TypeError: if a transform made something else of it.
    """
    image = values.get("image")
    if not isinstance(image, Tensor):
        raise TypeError(f"it leaves the image as a {type(image).__name__}; end with dict(type='ToImage'), or remove it")


def advice(values: Any, error: Exception) -> str:
    """Return what to do about a transform that fails on ``values``, where that is known."""
    image = values.get("image") if isinstance(values, Mapping) else None
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


def own_paths(error: Exception, within: ConfigPath = ()) -> list[tuple[ConfigPath, str]]:
    """Return (path, message) of an exception that says itself where in the config the mistake is."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    return [((*within, *problem.path.split(".")), problem.message) for problem in problems if problem.path]


def has_log(losses: Iterable[Tensor]) -> bool:
    """Return whether one of the last operations that led to the losses took a logarithm."""
    nodes: list[Any] = [loss.grad_fn for loss in losses]
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
