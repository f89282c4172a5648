"""What a worker process does: makes what it is asked for, until its parent ends."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from visreg.errors import ResourceError, VisregError
from visreg.plugin_file import load_file, loaded_files
from visreg.slabs import Sender

NO_MEMORY = ("Cannot allocate memory", "No space left on device", "Too many open files", "ancdata", "SIGBUS")
LACKING = "shared memory (/dev/shm) or another resource ran out; lower workers or batch_size, or make it larger"
HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # from a new worker, while it has the parent's handlers

Make = Callable[[Any, Callable[[int], None]], Any]


class PluginFiles:
    """Plugin files that are loaded as soon as this is unpickled: before what comes after it, which may need them."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[list[Path]]]:
        return _load, (loaded_files(),)


def _load(files: list[Path]) -> None:
    for file in files:
        load_file(file)


def work(_: PluginFiles | None, number: int, make: Make, pipe: Connection, note: Any) -> None:
    """Make what is asked for, until the parent ends."""
    _let_go_of_signals()
    torch.set_num_threads(1)  # the processes share the cores
    slabs = Sender()
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, tasks), daemon=True).start()
    while True:
        turn, batch, task = tasks.get()

        def begin(index: int, batch: int = batch) -> None:
            note[1:] = (batch, index)
            note[0] += 1

        try:
            value = slabs.pack(make(task, begin))
            answer = pickle.dumps((turn, True, value))  # not as `pipe.send` does it: that would need a folder
        except Exception as error:
            value, answer = None, pickle.dumps((turn, False, _portable(error, number)))
        try:
            pipe.send_bytes(answer)
            slabs.hand_over(pipe, value)
        except ConnectionError:
            return  # the parent wants nothing any more
        del value, answer


def _let_go_of_signals() -> None:
    """Leave the signals of a terminal to the parent, and run none of its handlers."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def _read(pipe: Connection, tasks: queue.SimpleQueue[Any]) -> None:
    """Take tasks out of the pipe, so that neither end ever waits for the other to read; end with the parent."""
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    with suppress(EOFError, OSError):
        while pipe in wait([pipe, parent.sentinel]):
            tasks.put(pipe.recv())
    os._exit(0)


def _portable(error: Exception, number: int) -> Exception:
    """Return ``error`` as it can be sent, with its traceback in a note unless visreg raised it on purpose."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        error = resource(error)
    if not isinstance(error, VisregError):
        error.add_note(f"in worker {number}:\n{text}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error of a plugin may be of any making
        if not isinstance(error, VisregError):
            return RuntimeError(text)
        plain = VisregError(str(error))
        plain.exit_code = error.exit_code
        return plain
    return error


def resource(error: BaseException) -> ResourceError:
    """Return an error that says what ran out, and what to do."""
    return ResourceError(f"{type(error).__name__}: {error}: {LACKING}")
