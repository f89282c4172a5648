"""Checkpoint files: written so that a crash cannot tear them, read so that damage and malice cannot pass.

A file is what ``torch.save`` writes, followed by a mark and the SHA-256 of all before it. ``torch.load`` reads it as it
is; `load` here first makes sure that it is whole.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import pickle
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from attrs import define, field
from torch import Tensor

from visreg import __version__
from visreg.archive import UnfitError, inspect
from visreg.errors import CheckpointError, ResourceError, first
from visreg.faults import reach
from visreg.whole_file import Output, link_whole, sync_folder, whole_file

logger = logging.getLogger("visreg")

MARK = b"visreg-sha256:"
TRAILER = len(MARK) + hashlib.sha256().digest_size
MODE = 0o640  # a checkpoint is nobody's to change but its owner's, and the world's not even to read
END = b"PK\x05\x06"  # where the last record of an archive begins, which is
END_SIZE = 22  # bytes long, unless there is a comment
BLOCK = 1 << 18
ADVICE = {
    errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EFBIG: "raise the limit, see ulimit -f",
    errno.ENOENT: "its folder is gone", errno.EIO: "look at the disk, and at dmesg",
}  # fmt: skip


def save(state: Mapping[str, Any], path: Path, *others: Path) -> None:
    """Write ``state``, which is made of tensors and plain data, to ``path``, all of it or nothing.

    ``others`` in the same folder become further names of that file, in turn: each only when those before it are on the
    disk. When this returns, all is.

    Raises:
        ResourceError: if the disk is full or cannot be written; what was at ``path`` is still there.
        CheckpointError: if ``state`` holds something else, which no `load` would take.
    """
    try:
        with whole_file(path, MODE) as file:
            _write(state, file)
        sync_folder(path.parent)
        for other in others:
            link_whole(path, other, MODE)
            reach("save:linked")
            sync_folder(path.parent)
    except UnfitError as error:
        raise CheckpointError(f"{path}: cannot save {error}; the state must be tensors and plain data") from error
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "make its folder writable")
        raise ResourceError(f"{path}: cannot save the checkpoint: {error.strerror or error}; {advice}") from error


def _write(state: Mapping[str, Any], file: Output) -> None:
    hashed = _Hashed(file)
    try:
        torch.save(dict(state), hashed)  # type: ignore[arg-type]  # it needs no more of a file than that
    except RuntimeError:
        if hashed.error is not None:  # PyTorch hides it behind one of its own
            raise hashed.error from None
        raise
    hashed.flush()
    with os.fdopen(os.dup(file.descriptor), "rb") as written:
        inspect(written, written.seek(0, os.SEEK_END))
    file.write(MARK + hashed.sha256.digest())


@define
class _Hashed:
    """A file whose checksum is taken while it is written."""

    file: Output
    sha256: Any = field(factory=hashlib.sha256)
    error: OSError | None = None
    _pending: bytearray = field(factory=bytearray)
    _begun: bool = False

    def write(self, data: bytes | memoryview) -> int:
        if len(self._pending) + len(data) < BLOCK:  # PyTorch writes a tensor's few bytes of header one by one
            self._pending += data
        else:
            self.flush()
            self._write(data)
        return len(data)

    def flush(self) -> None:
        if self._pending:
            self._write(self._pending)
            self._pending = bytearray()

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self.sha256.update(data)
            self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        if not self._begun:
            self._begun = True
            reach("save:half-written")


def load(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what `save` wrote to ``path``.

    Raises:
        CheckpointError: if the file is missing, damaged, cut short, not a visreg checkpoint, or one of a newer visreg.
            Nothing in it is unpickled before its checksum is found to be right, and nothing but tensors and plain data
            ever is. As anyone can write a right checksum, it is also made sure that no more memory is asked for than
            the file is long.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            size = _verified_size(path, file)
            inspect(file, size)
            state = torch.load(file, map_location=device, weights_only=True)
    except UnfitError as error:
        raise CheckpointError(f"{path}: not made of tensors and plain data: it holds {error}") from None
    except (OSError, ValueError) as error:  # a ValueError is of a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot read the checkpoint: {reason}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise CheckpointError(
            f"{path}: not made of tensors and plain data: {str(error).partition(chr(10))[0]}"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("visreg"), str):
        raise CheckpointError(f"{path}: not a checkpoint of a visreg run")
    if _numbers(state["visreg"]) > _numbers(__version__):
        raise CheckpointError(f"{path}: made by visreg {state['visreg']}; this is {__version__}, so update it")
    return state


def opened(path: Path) -> IO[bytes]:
    """Open a file, and nothing that can block or has no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{path}: cannot read the checkpoint: not a file")
    return os.fdopen(descriptor, "rb")


