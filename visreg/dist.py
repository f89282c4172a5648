"""The few things visreg needs to know about running on several processes."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from visreg.errors import DistributedError, VisregError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# torch is imported inside, so that `visreg --help` need not wait for it.


def launched() -> bool:
    """Return whether torchrun, or something like it, started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """Return this process's number, 0 on the main one."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Return this process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0


def local_world_size() -> int:
    """Return how many processes take part on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if launched() else 1


def world_size() -> int:
    """Return how many processes take part."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def is_main() -> bool:
    """Return whether this is the one process that writes files and talks to people."""
    return rank() == 0


def total(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all processes; the same tensor where there is only one."""
    if world_size() == 1:
        return value
    import torch.distributed as torch_dist

    value = reducible(value).clone()
    torch_dist.all_reduce(value)
    return value


def largest(value: Tensor) -> Tensor:
    """Return the elementwise maximum of ``value`` over all processes; the same tensor where there is only one."""
    if world_size() == 1:
        return value
    import torch.distributed as torch_dist

    value = reducible(value).clone()
    torch_dist.all_reduce(value, op=torch_dist.ReduceOp.MAX)
    return value


def reducible(value: Tensor) -> Tensor:
    """Return ``value`` on the device where the processes meet; the same tensor where there is only one process.

    A process that saw no batch does not know on which device the others keep their tensors, and a
    reduction fails, or waits for ever, unless all take part with the same kind of device.
    """
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as torch_dist

    if "cuda:nccl" not in str(torch_dist.get_backend_config()):
        return value.cpu()
    return value if value.is_cuda else value.to(torch.device("cuda", torch.cuda.current_device()))


def share(tensors: Iterable[Tensor]) -> None:
    """Overwrite ``tensors`` with those of the main process."""
    if world_size() > 1:
        import torch.distributed as torch_dist

        for tensor in tensors:
            torch_dist.broadcast(tensor, src=0)


def gather(value: Any) -> list[Any]:
    """Return the ``value`` of every process, by rank."""
    if world_size() == 1:
        return [value]
    import torch.distributed as torch_dist

    values: list[Any] = [None] * world_size()
    torch_dist.all_gather_object(values, value)
    return values


class Agreement:
    """A number that all processes agree on, at the cost of one call's delay and without waiting for the slowest.

    With one process it is that process's own number, at once. Each process must call equally often. The numbers
    travel, over gloo even where tensors travel over nccl, while a process does what comes next.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._pending: tuple[Any, Tensor] | None = None
        self._alone = world_size() == 1

    def largest(self, value: int) -> int:
        """Return the largest ``value`` that any process gave in the call before this one; 0 in the first."""
        if self._alone:
            return value
        import torch
        import torch.distributed as torch_dist

        if self._group is None:
            self._group = torch_dist.new_group(backend="gloo")
        before, number = self._pending, torch.tensor(value)
        work = torch_dist.all_reduce(number, op=torch_dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, number)
        if before is None:
            return 0
        before[0].wait()
        return int(before[1])

    def close(self) -> None:
        """Forget all calls; whoever calls again begins anew."""
        self._group, self._pending = None, None


def agree_to_begin(error: VisregError | None) -> bool:
    """Return whether this process is the one to tell of ``error``; every process must call, with None if all is well.

    What the main process found as well is told by that one alone.

    Raises:
        DistributedError: if this process found nothing, and another one did.
    """
    if world_size() == 1:
        return True
    import torch.distributed as torch_dist

    if not torch_dist.is_initialized():  # they have not met; what is found by then is the same in all
        return True
    found = gather(str(error) if error else "")
    if error is None and any(found):
        raise DistributedError(f"process {next(rank for rank, text in enumerate(found) if text)} could not begin")
    return is_main() or str(error) != found[0]


def join(device: torch.device) -> None:
    """Join the process group that torchrun made room for, if it did: over nccl on GPUs, else over gloo.

    Raises:
        DistributedError: if the other processes cannot be reached.
    """
    if world_size() == 1:
        return
    import torch
    import torch.distributed as torch_dist

    if torch_dist.is_initialized():
        return
    atexit.register(leave)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch_dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=10))
    except (RuntimeError, ValueError) as error:
        raise DistributedError(f"process {rank()} of {world_size()} cannot join the others: {error}") from error


def leave() -> None:
    """Leave the process group, if this process is in one."""
    if world_size() > 1:
        import torch.distributed as torch_dist

        if torch_dist.is_initialized():
            torch_dist.destroy_process_group()
            gc.collect()  # or the group lives on in a cycle, and its threads abort the process while Python shuts down
