"""Samples kept as they were decoded, by index, in a file that all workers and processes map into their memory."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from visreg.cache_file import ENTRY, HEADER, Local, Opened
from visreg.data import Sample
from visreg.errors import DataError
from visreg.machine import free_memory

RESERVE = 1 << 30  # bytes of memory or of a disk that are left to others
BETWEEN = 1 << 26  # bytes that a process writes before it looks again at how much room there is
UNKNOWN, RIGHT, REPLACED = 0, 1, 2  # of a record in this run: not verified yet, verified, or damaged and made again
LITTLE = 255  # in the place of an error's number: there is room, but it is to be left to others


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
        header: what the file begins with, if known.
        states: by entry, what is known of its record, uint8, in memory that workers share; the last is of the whole:
            the number of the error for which no more is kept, or `LITTLE`.
        keeps: what a file in memory lives as long as.
    """

    path: str
    memory: bool = False
    slots: Tensor = field(repr=False)
    first: int = 0
    header: bytes = field(default=b"", repr=False)
    states: Tensor = field(init=False, repr=False)
    keeps: Local | None = field(default=None, repr=False)
    _opened: Opened | None = field(default=None, init=False, repr=False)
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
        record = file.record(slot, verify=int(self.states[slot]) == UNKNOWN)
        if record is None:
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
            file.enter(slot, file.append(parts, length), length, checksum)
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
            which, more = ", ".join(map(str, places)), f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""
            what, were = ("sample", "was") if len(replaced) == 1 else ("samples", "were")
            told.append(f"{self.path}: {what} {which}{more} {were} damaged, and {were} decoded again")
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

    def _file(self) -> Opened:
        """Return the file, opened by this very process: a descriptor that two share would have one position."""
        if self._opened is None or self._opened.owner != os.getpid():
            self._opened = Opened(self.path, self.header)
        return self._opened


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
