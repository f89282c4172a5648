"""Samples kept as they were decoded, in one file of bytes that all workers and processes map into their memory."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import struct
import tempfile
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from visreg.data import Sample
from visreg.errors import DataError
from visreg.machine import free_memory

HEADER = 64  # bytes: `MAGIC`, and what the samples were made of, with its checksum; the entries follow, and the records
MAGIC = b"visreg samples 1"
ENTRY = struct.Struct("<QQII")  # of a record: its place, its length, its checksum; and the checksum of the entry itself
RESERVE = 1 << 30  # bytes of memory or of a disk that are left to others
BETWEEN = 1 << 26  # bytes that a process writes before it looks again at how much room there is
UNKNOWN, RIGHT, REPLACED = 0, 1, 2  # of a record in this run: not verified yet, verified, or damaged and made again
LITTLE = 255  # in the place of an error's number: there is room, but it is to be left to others


def cache_root() -> Path:
    """Return the folder of caches: ``$VISREG_CACHE``, else ``visreg`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if given := os.environ.get("VISREG_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visreg"


@define(kw_only=True, eq=False)
class Cache:
    """Samples by index, each put there once, by whoever makes it first.

    A record is appended whole, and its entry is written after it. So neither a process that is killed at any moment
    nor another that writes at the same time leaves more behind than a record that nobody finds. Each is verified the
    first time that it is read in a run; a damaged one is not there, and is written again.

    Attributes:
        path: of the file, which `new_file` or `new_memory` has made.
        memory: whether it is in memory, and not on a disk.
        slots: the entry of each sample, int64 (N,); a sample that comes twice has one.
        first: how many of the transforms the samples have passed through.
        states: by entry, what is known of its record, uint8, in memory that workers share; the last is of the whole:
            the number of the error for which no more is kept, or `LITTLE`.
        keeps: what a file in memory lives as long as.
    """

    path: str
    memory: bool = False
    slots: Tensor = field(repr=False)
    first: int = 0
    states: Tensor = field(init=False, repr=False)
    keeps: _Local | None = field(default=None, repr=False)
    _opened: _Opened | None = field(default=None, init=False, repr=False)
    _told: bool = field(default=False, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        states = torch.zeros(self.entries + 1, dtype=torch.uint8)
        self.states = states.share_memory_()  # type: ignore[no-untyped-call]  # of torch's own

    @property
    def entries(self) -> int:
        """How many different samples there are."""
        return int(self.slots.max()) + 1

    def held(self) -> int:
        """Return how many samples are kept already."""
        rows = bytearray(os.pread(self._file().entries, self.entries * ENTRY.size, HEADER))
        return int((torch.frombuffer(rows, dtype=torch.int64).view(-1, 3)[:, 1] != 0).sum()) if rows else 0

    def open(self) -> None:
        """Open the file; where samples cannot be added, and are to be, `news` says so.

        Raises:
            DataError: if it cannot be opened.
        """
        try:
            file = self._file()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be opened: {error.strerror}; remove it, or cache") from error
        try:
            file.make_sure_of_writing()
            self._make_sure_of_room()
        except OSError as error:
            if self.held() < self.entries:
                self._give_up(error)

    def get(self, index: int) -> Sample | None:
        """Return a sample, or None if it is not kept; its bytes are those of the file, and not to be written to."""
        try:
            file = self._file()
        except OSError as error:  # somebody has deleted it
            self._give_up(error)
            return None
        slot = int(self.slots[index])
        raw = os.pread(file.entries, ENTRY.size, HEADER + slot * ENTRY.size)
        start, length, checksum, check = ENTRY.unpack(raw)
        if not length:
            return None
        record = file.bytes(start, length) if check == _check(slot, raw) else None
        if record is None or (self.states[slot] == UNKNOWN and zlib.crc32(record) != checksum):
            file.damaged.add(slot)
            return None
        if self.states[slot] == UNKNOWN:
            self.states[slot] = RIGHT
        return _unpacked(record)

    def put(self, index: int, sample: Sample) -> None:
        """Keep a sample of tensors, if there is room."""
        if self.states[-1]:
            return
        slot = int(self.slots[index])
        parts, _tensors = _packed(sample)  # which must live as long as their bytes are looked at
        length, checksum = sum(map(len, parts)), 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        try:
            file = self._file()
            file.make_sure_of_writing()
            if file.written >= BETWEEN:
                self._make_sure_of_room()
                file.written = 0
            file.written += length
            raw = ENTRY.pack(file.append(parts, length), length, checksum, 0)
            os.pwrite(file.entries, raw[:-4] + struct.pack("<I", _check(slot, raw)), HEADER + slot * ENTRY.size)
        except OSError as error:
            self._give_up(error)
            return
        self.states[slot] = REPLACED if slot in file.damaged else RIGHT

    def news(self) -> list[str]:
        """Return what there is to tell since this was called before."""
        told = []
        replaced = (self.states[:-1] == REPLACED).nonzero()[:, 0]
        if len(replaced):
            places = [int((self.slots == slot).nonzero()[0, 0]) for slot in replaced[:5]]
            more = f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""
            told.append(f"{self.path}: sample {', '.join(map(str, places))}{more} was damaged, and was decoded again")
            self.states[replaced] = RIGHT
        if self.states[-1] and not self._told:
            number, where = int(self.states[-1]), "memory" if self.memory else "the disk"
            little = f"less than {RESERVE >> 30} GiB of {where} would be left free"
            reason = little if number == LITTLE else os.strerror(number)
            told.append(f"{self.path}: {reason}: {self.held()} of {self.entries} samples are kept; no more will be")
            self._told = True
        return told

    def _make_sure_of_room(self) -> None:
        free = free_memory() if self.memory else shutil.disk_usage(Path(self.path).parent).free
        if free - BETWEEN < RESERVE:
            raise OSError(LITTLE, "")

    def _give_up(self, error: OSError) -> None:
        self.states[-1] = min(error.errno or errno.EIO, LITTLE)

    def _file(self) -> _Opened:
        """Return the file, opened by this very process: a descriptor that two share would have one position."""
        if self._opened is None or self._opened.owner != os.getpid():
            self._opened = _Opened(self.path)
        return self._opened


class _Local:
    """What belongs to one process, and is not sent to others; ``file`` is kept from being closed."""

    def __init__(self, file: Any = None) -> None:
        self.file = file

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()


class _Opened(_Local):
    """A cache's file, opened by one process.

    Attributes:
        entries: a descriptor to read and write entries with. end: one to add records with.
        refused: the error for which it can be read alone, such as a mount that is read-only.
        damaged: entries whose record turned out not to be what was written.
        written: bytes since somebody looked at how much room there is.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.owner = -1
        self.refused: OSError | None = None
        try:
            self.entries = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self.entries, self.refused = os.open(path, os.O_RDONLY | os.O_CLOEXEC), error
        self.end = os.open(path, (os.O_RDONLY if self.refused else os.O_RDWR | os.O_APPEND) | os.O_CLOEXEC)
        self.owner = os.getpid()
        self.damaged: set[int] = set()
        self.lock = threading.Lock()
        self.written = BETWEEN
        self.map: mmap.mmap | None = None

    def bytes(self, start: int, length: int) -> memoryview | None:
        """Return bytes of the file, None if it ends before; writing to them changes them for this process alone."""
        if self.map is None or start + length > len(self.map):
            self.map = mmap.mmap(self.entries, 0, access=mmap.ACCESS_COPY)
        return memoryview(self.map)[start : start + length] if start + length <= len(self.map) else None

    def make_sure_of_writing(self) -> None:
        """Raise the error for which it can be read alone, if so."""
        if self.refused is not None:
            raise self.refused

    def append(self, parts: Sequence[Any], length: int) -> int:
        """Write a record to the end of the file, in one go, and return where it is."""
        with self.lock:
            if os.writev(self.end, parts) != length:
                raise OSError(errno.ENOSPC, "")
            return os.lseek(self.end, 0, os.SEEK_CUR) - length

    def __del__(self) -> None:
        if self.owner == os.getpid():
            os.close(self.entries)
            os.close(self.end)


def _check(slot: int, raw: bytes) -> int:
    return zlib.crc32(raw[:-4], slot & 0xFFFFFFFF)


def _packed(sample: Sample) -> tuple[list[Any], list[Tensor]]:
    """Return a record in parts, and the tensors that they are of: an image is stored as (H, W, C)."""
    rows, parts, tensors = [], [], []
    for key, value in sample.items():
        last = value.ndim == 3 and value.dtype == torch.uint8  # from which it is resized most quickly
        stored = (value.permute(1, 2, 0) if last else value).contiguous()
        rows.append([key, str(stored.dtype).removeprefix("torch."), list(stored.shape), last])
        parts.append((ctypes.c_char * stored.nbytes).from_address(stored.data_ptr()) if stored.nbytes else b"")
        tensors.append(stored)
    table = json.dumps(rows).encode()
    return [struct.pack("<I", len(table)), table, *parts], tensors


def _unpacked(record: memoryview) -> Sample:
    """Return a sample; its bytes lie in the record, all other values are copies, which are aligned."""
    (length,) = struct.unpack_from("<I", record)
    place, sample = 4 + length, {}
    for key, name, shape, last in json.loads(bytes(record[4:place])):
        dtype = getattr(torch, name)
        value = torch.empty(shape, dtype=dtype)
        if value.nbytes:
            part = record[place : place + value.nbytes]
            place += value.nbytes
            value = torch.frombuffer(part if dtype == torch.uint8 else bytearray(part), dtype=dtype).view(shape)
        sample[key] = value.permute(2, 0, 1) if last else value
    return sample


def new_file(name: str, digest: bytes, entries: int) -> tuple[str, str]:
    """Return the path of a cache on the disk, new or as it was left; and why one that was there is begun anew, if so.

    Args:
        name: of the file.
        digest: of all that the samples depend on, 32 bytes: where it is another, what is kept is of no use.
        entries: how many samples there are.

    Raises:
        DataError: if it cannot be written.
    """
    folder, header = cache_root(), _header(digest)
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # which ends with the process
            reason = _misfit(path, header, entries) if path.exists() else ""
            if path.exists() and not reason:
                return str(path), ""
            partial = path.with_name(f"{name}.partial")
            with partial.open("wb") as file:
                file.write(header)
                file.truncate(HEADER + entries * ENTRY.size)
            partial.replace(path)  # whoever has the other one open keeps it
            return str(path), reason
        finally:
            os.close(lock)
    except OSError as error:
        reason = f"{folder}: samples cannot be kept there: {error.strerror or error}"
        raise DataError(f"{reason}; set VISREG_CACHE to another folder, or remove cache") from error


def new_memory(digest: bytes, entries: int) -> tuple[str, _Local]:
    """Return the path of a file in memory, which others of this user can open, and what it lives as long as."""
    if hasattr(os, "memfd_create"):
        keeps: Any = os.fdopen(os.memfd_create("visreg samples"), "wb", buffering=0)
        path = f"/proc/{os.getpid()}/fd/{keeps.fileno()}"
    else:  # then the system may write it to a disk, if it likes
        keeps = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115  it lives as long as the cache
        path = keeps.name
    keeps.write(_header(digest))
    keeps.truncate(HEADER + entries * ENTRY.size)
    return path, _Local(keeps)


def _header(digest: bytes) -> bytes:
    return (MAGIC + digest + struct.pack("<I", zlib.crc32(digest))).ljust(HEADER, b"\0")


def _misfit(path: Path, header: bytes, entries: int) -> str:
    """Return why a file is not one of these samples, if so."""
    with path.open("rb") as file:
        found, size = file.read(HEADER), os.fstat(file.fileno()).st_size
    if found != header and found == _header(found[len(MAGIC) : len(MAGIC) + 32]):
        return "the data or its decoder have changed"
    return "it was damaged" if found != header or size < HEADER + entries * ENTRY.size else ""
