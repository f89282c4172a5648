"""How a worker hands tensors over: through shared memory that it uses again and again.

New memory is dear, since the system clears each page of it, in each process that looks at it; a copy is not. So a
worker has a few slabs of memory, in which it lays its results by turns, and its parent copies them out. A slab has no
name: its descriptor goes through the same socket as the results, so that nothing is left when either process is killed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

TURNS = 3  # slabs: one more than the results of a worker that are not taken yet, so that none is overwritten
ALIGNED = 64  # bytes, which every tensor begins at a multiple of


@frozen
class Laid:
    """A tensor's place in a slab."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@frozen
class Packet:
    """A value whose tensors lie in a slab.

    Attributes:
        slab: which one. fresh: how many bytes it has, if it is to be handed over; else 0.
        value: with a `Laid` for each tensor.
    """

    slab: int
    fresh: int
    value: Any


@define(eq=False)
class Sender:
    """A worker's slabs.

    Attributes:
        fresh: those that are not handed over yet.
    """

    slabs: dict[int, Tensor] = field(factory=dict)
    fresh: set[int] = field(factory=set)
    turn: int = 0

    def pack(self, value: Any) -> Any:
        """Return what is to be sent in place of a value; its dicts, lists and tuples are looked through."""
        found: list[tuple[Laid, Tensor]] = []
        size = 0

        def lay(tensor: Tensor) -> Any:
            nonlocal size
            if tensor.device.type != "cpu" or tensor.layout != torch.strided or type(tensor) is not Tensor:
                return tensor
            found.append((Laid(size, tuple(tensor.shape), tensor.dtype), tensor.detach()))
            size += -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED
            return found[-1][0]

        laid = _mapped(value, Tensor, lay)
        if not size:
            return value
        self.turn = (self.turn + 1) % TURNS
        slab = self.slabs.get(self.turn)
        if slab is None or len(slab) < size:
            slab = self.slabs[self.turn] = _shared(torch.UntypedStorage._new_using_fd_cpu(size))
            self.fresh.add(self.turn)
        for place, tensor in found:
            _at(slab, place).copy_(tensor)
        return Packet(self.turn, len(slab) if self.turn in self.fresh else 0, laid)

    def hand_over(self, pipe: Connection, value: Any) -> None:
        """Send the slab of a packet that was sent, if the other end has not got it."""
        if isinstance(value, Packet) and value.fresh:
            descriptor, _ = self.slabs[value.slab].untyped_storage()._share_fd_cpu_()
            with _socket(pipe) as end:
                socket.send_fds(end, [b"\0"], [descriptor])
            self.fresh.discard(value.slab)


@define(eq=False)
class Receiver:
    """A parent's view of a worker's slabs.

    Attributes:
        pinned: copy tensors into memory that a GPU can read from by itself.
    """

    pinned: bool = False
    slabs: dict[int, Tensor] = field(factory=dict)

    def note(self, pipe: Connection, value: Any) -> None:
        """Take up a new slab, even if it comes with a value that nobody wants any more.

        Raises:
            EOFError: if the other end is gone.
            OSError: if there are too many open files.
        """
        if isinstance(value, Packet) and value.fresh:
            with _socket(pipe) as end:
                byte, descriptors, *_ = socket.recv_fds(end, 1, 1)
            if not byte:
                raise EOFError
            if not descriptors:  # the system drops what it cannot give
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            try:
                new = torch.UntypedStorage._new_shared_fd_cpu  # type: ignore[attr-defined]  # is not in torch's stubs
                self.slabs[value.slab] = _shared(new(descriptors[0], value.fresh))
            finally:
                os.close(descriptors[0])

    def unpack(self, value: Any) -> Any:
        """Return what `Sender.pack` was given, copied, so that the slab can be used again."""
        if not isinstance(value, Packet):
            return value
        slab = self.slabs[value.slab]

        def copied(place: Laid) -> Tensor:
            return torch.empty(place.shape, dtype=place.dtype, pin_memory=self.pinned).copy_(_at(slab, place))

        return _mapped(value.value, Laid, copied)


def _socket(pipe: Connection) -> socket.socket:
    return socket.fromfd(pipe.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)


def _shared(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _at(slab: Tensor, place: Laid) -> Tensor:
    size = torch.Size(place.shape).numel() * place.dtype.itemsize
    return slab[place.start : place.start + size].view(place.dtype).view(place.shape)


def _mapped(value: Any, kind: type[Any], change: Callable[[Any], Any]) -> Any:
    """Return a value in which everything of a kind is changed, inside of dicts, lists and tuples too."""
    if isinstance(value, kind):
        return change(value)
    if type(value) is dict:
        return {key: _mapped(item, kind, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(item, kind, change) for item in value)
    return value
