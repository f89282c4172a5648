"""Checkpoint files: written so that a crash cannot tear them, read so that damage and malice cannot pass.

A file is what ``torch.save`` writes, followed by a mark and the SHA-256 of all before it. ``torch.load`` reads it as it
is; `load` here first makes sure that it is whole.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visreg.errors import CheckpointError, ResourceError
from visreg.whole_file import write_whole

logger = logging.getLogger("visreg")

MARK = b"visreg-sha256:"
TRAILER = len(MARK) + hashlib.sha256().digest_size


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state``, which is made of tensors and plain data, to ``path``, all of it or nothing.

    Raises:
        ResourceError: if the disk is full or cannot be written; what was at ``path`` is still there.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, MARK + hashlib.sha256(data).digest())
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot save the checkpoint: {error.strerror or error}; free some space"
        ) from error


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what `save` wrote to ``path``.

    Raises:
        CheckpointError: if the file is missing, damaged, cut short, or not a visreg checkpoint. Nothing in it is
            unpickled before its checksum is found to be right, and nothing but tensors and plain data ever is.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the checkpoint: {error.strerror}") from None
    body, trailer = data[:-TRAILER], data[-TRAILER:]
    if not trailer.startswith(MARK):
        raise CheckpointError(f"{path}: not a visreg checkpoint, or one that was cut short")
    if trailer[len(MARK) :] != hashlib.sha256(body).digest():
        raise CheckpointError(f"{path}: the checkpoint is damaged: its checksum does not match")
    try:
        state = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not made of tensors and plain data: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or "visreg" not in state:
        raise CheckpointError(f"{path}: not a checkpoint of a visreg run")
    return state


def newest(folder: Path) -> list[Path]:
    """Return a run's checkpoints, the latest step first; the names decide, whatever the clock said."""
    return sorted((path for path in folder.glob("step_*.pt") if step_of(path) >= 0), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name, or -1 where there is none.

    >>> step_of(Path("checkpoints/step_00000938.pt")), step_of(Path("best.pt"))
    (938, -1)
    """
    match = re.fullmatch(r"step_([0-9]+)\.pt", path.name)
    return int(match[1]) if match else -1


def resume(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Return the latest checkpoint in ``folder`` that is whole, or None if there are none; warn of each that is not.

    Raises:
        CheckpointError: if there are some and all are damaged; says of each what is wrong with it.
    """
    errors = []
    for path in newest(folder):
        try:
            state = load(path, device)
        except CheckpointError as error:
            errors.append(str(error))
            continue
        for message in errors:
            logger.warning("%s; going on from the one before it, of step %d", message, step_of(path))
        return state
    if errors:
        raise CheckpointError("\n  ".join([f"{folder}: every checkpoint is damaged; none can be resumed:", *errors]))
    return None


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], limit: int = 20) -> list[str]:
    """Return a line for each key that one state has and the other lacks, or has in another shape; at most ``limit``."""
    lines = list(_differences(expected, found))
    return lines if len(lines) <= limit else [*lines[: limit - 1], f"... and {len(lines) - limit + 1} more"]


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    for key in sorted(expected.keys() | found.keys()):
        if key not in found:
            yield f"{key}: missing in the checkpoint, {tuple(expected[key].shape)} in the model"
        elif key not in expected:
            yield f"{key}: {tuple(found[key].shape)} in the checkpoint, missing in the model"
        elif expected[key].shape != found[key].shape:
            yield f"{key}: {tuple(found[key].shape)} in the checkpoint, {tuple(expected[key].shape)} in the model"
