"""The files of caches: where they are, how one is begun, opened, found unfit, and deleted when nobody uses it."""

from __future__ import annotations

import errno
import fcntl
import math
import mmap
import os
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from visreg.errors import DataError

HEADER = 64  # bytes: `MAGIC`, and digests of what the samples were made of, with a checksum; entries and records follow
MAGIC = b"visreg samples 2"
DIGEST = 8  # bytes
ENTRY = struct.Struct("<QQII")  # of a record: its place, its length, its checksum; and the checksum of the entry itself
BLOCK = 512  # bytes, in which the system counts what a file takes
DISUSED = 30  # days after which a cache that nobody has opened is deleted


def cache_root() -> Path:
    """Return the folder of caches: ``$VISREG_CACHE``, else ``visreg`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if given := os.environ.get("VISREG_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visreg"


class Local:
    """What belongs to one process, and is not sent to others; ``file`` is kept from being closed."""

    def __init__(self, file: Any = None) -> None:
        self.file = file

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()


class Opened(Local):
    """A cache's file, opened by one process.

    Args:
        path: of the file.
        header: what it must begin with, if that is known: it may have been replaced since.

    Attributes:
        entries: a descriptor to read and write entries with. end: one to add records with.
        refused: the error for which it can be read alone, such as a mount that is read-only.
        damaged: entries whose record turned out not to be what was written.
        written: bytes since somebody looked at how much room there is; infinite where nobody has.
    """

    def __init__(self, path: str, header: bytes) -> None:
        super().__init__()
        self.owner = -1
        self.refused: OSError | None = None
        try:
            self.entries = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self.entries, self.refused = os.open(path, os.O_RDONLY | os.O_CLOEXEC), error
        self.end = os.open(path, (os.O_RDONLY if self.refused else os.O_RDWR | os.O_APPEND) | os.O_CLOEXEC)
        self.owner = os.getpid()
        if header and os.pread(self.entries, HEADER, 0) != header:
            raise OSError(errno.ESTALE, "it was begun anew by others")
        with suppress(OSError):  # of a file system that has no locks
            fcntl.flock(self.entries, fcntl.LOCK_SH | fcntl.LOCK_NB)  # until the process ends: it is in use
        self.damaged: set[int] = set()
        self.lock = threading.Lock()
        self.written = math.inf
        self.map: mmap.mmap | None = None

    def record(self, slot: int, verify: bool) -> memoryview | None:
        """Return a record; None where there is none, or not what was written, which `damaged` then tells."""
        raw = os.pread(self.entries, ENTRY.size, HEADER + slot * ENTRY.size)
        start, length, checksum, check = ENTRY.unpack(raw)
        if not length:
            return None
        record = self._bytes(start, length) if check == _check(slot, raw) else None
        if record is None or (verify and zlib.crc32(record) != checksum):
            self.damaged.add(slot)
            return None
        return record

    def enter(self, slot: int, start: int, length: int, checksum: int) -> None:
        """Write an entry, once its record is there."""
        raw = ENTRY.pack(start, length, checksum, 0)
        os.pwrite(self.entries, raw[:-4] + struct.pack("<I", _check(slot, raw)), HEADER + slot * ENTRY.size)

    def _bytes(self, start: int, length: int) -> memoryview | None:
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


def new_file(name: str, parts: Mapping[str, bytes], entries: int) -> tuple[str, str]:
    """Return the path of a cache on the disk, new or as it was left; and why one that was there is begun anew, if so.

    Args:
        name: of the file.
        parts: of what the samples depend on, digests of 8 bytes, by what to call them; at most 5. Where one is another,
            what is kept is of no use.
        entries: how many samples there are.

    Raises:
        DataError: if it cannot be written.
    """
    folder, header = cache_root(), header_of(parts.values())
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            reason = _misfit(path, parts, entries) if path.exists() else ""
            if path.exists() and not reason:
                with suppress(OSError):  # somebody else's
                    os.utime(path)
                return str(path), ""
            partial = path.with_name(f"{name}.partial")
            with partial.open("wb") as file:
                file.write(header)
                file.truncate(HEADER + entries * ENTRY.size)
            partial.replace(path)  # whoever has the other one open keeps it
            return str(path), reason
    except OSError as error:
        reason = f"{folder}: samples cannot be kept there: {error.strerror or error}"
        raise DataError(f"{reason}; set VISREG_CACHE to another folder, or remove cache") from error


def new_memory(parts: Mapping[str, bytes], entries: int) -> tuple[str, Local]:
    """Return the path of a file in memory, which others of this user can open, and what it lives as long as."""
    if hasattr(os, "memfd_create"):
        keeps: Any = os.fdopen(os.memfd_create("visreg samples"), "wb", buffering=0)
        path = f"/proc/{os.getpid()}/fd/{keeps.fileno()}"
    else:  # then the system may write it to a disk, if it likes
        keeps = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115  it lives as long as the cache
        path = keeps.name
    keeps.write(header_of(parts.values()))
    keeps.truncate(HEADER + entries * ENTRY.size)
    return path, Local(keeps)


def caches() -> dict[Path, int]:
    """Return the caches on the disk, which visreg has made, and how many bytes each takes."""
    found = {}
    for path in sorted(cache_root().glob("*.samples*")):
        with suppress(OSError), open(path, "rb", opener=_unfollowed) as file:
            if file.read(len(MAGIC)) == MAGIC:
                found[path] = os.fstat(file.fileno()).st_blocks * BLOCK
    return found


def drop_disused() -> dict[Path, int]:
    """Delete this user's caches that nobody has opened for a month, nor has open; return how many bytes each took.

    Those of other users stay: whoever may only read a cache leaves no sign of having opened it.
    """
    dropped = {}
    before = time.time() - DISUSED * 86400
    with suppress(OSError), _locked(cache_root()):  # so that nobody is about to open what is old
        for path, size in caches().items():
            with suppress(OSError), open(path, "rb", opener=_unfollowed) as file:
                found = os.fstat(file.fileno())
                if found.st_uid == os.geteuid() and found.st_mtime < before:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which an `Opened` does not let it have
                    path.unlink()
                    dropped[path] = size
    return dropped


def _unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time begin or delete caches."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which ends with the process
        yield
    finally:
        os.close(lock)


def header_of(digests: Iterable[bytes]) -> bytes:
    """Return what the file of samples that depend on what has these digests begins with."""
    content = (MAGIC + b"".join(digests)).ljust(HEADER - 4, b"\0")
    return content + struct.pack("<I", zlib.crc32(content))


def _misfit(path: Path, parts: Mapping[str, bytes], entries: int) -> str:
    """Return why a file is not one of these samples, if so."""
    with path.open("rb") as file:
        found, size = file.read(HEADER), os.fstat(file.fileno()).st_size
    place, end = len(MAGIC), len(MAGIC) + DIGEST * len(parts)
    if found != header_of([found[place:end]]) or size < HEADER + entries * ENTRY.size:
        return "it was damaged"
    others = [found[at : at + DIGEST] for at in range(place, end, DIGEST)]
    changed = [name for (name, digest), other in zip(parts.items(), others, strict=True) if digest != other]
    return f"{' and '.join(changed)} changed" if changed else ""


def _check(slot: int, raw: bytes) -> int:
    return zlib.crc32(raw[:-4], slot & 0xFFFFFFFF)
