"""Components: what names stand for, and which of them installed packages bring; none is imported until asked for."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from attrs import field, frozen

from visreg.entry_points import GROUPS, entry_points
from visreg.errors import PluginError


@frozen
class Component:
    """A name, whose it is, and where to import it from.

    Attributes:
        target: ``"module:attribute"``, as in an entry point.
        source: ``"own"``, ``"plugin"``, ``"file"`` or ``"adopted"``.
        owner: the distribution and its version, or the file.
    """

    name: str
    target: str
    source: str
    owner: str
    factory: Callable[..., Any] | None = field(default=None, eq=False, repr=False)

    def load(self) -> Callable[..., Any]:
        """Return the class or function itself.

        Raises:
            PluginError: if a plugin fails to import, whatever the reason; the original exception is its cause.
        """
        if self.factory is not None:
            return self.factory
        module, _, attribute = self.target.partition(":")
        try:
            found = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:
            if self.source != "plugin":
                raise
            raise PluginError(
                f"{self.name!r}: plugin {self.owner} failed to import {self.target}: "
                f"{type(error).__name__}: {error}{raised_at(error)}; update or uninstall the plugin"
            ) from error
        if not callable(found):
            raise PluginError(f"{self.name!r}: plugin {self.owner}: {self.target} is not a class or function")
        return found

    def __str__(self) -> str:
        return f"{self.owner} ({self.target})"


def raised_at(error: BaseException) -> str:
    """Return where in a plugin an error was raised, as a message ends; nothing where that is not known."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""


def installed(kind: str) -> Mapping[str, tuple[Component, ...]]:
    """Return the components of installed plugins, unimported; several where several packages have one name."""
    return _all_installed().get(kind, {})


@cache
def _all_installed() -> dict[str, dict[str, tuple[Component, ...]]]:
    found: dict[str, dict[str, tuple[Component, ...]]] = {}
    for group, name, target, owner in entry_points():
        component = Component(name, target, "plugin", owner)
        names = found.setdefault(group.removeprefix(GROUPS), {})
        if component not in names.get(name, ()):  # one package can be found in two places
            names[name] = (*names.get(name, ()), component)
    return found
