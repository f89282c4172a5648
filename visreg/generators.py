"""Random generators: their state, and seeds made of what the randomness is for."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

GOLDEN, MULTIPLIERS = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64


def seed_others(number: int) -> None:
    """Seed the generators of Python and numpy, which a plugin may draw from; building a runner seeds torch's."""
    random.seed(number)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(number & 0xFFFFFFFF)


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Draw all inside (torch on the CPU, numpy, random) from a seed made of ``parts``; then put everything back."""
    numpy = sys.modules.get("numpy")
    saved = torch.random.get_rng_state(), random.getstate(), numpy.random.get_state() if numpy else None
    number = mix(*parts)
    torch.default_generator.manual_seed(number)  # and no device's, which a worker process must not touch
    random.seed(number)
    if numpy:
        numpy.random.seed(number & 0xFFFFFFFF)
    try:
        yield
    finally:
        torch.random.set_rng_state(saved[0])
        random.setstate(saved[1])
        if numpy and saved[2] is not None:
            numpy.random.set_state(saved[2])


def mix(*parts: int) -> int:
    """Return a 63-bit seed that differs wherever the parts do (splitmix64, Steele et al. 2014)."""
    state = 0
    for part in parts:
        state = (state ^ part) + GOLDEN & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * MULTIPLIERS[0] & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * MULTIPLIERS[1] & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def state(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator that a model or a hook may draw from."""
    version, numbers, gauss = random.getstate()
    found: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        found["numpy"] = [name, keys.tolist(), *rest]
    return found


def set_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put every generator back to where `state` found it."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if "numpy" in state and "numpy" in sys.modules:
        name, keys, *rest = state["numpy"]
        if not 0 <= rest[0] <= len(keys):  # numpy would read there
            raise ValueError(f"a position of {rest[0]} in numpy's generator")
        sys.modules["numpy"].random.set_state((name, keys, *rest))
