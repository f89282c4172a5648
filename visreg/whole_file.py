"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import define

from visreg.faults import reach

PREFIX, SUFFIX = ".visreg-", ".tmp"  # of the names of temporary files; what is between them nobody can guess
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
EARLY = 1 << 23  # bytes after which the disk is told to begin


@define
class Output:
    """A file that is being written: as much of one as `torch.save` needs.

    It keeps nothing back, so that a process forked meanwhile has nothing to write a second time.
    """

    descriptor: int
    _size: int = 0
    _begun: int = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of ``data``, and return how many bytes that is.

        Raises:
            OSError: if the disk does not take all of it.
        """
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        self._size += len(data)
        if self._size - self._begun >= EARLY and hasattr(os, "posix_fadvise"):
            # Linux then begins to write, so that there is little left for fsync to wait for.
            os.posix_fadvise(self.descriptor, self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._size
        return len(data)

    def flush(self) -> None:
        """Do nothing: all is written already."""


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[Output]:
    """Give a file to write to, which is at ``path`` once the block has ended without an error, and never in part.

    It is a new file in the same folder, flushed to the disk before it gets its name. Call `sync_folder` before relying
    on the name: until then, a power failure may bring back what was there before.

    Raises:
        OSError: if it cannot be written; what was at ``path`` is still there, and nothing else is left.
    """
    temporary = path.with_name(f"{PREFIX}{os.urandom(8).hex()}{SUFFIX}")
    descriptor = os.open(temporary, FLAGS, mode)
    try:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for `remove_torn`
        reach("save:opened")
        yield Output(descriptor)
        reach("save:written")
        os.fsync(descriptor)
        reach("save:synced")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    reach("save:renamed")


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts``, one behind the other, to ``path``; a crash or a full disk leaves what was there before.

    What is no ordinary file, such as ``/dev/stdout``, is written to as it is.

    Raises:
        OSError: if it cannot be written.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(b"".join(parts))
        return
    path = path.resolve()  # a link stays one
    with whole_file(path) as file:
        for part in parts:
            file.write(part)
    sync_folder(path.parent)


def link_whole(source: Path, path: Path, mode: int = 0o666) -> None:
    """Give the file ``source`` a second name, ``path``, in the same folder; copy it where the disk knows no such thing.

    Raises:
        OSError: if neither can be done; what was at ``path`` is still there.
    """
    temporary = path.with_name(f"{PREFIX}{os.urandom(8).hex()}{SUFFIX}")
    try:
        os.link(source, temporary, follow_symlinks=False)
    except OSError:
        with source.open("rb") as file, whole_file(path, mode) as copy:
            import shutil  # which imports every way to compress

            shutil.copyfileobj(file, copy, 1 << 20)
        return
    try:
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk.

    Raises:
        OSError: if they cannot be written.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    reach("save:folder-synced")


def remove_torn(folder: Path) -> None:
    """Remove the temporary files that crashed processes left in ``folder``, and none that a living one writes.

    Raises:
        OSError: if one cannot be removed.
    """
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its writer lives, or the disk has no locks and nobody can tell
            continue
        else:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
