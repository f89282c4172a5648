"""The parts of a step, by names that a profiler shows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.autograd import profiler

PHASES = ("host to device", "forward", "backward", "optimizer", "evaluation")  # and the events that call hooks

_UNSEEN = nullcontext()


def phase(name: str) -> AbstractContextManager[Any]:
    """Return a context whose time any profiler of torch's shows under ``name``; with none on, it does nothing."""
    return profiler.record_function(name) if profiler._is_profiler_enabled else _UNSEEN
