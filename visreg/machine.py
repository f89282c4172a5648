"""What of this machine is left for this process, cores and memory, and how it keeps memory."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from pathlib import Path

import torch

from visreg import dist

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # what glibc's malloc.h calls its options
LARGEST = 32 << 20  # bytes: blocks above this are always given back; glibc allows no more


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


@functools.cache  # the process is set up once
def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is allocated next, if it is glibc and nobody has set it up.

    Else it gives much of it back in every step, and the system clears each page anew: steps on the CPU then take longer
    (a ResNet-18 on 128 images of 32×32 by 7 %, a segmentation by LR-ASPP by 8 %), with no less memory at the peak.
    """
    theirs = any(name.startswith("MALLOC_") for name in os.environ)
    theirs = theirs or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] == "glibc" and not theirs:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, -1)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
