"""How a worker hands tensors over: through shared memory that it uses again and again.

New memory is dear, since the system clears each page of it, in each process that looks at it; a copy is not. So a
worker has a few slabs of memory, in which it lays its results by turns, and its parent copies them out.
"""

from __future__ import annotations

from collections.abc import Callable
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
        slab: which one. memory: the slab itself, the first time that it is used. value: with a `Laid` for each tensor.
    """

    slab: int
    memory: Tensor | None
    value: Any


@define(eq=False)
class Sender:
    """A worker's slabs."""

    slabs: dict[int, Tensor] = field(factory=dict)
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
        slab, fresh = self.slabs.get(self.turn), None
        if slab is None or len(slab) < size:
            slab = fresh = self.slabs[self.turn] = _shared(size)
        for place, tensor in found:
            _at(slab, place).copy_(tensor)
        return Packet(self.turn, fresh, laid)


@define(eq=False)
class Receiver:
    """A parent's view of a worker's slabs.

    Attributes:
        pinned: copy tensors into memory that a GPU can read from by itself.
    """

    pinned: bool = False
    slabs: dict[int, Tensor] = field(factory=dict)

    def note(self, value: Any) -> None:
        """Take up a new slab, even if it comes with a value that nobody wants any more."""
        if isinstance(value, Packet) and value.memory is not None:
            self.slabs[value.slab] = value.memory

    def unpack(self, value: Any) -> Any:
        """Return what `Sender.pack` was given, copied, so that the slab can be used again."""
        if not isinstance(value, Packet):
            return value
        slab = self.slabs[value.slab]

        def copied(place: Laid) -> Tensor:
            return torch.empty(place.shape, dtype=place.dtype, pin_memory=self.pinned).copy_(_at(slab, place))

        return _mapped(value.value, Laid, copied)


def _shared(size: int) -> Tensor:
    storage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]  # as torch's own workers do
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
