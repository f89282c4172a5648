"""Worker processes that make batches; one that dies or hangs is replaced, and its batches are made again."""

from __future__ import annotations

import logging
import os
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from attrs import define, field
from torch import multiprocessing

from visreg.errors import DataError, ResourceError
from visreg.slabs import Receiver
from visreg.worker import HELD_BACK, LACKING, NO_MEMORY, Make, PluginFiles, resource, work

logger = logging.getLogger("visreg")

RESTARTS = 3  # of a worker, for one batch
AHEAD = 2  # batches that each worker is asked for beforehand
GLANCE = 0.5  # seconds between two looks at whether a worker gets on
START = 60.0  # seconds that a worker may take to begin its first sample


class WorkerError(DataError):
    """A worker died or hung, and so did those that took its place.

    Attributes:
        index: of the sample that it was at, or -1.
    """

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index


@define(kw_only=True, eq=False)
class Workers:
    """Processes that make things in order: the same things as one process would, whatever happens to them.

    Task ``n`` goes to worker ``n % count``. Each has a pipe of its own, so that one that is killed in the middle of
    anything holds no lock that another waits for.

    Attributes:
        make: is called with a task, and with what to tell the index of each sample that is begun.
        count: how many there are.
        timeout: seconds that one sample may take; 0 for any time.
        place: what to call a sample in a message.
        pinned: put tensors into memory that a GPU can read from by itself.
        restarts: how often a worker is replaced before the result that is waited for has to be there.
        context: how processes start; by default as Python starts them on this system.
    """

    make: Make
    count: int
    timeout: float = 0.0
    place: Callable[[int], str] = str
    pinned: bool = False
    restarts: int = RESTARTS
    context: Any = field(factory=multiprocessing.get_context, repr=False)
    _workers: list[_Worker] = field(factory=list, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        weakref.finalize(self, _stop, self._workers)

    def results(self, tasks: Iterable[Any], first: int = 0) -> Iterator[Any]:
        """Yield what ``make`` makes of each of ``tasks``, numbered from ``first``, in order.

        Raises:
            WorkerError: if a worker dies or hangs too often; names it, the batch and the sample.
            ResourceError: if memory, or what else the machine has, ran out.
            Exception: whatever ``make`` raised.
        """
        numbered = enumerate(tasks, first)
        try:
            while len(self._workers) < self.count:
                number = len(self._workers)
                self._workers.append(_Worker(number=number, make=self.make, context=self.context, pinned=self.pinned))
                self._workers[-1].start()
            workers = list(self._workers)
            for worker in workers:
                worker.forget()
            for worker in workers * AHEAD:
                worker.ask(numbered)
            while workers[0].waiting:
                result = self._result(workers[0])
                workers[0].ask(numbered)
                yield result
                workers.append(workers.pop(0))
        except GeneratorExit:
            raise  # whatever they still make of this round is thrown away in the next
        except BaseException:  # even one from a signal's handler, amid a message: the pipes are of no more use
            _stop(self._workers)
            raise

    def _result(self, worker: _Worker) -> Any:
        """Return the next result of a worker, replacing it where there is none."""
        for left in range(self.restarts, -1, -1):
            failure = worker.receive(self.timeout)
            if not failure:
                return worker.take()
            batch, index = worker.note[1:]
            at = f", at {self.place(index)}" if index >= 0 else ""
            message = f"worker {worker.number} {failure} while making batch {batch}{at}"
            worker.stop()
            if left:
                logger.warning("%s; another one makes it again", message)
                worker.start()
        if any(sign in failure for sign in NO_MEMORY):
            raise ResourceError(f"{message}: {LACKING}")
        again = f", and so did {self.restarts} others in its place" if self.restarts else ""
        raise WorkerError(f"{message}{again}; {_advice(failure)}", index)


def _advice(failure: str) -> str:
    if "hung" in failure:
        return "look at that sample, or raise timeout"
    memory = "lower workers if memory was short (the kernel kills then), " if "SIGKILL" in failure else ""
    return f"{memory}look at that sample, or set workers=0 to see more"


def _stop(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().stop()


@define(kw_only=True, eq=False)
class _Worker:
    """One process, and what it was asked for in this round and has not given yet.

    Attributes:
        waiting: numbers and tasks.
        note: how many samples it has begun, the batch and the index of the latest; it keeps this in shared memory.
    """

    number: int
    make: Make
    context: Any
    pinned: bool = False
    waiting: deque[tuple[int, Any]] = field(factory=deque, init=False)
    round: int = field(default=0, init=False)
    note: Any = field(init=False)
    owner: int = field(factory=os.getpid, init=False)
    process: Any = field(default=None, init=False)
    pipe: Connection = field(init=False)
    slabs: Receiver = field(init=False)
    received: tuple[int, bool, Any] = field(default=(0, False, None), init=False)

    def __attrs_post_init__(self) -> None:
        self.note = self.context.RawArray("q", 3)

    def start(self) -> None:
        """Start a process, and ask it for all that is waited for."""
        self.note[:] = (0, -1, -1)
        self.slabs = Receiver(self.pinned)
        self.pipe, end = self.context.Pipe()
        arguments = (PluginFiles(), self.number, self.make, end, self.note)
        process = self.context.Process(target=work, args=arguments, name=f"worker {self.number}", daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            process.start()
            self.process = process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        end.close()
        for number, task in self.waiting:
            self._send(number, task)

    def stop(self) -> None:
        """Kill the process: it holds nothing that would be left behind."""
        if self.process is not None and self.owner == os.getpid():  # a forked process has this object too
            self.process.kill()
            self.process.join()
            self.pipe.close()

    def forget(self) -> None:
        """Begin another round: what was asked for before is not waited for any more."""
        self.waiting.clear()
        self.round += 1

    def ask(self, numbered: Iterator[tuple[int, Any]]) -> None:
        """Ask for the next of ``numbered`` tasks, if there is one."""
        for number, task in numbered:
            self.waiting.append((number, task))
            self._send(number, task)
            break

    def _send(self, number: int, task: Any) -> None:
        with suppress(OSError):  # if it is dead, that will be seen when its result is due
            self.pipe.send((self.round, number, task))

    def receive(self, timeout: float) -> str:
        """Wait for the next result of this round; return why there will be none, or nothing."""
        while True:
            if failure := self._wait(timeout):
                return failure
            try:
                self.received = self.pipe.recv()
                self.slabs.note(self.pipe, self.received[2])
            except (EOFError, ConnectionError):
                return self._death()
            except (OSError, RuntimeError) as error:
                raise resource(error) from error
            if self.received[0] == self.round:
                return ""

    def take(self) -> Any:
        """Return what was received; raise it if it is an error."""
        self.waiting.popleft()
        (_, right, value), self.received = self.received, (0, False, None)
        if not right:
            raise value
        return self.slabs.unpack(value)

    def _wait(self, timeout: float) -> str:
        """Wait until there is something to read; return why there will not be, if so."""
        since, begun = time.monotonic(), self.note[0]
        while not wait([self.pipe, self.process.sentinel], GLANCE if timeout else None):
            if self.note[0] != begun:
                since, begun = time.monotonic(), self.note[0]
            elif time.monotonic() - since > (timeout if begun else max(timeout, START)):
                return f"hung for {timeout:g} s" if begun else "did not start"
        return "" if self.pipe.poll() else self._death()

    def _death(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        if code is None:
            return "closed its pipe"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended itself with exit code {code}"
