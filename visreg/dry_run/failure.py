"""What went wrong inside a task: in which module, which part of the config made that, and what to do about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from visreg.config import ConfigPath
from visreg.data import Batch, pixels
from visreg.diagnosis import message_of
from visreg.options import options_of
from visreg.registry import MODELS
from visreg.specs import Spec, is_spec

TOO_SMALL = re.compile("output size is too small|kernel size can't be greater", re.IGNORECASE)
MOST_SIDE = 512  # pixels of the images that a model is tried on to learn how large they must be
LOOK_BACK = 6  # operations between a log-softmax and what a loss is given


@frozen(eq=False)
class Call:
    """A module at work: its name in the task, and what it was given."""

    name: str
    module: nn.Module
    inputs: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of the first of its inputs; None where that is no tensor."""
        first = self.inputs[0] if self.inputs else None
        return tuple(first.shape) if isinstance(first, Tensor) else None


@contextmanager
def calls(task: nn.Module) -> Iterator[list[Call]]:
    """Keep a stack of the modules whose forward is under way, the innermost last."""
    stack: list[Call] = []

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: stack.append(Call(name, module, inputs))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        stack.pop()

    handles = []
    hooked = [each for each in task.named_modules() if not isinstance(each[1], torch.jit.ScriptModule)]  # takes none
    for name, module in hooked:
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def failure(
    stack: Sequence[Call], sections: Mapping[str, Spec | None], split: str, batch: Batch, error: Exception
) -> tuple[ConfigPath, str]:
    """Return which part of the config an exception blames, and why.

    Args:
        stack: the modules that were at work, as of `calls`.
        sections: the specs that the modules of the task come from, by section.
        split: which data the batch is of.
        batch: what the task was given.
        error: what was raised.
    """
    last = stack[-1] if stack else None
    path, spec = place_of(last.name if last else "", sections)
    if isinstance(error, KeyError) and path == ("task",) and error.args[0] not in batch:
        have = ", ".join(repr(key) for key in batch if key != "index")
        return path, f"needs {error.args[0]!r}, but the samples of {split}.dataset have {have}"
    if last is not None and "loss" in path:
        return _loss_failure(last, path, spec, error)
    if last is None or path[0] != "model":
        return path, f"cannot be computed: {message_of(error)}"
    if kind := _wrong_kind(stack, batch):
        return ("model", "type"), f"{spec['type']} {kind}, in {split}.dataset"
    return _model_failure(stack, path, spec, split, batch, error)


def _loss_failure(call: Call, path: ConfigPath, spec: Spec, error: Exception) -> tuple[ConfigPath, str]:
    output, weight = call.inputs[0] if call.inputs else None, getattr(call.module, "weight", None)
    if "weight" in spec and isinstance(weight, Tensor) and isinstance(output, Tensor) and output.ndim > 1:
        classes = output.shape[1]
        if weight.shape != (classes,):
            return (*path, "weight"), f"has {len(weight)} values for {classes} classes"
    given = " and ".join(map(_described, call.inputs))
    instead = "; that is what a loss of dense detectors takes, such as YOLOLoss" if isinstance(output, Mapping) else ""
    return path, f"cannot be computed: {message_of(error)}{f', given {given}' if given else ''}{instead}"


