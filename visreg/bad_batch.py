"""Batches that no model can be trained on: what PyTorch says of them, in words that name the sample and help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from visreg.data import Batch, batch_length
from visreg.errors import DataError
from visreg.runner import Runner


@contextmanager
def bad_batch_explained(runner: Runner) -> Iterator[None]:
    """Raise a DataError where training fails for its batch: a label is out of range, or batch norm has one sample."""
    try:
        yield
    except (IndexError, ValueError, RuntimeError) as error:
        problem = explanation(str(error), runner.batch)
        if problem:
            raise DataError(f"step {runner.step + 1}: {problem}") from error
        if "device-side assert" in str(error):
            error.add_note("most often that is a label out of range: look with `visreg check CONFIG --data`")
        raise


def explanation(message: str, batch: Batch) -> str:
    """Return what is wrong with ``batch`` if PyTorch said ``message`` of it, or nothing."""
    if target := re.search(r"Target (-?\d+) is out of bounds", message):
        return (
            f"{_which(batch, int(target[1]))}, and the model has no output for it; "
            "correct the label or num_classes; `visreg check CONFIG --data` finds all such labels"
        )
    if message.startswith("Expected more than 1 value per channel when training"):
        if batch_length(batch) == 1:
            return "batch norm cannot train on a batch of one sample; set train.drop_last=True or another batch_size"
        return "batch norm cannot train on one sample at a time; lower run.accumulate"
    return ""


def _which(batch: Batch, value: int) -> str:
    """Return which sample of a batch has a label, or another class of the whole image, of ``value``."""
    index, found = batch.get("index"), []
    for key, label in batch.items():
        if isinstance(index, Tensor) and isinstance(label, Tensor) and label.shape == index.shape and key != "index":
            found += [f"sample {place} has the {key} {value}" for place in index[label == value].tolist()[:1]]
    return " or ".join(found) or f"a sample has the label {value}"
