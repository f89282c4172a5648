"""What a model gave, in words, for a task that can do nothing with it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

MOST = 5  # keys that are named


def instead(output: object, task: str) -> str:
    """Return what ``output`` is, and, where that is known, which task is for it, if it is not ``task`` itself.

    >>> import torch
    >>> instead(torch.zeros(3, 7, 8, 8), "Classification")
    'got shape (3, 7, 8, 8); the task of such a model is SemanticSegmentation'
    >>> instead({"out": torch.zeros(3, 7, 8, 8)}, "Detection")
    "got a dict of 'out'; the task of such a model is SemanticSegmentation"
    """
    known = _task_of(output)
    return f"got {_described(output)}" + (f"; the task of such a model is {known}" if known not in ("", task) else "")


def counted(outputs: int) -> str:
    """Return a number of outputs in words.

    >>> counted(1), counted(2)
    ('1 output', '2 outputs')
    """
    return f"{outputs} output{'s' * (outputs != 1)}"


def _described(output: object) -> str:
    if isinstance(output, Tensor):
        return f"shape {tuple(output.shape)}"
    if isinstance(output, Mapping) and output:
        keys = ", ".join(map(repr, list(output)[:MOST]))
        return f"a dict of {keys}{' and more' if len(output) > MOST else ''}"
    return type(output).__name__


def _task_of(output: object) -> str:
    """Return the task that takes what a model gave; nothing where it is not known."""
    if isinstance(output, list) and output:
        return "Detection" if isinstance(output[0], Mapping) and "boxes" in output[0] else ""
    if isinstance(output, Mapping):
        return "Detection" if {"logits", "boxes"} <= output.keys() else "SemanticSegmentation" * ("out" in output)
    return {2: "Classification", 4: "SemanticSegmentation"}.get(output.ndim, "") if isinstance(output, Tensor) else ""
