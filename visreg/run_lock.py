"""One run at a time in a run's folder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path

from visreg.errors import InUseError, ResourceError

logger = logging.getLogger("visreg")

NAME = ".lock"
ATTEMPTS = 10  # to make the folder, which runs that end may remove meanwhile


class RunLock:
    """Keeps a folder for this process from `__enter__` to `__exit__`; the file ``.lock`` in it says whose it is.

    It is the kernel that holds the lock (flock), and it lets go when the process ends, however it ends. A file that a
    dead process left therefore locks nothing. A folder that there was not before is made, and removed at the end if
    nothing else has been put into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = -1
        self._made: list[Path] = []  # the folder and those that it is in, as far as they were not there

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            InUseError: if another run has it; says which.
            ResourceError: if the folder cannot be written.
        """
        self._file = self._opened()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read(self._file)
            self._close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InUseError(
                    f"{self.folder} is in use by {_described(holder)}; wait for it, end it, or give --work-dir DIR"
                ) from None
            told = "%s: cannot be locked (%s); see to it that no other run uses it"
            logger.warning(told, self.folder / NAME, error.strerror)
            return self
        if not os.fstat(self._file).st_nlink:  # another run has just removed it, and locking it keeps nobody out
            self._close()
            return self.__enter__()
        self._take_over()
        in_child = weakref.WeakMethod(self._close)  # or a worker that outlives this process keeps the folder locked
        os.register_at_fork(after_in_child=lambda: (method := in_child()) and method())
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            _write(self._file, {})
        if self._made:
            self._remove()
        self._close()

    def _opened(self, attempts: int = ATTEMPTS) -> int:
        """Return the file, opened; the folder is made where there is none."""
        try:
            self._made = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(self.folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            self._remove()
            if isinstance(error, (FileNotFoundError, FileExistsError)) and attempts > 1:
                return self._opened(attempts - 1)  # it was there, and is not now: another run has just removed it
            problem = f"cannot write the run's folder: {error.strerror}; set run.work_dir"
            raise ResourceError(f"{self.folder}: {problem}") from None

    def _remove(self) -> None:
        """Remove the folders that were made, unless something has been put into them."""
        with suppress(OSError):  # what cannot be removed is no harm
            if self._file >= 0 and [each.name for each in self.folder.iterdir()] == [NAME]:
                (self.folder / NAME).unlink()
            for folder in self._made:
                folder.rmdir()

    def _take_over(self) -> None:
        if before := _read(self._file):
            logger.info("%s: its last run, %s, has ended unexpectedly", self.folder, _described(before))
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        _write(self._file, {"pid": os.getpid(), "host": socket.gethostname(), "since": now})

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _read(file: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: int, holder: dict[str, object]) -> None:
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(holder).encode() if holder else b"", 0)
    except OSError as error:  # a full disk; the lock holds all the same
        logger.warning("%s: cannot be written: %s", NAME, error.strerror)


def _described(holder: dict[str, object]) -> str:
    """Say whose lock it is.

    >>> _described({"pid": 7, "host": "node1", "since": "2026-01-31 09:00:00"})
    'process 7 on node1, since 2026-01-31 09:00:00'
    """
    if not {"pid", "host", "since"} <= holder.keys():
        return "another run"
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
