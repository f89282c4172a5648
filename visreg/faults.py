"""Named places where something can go wrong, so that tests can make it go wrong there."""

from __future__ import annotations

from collections.abc import Callable


def _nothing(point: str) -> None:
    pass


# What `reach` calls. Tests put a function here that kills the process, or raises, at a point of its choice; it is the
# one exception to keeping no state in modules, since it stands for the machine, which all runs share.
inject: Callable[[str], None] = _nothing


def reach(point: str) -> None:
    """Say that execution has come to ``point``, such as ``"save:opened"``; nothing happens but in tests."""
    inject(point)