def _verified_size(path: Path, file: IO[bytes]) -> int:
    """Return how many bytes are before the trailer, once they are known to be an archive with the right checksum."""
    size = file.seek(0, os.SEEK_END) - TRAILER
    file.seek(max(size - END_SIZE, 0))
    end, trailer = file.read(END_SIZE), file.read()
    if size < END_SIZE or not trailer.startswith(MARK):
        raise CheckpointError(f"{path}: not a visreg checkpoint, or one that was cut short")
    file.seek(0)
    sha256, rest = hashlib.sha256(), size
    while block := file.read(min(BLOCK, rest)):
        sha256.update(block)
        rest -= len(block)
    if trailer[len(MARK) :] != sha256.digest():
        raise CheckpointError(f"{path}: the checkpoint is damaged: its checksum does not match")
    file.seek(0)
    if file.read(4) != b"PK\x03\x04" or not end.startswith(END) or end[-2:] != b"\0\0":
        raise UnfitError("no archive")
    return size


def _numbers(version: str) -> list[int]:
    """Return a version in a form that can be compared.

    >>> _numbers("0.10.1") > _numbers("0.9"), _numbers("1.0.dev1") > _numbers("1.0")
    (True, False)
    """
    match = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    return [int(number) for number in match[0].split(".")] if match else []


def given(path: Path) -> dict[str, Any]:
    """Return the checkpoint that a user names: a file, or a run's folder, of which it is the newest one.

    Raises:
        CheckpointError: as `load` does, and if there is none in the folder.
    """
    if not (path / "checkpoints").is_dir():
        return load(path)
    state = resume(path / "checkpoints")
    if state is None:
        raise CheckpointError(f"{path / 'checkpoints'}: no checkpoint in it; train first")
    return state


def run_folder(path: Path) -> Path:
    """Return the folder of the run that a checkpoint is of: files about it go there, beside ``checkpoints``.

    >>> print(run_folder(Path("work/cnn/checkpoints/last.pt")), run_folder(Path("best.pt")))
    work/cnn .
    """
    if (path / "checkpoints").is_dir():
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


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
        best = folder / "best.pt"
        advice = f"give --resume {best} to go on from the best one" if best.exists() else "train without --resume"
        lines = [f"{folder}: every checkpoint is damaged; none can be resumed:", *errors, advice]
        raise CheckpointError("\n  ".join(lines))
    return None


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], limit: int = 20) -> list[str]:
    """Return a line for each key that one state has and the other lacks, or has in another shape; at most ``limit``."""
    return first(_differences(expected, found), limit)


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    for key in sorted(expected.keys() | found.keys(), key=str):
        if key not in found:
            yield f"{key}: missing in the checkpoint, {tuple(expected[key].shape)} in the model"
        elif not isinstance(found[key], Tensor):
            yield f"{key}: a {type(found[key]).__name__} in the checkpoint, and no tensor"
        elif key not in expected:
            yield f"{key}: {tuple(found[key].shape)} in the checkpoint, missing in the model"
        elif expected[key].shape != found[key].shape:
            yield f"{key}: {tuple(found[key].shape)} in the checkpoint, {tuple(expected[key].shape)} in the model"
        elif expected[key].dtype != found[key].dtype:
            yield f"{key}: {found[key].dtype} in the checkpoint, {expected[key].dtype} in the model"