def _described(value: object) -> str:
    """Return what a loss was given, as text."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a dict of {', '.join(map(repr, value))}" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _model_failure(
    stack: Sequence[Call], path: ConfigPath, spec: Spec, split: str, batch: Batch, error: Exception
) -> tuple[ConfigPath, str]:
    call = stack[-1]
    where = call.name.removeprefix("model").removeprefix(".")
    is_leaf = not list(call.module.children())
    inside = f"{where!r}, {call.module}, given {call.shape}" if is_leaf else f"{where or 'forward'!r}"
    reason = f"in {inside}: {message_of(error)}{_hint(call, message_of(error))}"
    sample, images = tuple(pixels(batch).shape)[1:], "images" if "image" in batch else "clips"
    for option, sizes in (("in_channels", sample[-3:-2]), ("image_size", sample[-2:])):
        if isinstance(spec.get(option), int) and {spec[option]} != {*sizes} and "heads" not in path:
            return (*path, option), f"is {spec[option]}, but the {images} of {split} are {sample}: {reason}"
    grey = sample[-3:-2] == (1,) and "its in_channels" in reason
    if grey and "in_channels" not in options_of(MODELS.get(spec["type"])):
        reason = f"{reason.rpartition(';')[0]}; add dict(type='RGB') to {split}.transforms"
    if "heads" in path:
        return _head_failure(stack, path, spec, split, reason)
    return path, f"cannot take the {images} {sample} of {split}: {reason}{_larger(stack, reason)}"


def _head_failure(
    stack: Sequence[Call], path: ConfigPath, spec: Spec, split: str, reason: str
) -> tuple[ConfigPath, str]:
    """Return what to say of a head of several that fails on the features of their backbone."""
    name = ".".join(map(str, path))
    features = next((call.inputs[0] for call in stack if call.name == name and call.inputs), None)
    several = [tuple(each.shape) for each in features] if isinstance(features, (list, tuple)) else []
    given = ", ".join(map(str, several)) or tuple(getattr(features, "shape", ()))
    fits = "LinearHead, UNetHead, or a module that takes such a list" if several else "LinearHead, or a module for such"
    advice = "" if "must be" in reason.rpartition(";")[2] else f"; what fits is {fits}"
    return path, f"{spec['type']} cannot take the features {given} of {split}: {reason}{advice}"


def _larger(stack: Sequence[Call], reason: str) -> str:
    """Return how large images must be for a model that says that they are too small, as a message ends."""
    model = next((call for call in stack if call.name == "model" and call.shape), None)
    if model is None or TOO_SMALL.search(reason) is None or not model.inputs[0].is_meta or len(model.shape or ()) != 4:
        return ""
    images, least = model.inputs[0], MOST_SIDE

    def fits(side: int) -> bool:
        with suppress(Exception):
            model.module(images.new_zeros(*images.shape[:2], side, side))
            return True
        return False

    if not fits(least):
        return ""
    below = min(images.shape[2:])
    while least - below > 1:
        middle = (least + below) // 2
        below, least = (below, middle) if fits(middle) else (middle, least)
    return f"; {least}×{least} is the least"


def place_of(module: str, sections: Mapping[str, Spec | None]) -> tuple[ConfigPath, Spec]:
    """Return the path and the spec of the innermost spec that made a module of the task, given its name in there."""
    names = module.split(".") if module.split(".")[0] in ("model", "loss") else ["task", *module.split(".")]
    steps: list[str | int] = [int(name) if name.isdigit() else name for name in names]
    value: Any = sections
    path: ConfigPath = (steps[0],)
    spec = sections.get(names[0]) or {}
    for end, step in enumerate(steps, start=1):
        if isinstance(value, Mapping):
            value = value.get(step)
        else:
            value = value[step] if isinstance(value, (list, tuple)) and isinstance(step, int) else None
        if is_spec(value):
            path, spec = tuple(steps[:end]), value
    return path, spec


def _hint(call: Call, message: str) -> str:
    """Return what to do about a module that fails, where that is known."""
    module, shape = call.module, call.shape
    if isinstance(module, nn.Linear) and shape and shape[-1] != module.in_features:
        return f"; its in_features must be {shape[-1]}"
    if isinstance(module, nn.Conv2d) and shape and len(shape) == 4 and shape[1] != module.in_channels:
        return f"; its in_channels must be {shape[1]}"
    if shape and "targets" in inspect.signature(module.forward).parameters:  # Detection would give it a list
        return "; it computes its own losses: the task of such a model is Detection"
    if TOO_SMALL.search(message):
        instead = ", or set aux_logits=False" if "AuxLogits" in call.name else ""
        return f"; the images are too small for it: enlarge them by a Resize{instead}"
    return ""


def _wrong_kind(stack: Sequence[Call], batch: Batch) -> str:
    """Return what to say of a model for images that fails on clips, or the other way around; else nothing."""
    kinds = {type(layer) for call in stack if call.name == "model" for layer in call.module.modules()}
    ndim = len(stack[-1].shape or ())
    if "clip" in batch and ndim == 5 and nn.Conv2d in kinds and nn.Conv3d not in kinds:
        return "is for images, but the samples are clips (T, C, H, W); take a model for clips, such as r3d_18"
    if "image" in batch and ndim == 4 and nn.Conv3d in kinds:
        return "is for clips, but the samples are images (C, H, W); take a model for images, such as resnet18"
    return ""


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
