"""Calling the hooks of a run, and what becomes of an exception in one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from visreg.errors import VisregError
from visreg.hook import Event, Hook
from visreg.phase import phase

if TYPE_CHECKING:
    from visreg.runner import Runner

logger = logging.getLogger("visreg")

EVENTS: Sequence[Event] = get_args(Event)
Callback = Callable[["Runner"], None]


def callbacks_of(hooks: Sequence[Hook]) -> dict[Event, list[Callback]]:
    """Return the methods of ``hooks`` that override each event, in the order of the hooks.

    Raises:
        VisregError: if one of them is no hook.
    """
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise VisregError(f"{hook!r} is not a Hook; derive its class from visreg.Hook")
    return {event: [getattr(hook, event) for hook in hooks if _overrides(hook, event)] for event in EVENTS}


def call_all(callbacks: Sequence[Callback], event: Event, runner: Runner) -> None:
    """Call the callbacks for ``event``; an exception is told which hook it came from.

    One in ``after_train`` is raised once all hooks have been called, so that the others still save and close.
    """
    failure: Exception | None = None
    for callback in callbacks:
        try:
            with phase(event):
                callback(runner)
        except Exception as error:
            name = type(callback.__self__).__name__  # type: ignore[attr-defined]  # it is a bound method
            error.add_note(f"raised by the hook {name} in {event}, at step {runner.step}")
            if event != "after_train":
                raise
            if failure is not None:
                logger.error("after another exception: %s: %s", type(failure).__name__, failure)
            failure = error
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # or it would hold what it passed through, in a cycle


def _overrides(hook: Hook, event: Event) -> bool:
    return getattr(type(hook), event) is not getattr(Hook, event)
