"""Writing a state while training goes on: a copy of it, and a thread that works on the copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from attrs import define, field
from torch import Tensor


@define(eq=False)
class Snapshot:
    """A copy of a state in host memory, which the next copy takes over.

    Memory that is used again takes a quarter of the time: the system need not find and clear it. There is as much of
    it as the state's tensors take. It is pinned for those of a GPU, so that the copy runs beside the kernels.

    Attributes:
        state: the copy. Tensors that shared memory still do. Those of a GPU are there once `wait` returns.
    """

    state: Any = None
    _buffers: list[Tensor] = field(factory=list)
    _event: torch.cuda.Event | None = None

    def take(self, state: Any) -> None:
        """Copy ``state``: containers, plain data and tensors on any device."""
        before, self._buffers = self._buffers, []
        self.state, self._event = None, None
        memo: dict[int, Any] = {}
        storages: dict[int, Tensor] = {}
        for tensor in tensors(state):
            memo[id(tensor)] = self._copy(tensor, storages, before)
        self.state = copy.deepcopy(state, memo)  # finds the tensors copied, and copies the rest
        if any(buffer.is_pinned() for buffer in self._buffers):
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
            self._event.record()

    def wait(self) -> None:
        """Wait until the copies from a GPU, if there are any, are complete."""
        if self._event is not None:
            self._event.synchronize()

    def _copy(self, tensor: Tensor, storages: dict[int, Tensor], before: list[Tensor]) -> Tensor:
        if tensor.layout != torch.strided or tensor.device.type not in ("cpu", "cuda"):
            return tensor.detach().cpu().clone()
        storage = tensor.untyped_storage()
        place = storages.get(storage._cdata)
        if place is None:
            place = storages[storage._cdata] = self._buffer(storage.nbytes(), tensor.is_cuda, before)
            place.copy_(torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage), non_blocking=True)
        whole = torch.empty(0, dtype=tensor.dtype)
        return whole.set_(place.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())

    def _buffer(self, size: int, pinned: bool, before: list[Tensor]) -> Tensor:
        """Return room for so many bytes: that which the last copy had for the same tensor, if it still fits."""
        number = len(self._buffers)
        if number < len(before) and before[number].nbytes == size and before[number].is_pinned() == pinned:
            buffer = before[number]
        else:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self._buffers.append(buffer)
        return buffer


def tensors(state: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested dicts, lists and tuples."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)
    elif isinstance(state, (list, tuple)):
        for value in state:
            yield from tensors(value)


@define(eq=False)
class Writer:
    """Writes states in a thread of its own, one at a time."""

    _snapshot: Snapshot = field(factory=Snapshot)
    _future: Future[None] | None = None

    def start(self, write: Callable[[Any], None], state: Any, *, copied: bool) -> None:
        """Begin to call ``write`` with ``state``, or with a copy of it, which must be if it changes before `wait`.

        What was begun before must have been waited for.
        """
        if copied:
            self._snapshot.take(state)
        executor = ThreadPoolExecutor(1, "visreg-save")
        self._future = executor.submit(self._write_copy, write) if copied else executor.submit(write, state)
        executor.shutdown(wait=False)  # the thread ends with what it has to do

    def wait(self) -> BaseException | None:
        """Wait for what was begun, if anything was, and return the exception that ended it, if one did."""
        if self._future is None:
            return None
        error = self._future.exception()
        self._future = None
        return error

    def _write_copy(self, write: Callable[[Any], None]) -> None:
        self._snapshot.wait()
        write(self._snapshot.state)
