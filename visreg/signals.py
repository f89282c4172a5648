"""SIGINT, SIGTERM and SIGHUP: what each asks of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from visreg import dist

T = TypeVar("T")

logger = logging.getLogger("visreg.console")  # for a log file; a person is told at once

STOPPING = (signal.SIGINT, signal.SIGTERM)
GRACE = 2.0  # seconds that a second SIGINT leaves the main thread to end by itself
CLOSED = b"\0"  # no signal's number


class Left(BaseException):
    """A signal ended something that can be left at any time; no Exception, so that nothing in between handles it.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: stopped before training began")
        self.number = number


class Signals:
    """Notes what signals ask for, while it is entered; without that, nothing is ever asked.

    The first SIGINT or SIGTERM is left in ``received``, and ends what runs inside `leavable`. A second SIGINT raises
    KeyboardInterrupt, and ends the process within `GRACE` seconds where the main thread does not come to that. A second
    SIGTERM, and SIGHUP, change nothing.

    Signals of one number that come before Python can look at the first are one to Python. A thread counts them as they
    arrive, so that a second SIGINT also counts in the middle of a long operation, if it lets other threads run as
    PyTorch's do.

    Attributes:
        received: the number of the first signal that asked to stop, or 0.
    """

    def __init__(self) -> None:
        self.received = 0
        self._leavable = False
        self._notes: list[str] = []
        self._before: dict[int, Any] = {}
        self._wakeup = self._old_wakeup = -1
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def listening(self) -> bool:
        return bool(self._before)

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets no other thread handle signals
        reader, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._thread = threading.Thread(target=self._count, args=(reader,), name="visreg-signals", daemon=True)
        self._thread.start()
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in (*STOPPING, signal.SIGHUP)}
        _register_at_fork(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        signal.set_wakeup_fd(self._old_wakeup)
        self._over.set()
        os.write(self._wakeup, CLOSED)
        self._thread.join()
        self._thread = None
        os.close(self._wakeup)

    def leavable(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns.

        Raises:
            Left: if a signal comes meanwhile, or has come before; at any point inside ``function``.
        """
        try:
            self._leavable = True
            if self.received:
                self._leave()
            return function()
        finally:
            self._leavable = False

    def tell(self) -> None:
        """Log what came; a handler must not, since it may have interrupted that very log."""
        while self._notes:
            logger.warning(self._notes.pop(0))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            self._notes.append(f"{name}: the terminal is gone; training goes on")
        elif not self.received:
            self.received = number
            self._notes.append(name)
            if self._leavable:
                self._leave()
            _say(f"{name}: finishing the step and saving; Ctrl-C once more stops at once")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def _leave(self) -> None:
        self._leavable = False  # wherever this is raised, it is raised once
        raise Left(self.received)

    def _count(self, reader: int) -> None:
        """Read the number of each signal as it arrives; at a second SIGINT give the main thread time, then exit."""
        stopping = 0
        while CLOSED not in (numbers := os.read(reader, 256)):
            for number in numbers:
                stopping += number in STOPPING
                if number == signal.SIGINT and stopping > 1 and not self._over.wait(GRACE):
                    os._exit(128 + signal.SIGINT)
        os.close(reader)

    def leave_to_parent(self) -> None:
        """In a process that this one has forked: it is for the parent to decide what a signal means."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._before, self._thread = {}, None


def _register_at_fork(signals: Signals) -> None:
    """Let ``signals``, as long as it listens, leave a new process without handlers before a signal can reach them."""
    reference = weakref.ref(signals)

    def mask(how: int) -> None:
        if (found := reference()) is not None and found.listening:
            signal.pthread_sigmask(how, (*STOPPING, signal.SIGHUP))

    def in_child() -> None:
        if (found := reference()) is not None and found.listening:
            found.leave_to_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOPPING, signal.SIGHUP))

    os.register_at_fork(
        before=lambda: mask(signal.SIG_BLOCK),
        after_in_parent=lambda: mask(signal.SIG_UNBLOCK),
        after_in_child=in_child,
    )


def _say(line: str) -> None:
    """Print to stderr from a handler, where a print that was interrupted may hold the buffer."""
    if dist.is_main() and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # it is closed, or has no descriptor
            os.write(sys.stderr.fileno(), f"{line}\n".encode())
