"""Where log messages go: to the screen, and to a run's log file."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from visreg import dist

logger = logging.getLogger("visreg")


class _Stdout(logging.StreamHandler[Any]):
    """Writes to whatever is stdout now, so that a live progress bar can put the lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        if not isinstance(sys.exception(), (OSError, ValueError)):  # a closed stdout does not stop training
            super().handleError(record)


class _LogFile(logging.FileHandler):
    """Leaves out what a full disk does not take, which does not stop training either."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # of opening the file
            super().emit(record)

    handleError = _Stdout.handleError  # noqa: N815  logging's name


class _Early(logging.Handler):
    """Keeps what is logged until there is a file; Python's own, a MemoryHandler, takes importing its socket library."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def log_to_stdout() -> None:
    """Print what is logged, and keep it until `log_to_file` says where it goes besides."""
    logger.setLevel(logging.INFO if dist.is_main() else logging.ERROR)
    logger.propagate = False
    for handler in list(logger.handlers):  # a second call in one process, as in tests
        logger.removeHandler(handler)
        handler.close()
    stdout = _Stdout()
    stdout.setFormatter(logging.Formatter("%(message)s"))
    printed = ("visreg.console", "visreg.error")  # by themselves
    stdout.addFilter(lambda record: record.name not in printed and sys.stdout is not None)
    logger.addHandler(stdout)
    logger.addHandler(_Early())


def log_to_file(path: Path) -> None:
    """Write what is logged to ``path``, and first what has been logged so far."""
    file = _LogFile(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for early in [handler for handler in logger.handlers if isinstance(handler, _Early)]:
        logger.removeHandler(early)
        for record in early.records:
            file.handle(record)
    logger.addHandler(file)


def give_up_stdout() -> OSError | None:
    """Return what is wrong with stdout, if it takes no more; Python would fail once more at exit, when it flushes."""
    if sys.stdout is None:  # after `>&-`
        return None
    try:
        sys.stdout.flush()
        if not _is_unread(sys.stdout):
            return None
        lost: OSError = BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    except OSError as error:
        lost = error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return lost


def _is_unread(stream: Any) -> bool:
    """Return whether a stream is a pipe whose reader has gone, as of ``| head``; nothing need be waiting in it."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # it is no file, as in a notebook
        return False
    return any(events & select.POLLERR for _, events in poll.poll(0))
