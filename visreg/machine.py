"""What of this machine is left for this process: cores and memory."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from visreg import dist


def cores() -> int:
    """Return how many cores this process may use, where others run beside it: at least 1.

    That is as many as it is bound to, and no more than a container's share of time allows.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        bound = min(bound, -(-int(quota) // int(period)))
    return max(1, bound // dist.local_world_size())


def free_memory(device: torch.device | None = None) -> float:
    """Return the bytes that are free on a device, or for this process on its machine, where others run beside it."""
    if device is not None and device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    meminfo = _text("/proc/meminfo")  # which counts what the system would give back
    found = [int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemAvailable")] or found
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")  # of a container
    if limit.strip().isdigit() and used.strip().isdigit():
        found.append(max(0, int(limit) - int(used)))
    return min(found) / dist.local_world_size()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
