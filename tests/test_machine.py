"""What a process takes of its machine."""

import os
import platform
import subprocess
import sys
from unittest.mock import MagicMock

import pytest

from visreg.machine import keep_freed_memory

FAULTS = """
import resource
import torch
from visreg.machine import keep_freed_memory
keep_freed_memory()
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    several = [torch.ones(2 << 20) for _ in range(4)]  # of 8 MiB each, as a step has activations
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(5):
    pages()
print(sum(pages() for _ in range(10)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_that_was_freed_is_used_again():
    free = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=free)
    assert int(done.stdout) < 2048  # pages, of which there are 10 × 4 × 2048; without it, most of them as a rule


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize(
    ("name", "asked"), [("MALLOC_ARENA_MAX", False), ("GLIBC_TUNABLES", False), ("ANYTHING", True)]
)
def test_what_somebody_has_set_up_is_left_alone(monkeypatch, name, asked):
    calls = []
    monkeypatch.setattr("ctypes.CDLL", lambda _: calls.append(name) or MagicMock())
    for other in [each for each in os.environ if each.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, "glibc.malloc.arena_max=2" if name == "GLIBC_TUNABLES" else "2")
    keep_freed_memory.__wrapped__()
    assert len(calls) == asked
