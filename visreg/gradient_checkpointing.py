"""Modules whose activations are computed again in the backward pass instead of kept: slower, in less memory.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"; it is `torch.utils.checkpoint` that computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from visreg.patterns import matching_modules

SCRIPTED = torch.jit.ScriptModule  # whose forward cannot be replaced


def checkpoint_gradients(model: nn.Module, which: bool | Sequence[str]) -> list[str]:
    """Let modules of a model keep, while they train, their inputs only; return which, by their names.

    The gradients are the same bit by bit, and so is all that the modules hold: dropout draws again what it drew, and
    running statistics see each batch once. Nothing of it is in the model's state, nor in copies of its modules.

    Args:
        model: any module; it is changed in place.
        which: True for its `blocks`, or patterns of module names, of which the outermost count.

    Raises:
        ConfigError: if a pattern means no module; offers the nearest names.
    """
    chosen = blocks(model) if which is True else matching_modules(model, which or (), "run.gradient_checkpointing")
    for module in chosen.values():
        module.forward = MethodType(_forward, module)  # a bound method is what a copy of the module binds anew
    return [*chosen]


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the parts that a model is repeated of, by name: what its Sequentials and ModuleLists hold, if not a layer.

    Where there is none, they are the children of the model itself. What TorchScript has compiled is not among them.

    >>> layers = nn.ModuleList([nn.TransformerEncoderLayer(8, 2), nn.TransformerEncoderLayer(8, 2), nn.Linear(8, 2)])
    >>> list(blocks(layers)), list(blocks(nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    (['0', '1'], ['0', '1'])
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        listed = isinstance(module, (nn.Sequential, nn.ModuleList))
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if listed and not inside:
            for key, child in module.named_children():
                if any(child.children()) and not isinstance(child, (nn.Sequential, nn.ModuleList, SCRIPTED)):
                    found[f"{name}.{key}".removeprefix(".")] = child
    return found or {name: child for name, child in model.named_children() if not isinstance(child, SCRIPTED)}


def _forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Compute what a module does, and again in the backward pass."""
    forward = partial(type(self).forward, self)
    if not (self.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    if not torch.compiler.is_compiling():  # which itself sees that buffers change once
        forward = partial(_Again(self), forward)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


class _Again:
    """Calls a function for a module; after the first time with the buffers that it had then, which leaves no trace.

    So power iterations of a spectral norm come to the same weights, and batch norms count each batch once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.first: list[torch.Tensor] | None = None

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        buffers = [buffer.detach() for buffer in self.module.buffers()]
        now = [buffer.clone() for buffer in buffers]
        if self.first is None:
            self.first = now
            return function(*args, **kwargs)
        try:
            _copy(buffers, self.first)
            return function(*args, **kwargs)
        finally:  # torch leaves by an exception as soon as it has all that it needs
            _copy(buffers, now)


@torch.no_grad()
def _copy(targets: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)
