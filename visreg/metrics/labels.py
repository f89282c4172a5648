"""What every metric of class indices needs: a prediction with its target, and the span of values they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from visreg.data import Batch, Predictions
from visreg.errors import DataError, suggest

NOTHING: Final = -(2**62)
"""Below every span; the start of a maximum over batches and processes."""


def pair(metric: object, predictions: Predictions, batch: Batch, key: str) -> tuple[Tensor, Tensor]:
    """Return the prediction and the target named ``key``, which have one shape, on the prediction's device.

    Args:
        metric: the metric that asks, for messages.
        predictions: what holds the prediction.
        batch: what holds the target.
        key: the name of both.

    Raises:
        DataError: one of the two is missing or not a tensor, or their shapes differ.
    """
    prediction = tensor(metric, "predictions", predictions, key)
    target = tensor(metric, "batch", batch, key).to(prediction.device)
    if prediction.shape != target.shape:
        raise DataError(
            f"{type(metric).__name__}: the predicted {key!r} has shape {tuple(prediction.shape)} "
            f"and the target {tuple(target.shape)}; they must be equal"
        )
    return prediction, target


def class_pair(metric: object, predictions: Predictions, batch: Batch, key: str) -> tuple[Tensor, Tensor]:
    """Return the predicted and the true class indices named ``key``, both int64 and of one shape.

    Raises:
        DataError: as `pair` does, and where one of the two is not of whole numbers.
    """
    found = pair(metric, predictions, batch, key)
    for values, what in zip(found, ("predicted", "true"), strict=True):
        whole_numbers(metric, f"{what} {key!r}", values)
    return found[0].long(), found[1].long()


def tensor(metric: object, where: str, values: Mapping[str, Any], key: str) -> Tensor:
    """Return the tensor ``values[key]``.

    Args:
        metric: the metric that asks, for messages.
        where: what ``values`` is, for messages.
        values: what holds the tensor.
        key: its name.

    Raises:
        DataError: it is missing, or not a tensor.
    """
    value = values.get(key)
    if isinstance(value, Tensor):
        return value
    heads = [name for name, found in values.items() if isinstance(found, Mapping)]
    near = f", but the heads {', '.join(heads)}; use PerHead" if heads else suggest(key, values)
    classes = [name for name, found in values.items() if isinstance(found, Tensor) and not found.is_floating_point()]
    if len(classes) == 1 and key == getattr(metric, "key", None) != classes[0]:
        near = f"; set key={classes[0]!r}"
    problem = f"no {key!r}{near}" if value is None else f"a {type(value).__name__} as {key!r}, no tensor"
    raise DataError(f"{type(metric).__name__}: found in the {where} {problem}")


def whole_numbers(metric: object, what: str, values: Tensor) -> None:
    """Check that ``values`` may be class indices; look at their dtype only.

    Raises:
        DataError: the dtype is not of whole numbers.
    """
    if values.is_floating_point() or values.is_complex():
        raise DataError(
            f"{type(metric).__name__}: the {what} is {str(values.dtype).removeprefix('torch.')}; "
            "give class indices, which are int64"
        )


def span(values: Tensor) -> Tensor:
    """Return minus the lowest and plus the highest of int64 ``values`` of any shape, as int64 (2,).

    The span of two tensors together is the maximum of their spans. Nothing waits for the device.

    >>> span(torch.tensor([[3, -1], [0, 9]]))
    tensor([1, 9])
    """
    if values.numel() == 0:
        return values.new_full((2,), NOTHING)
    lowest, highest = torch.aminmax(values)
    return torch.stack([-lowest, highest])


def check_span(metric: object, what: str, ends: tuple[int, int], num_classes: int) -> None:
    """Check that a `span` lies within the classes.

    Args:
        metric: the metric that asks, for messages.
        what: what was measured, for messages.
        ends: the two values of the span.
        num_classes: how many classes there are.

    Raises:
        DataError: a value is below 0, or ``num_classes`` or above.
    """
    lowest, highest = -ends[0], ends[1]
    if highest != NOTHING and not 0 <= lowest <= highest < num_classes:
        ignore = " or leave one value out with 'ignore'" if hasattr(metric, "ignore") else ""
        raise DataError(
            f"{type(metric).__name__}: the {what} run from {lowest} to {highest}, but the {num_classes} classes "
            f"are 0 to {num_classes - 1}; correct the labels or the number of classes{ignore}"
        )
