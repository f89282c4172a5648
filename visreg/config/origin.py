"""Who set what: the file and line of every value of a config, and what it overrode."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from visreg.config.path import ConfigPath, show_path
from visreg.config.plain import DELETE
from visreg.errors import ConfigError, Location, Problem

ABSENT = object()


@define(eq=False)
class Origin:
    """Where a dict, list or tuple was written, and each of its entries.

    Attributes:
        line: where the container itself begins; 0 if unknown.
        lines: the line of each entry, as far as known.
        base: the path in the base files that it was taken from, if it was.
        inside: the same for the containers among its entries.
    """

    line: int = 0
    lines: dict[Any, int] = field(factory=dict)
    base: ConfigPath | None = None
    inside: dict[Any, Origin] = field(factory=dict)

    def find(self, path: ConfigPath) -> int | ConfigPath:
        """Return the line of the value at ``path``, or its path in the base files; else what encloses it."""
        found: int | ConfigPath = self.line
        node = self
        for depth, step in enumerate(path):
            entry = node.inside.get(step)
            if step in node.lines:
                found = node.lines[step]
            elif node.base is not None:
                found = (*node.base, *path[depth:])
            elif entry is not None and entry.line:
                found = entry.line
            if entry is None:
                break
            node = entry
        return found


@frozen
class Change:
    """One setting of a value: by which line or flag, and to what."""

    location: Location
    value: str


@define(eq=False)
class Layer:
    """One config file: what it says itself, and what it makes of its base files.

    Attributes:
        file: the file, or what to call the place where there is none.
        own: what it says itself, ``_delete_`` included.
        values: its bases with ``own`` merged into them.
        origin: where each of its own values was written.
        bases: the files it inherits from.
    """

    file: str | Path
    own: dict[str, Any]
    values: dict[str, Any]
    origin: Origin = field(factory=Origin)
    bases: tuple[Layer, ...] = ()

    def history(self, path: ConfigPath) -> list[Change]:
        """Return every setting of the value at ``path``, oldest first; nothing if it is not set."""
        earlier = [change for base in self.bases for change in base.history(path)]
        own, replaced = self._own(path)
        if own is ABSENT:
            return [] if replaced else earlier
        change = Change(self._location(path), repr(own))
        return earlier if change in earlier else [*earlier, change]

    def where(self, path: ConfigPath) -> Location:
        """Return where the value at ``path`` was set, or the nearest value around it."""
        for end in range(len(path), 0, -1):
            if changes := self.history(path[:end]):
                return changes[-1].location
        return Location(shown(self.file))

    def _own(self, path: ConfigPath) -> tuple[Any, bool]:
        """Return this file's own value at ``path``, and whether it replaces whatever the bases say there."""
        value: Any = self.own
        replaced = False
        for step in path:
            replaced = replaced or not isinstance(value, dict) or bool(value.get(DELETE))
            value = entry(value, step)
            if value is ABSENT:
                break
        return value, replaced

    def _location(self, path: ConfigPath) -> Location:
        found = self.origin.find(path)
        if isinstance(found, int):
            return Location(shown(self.file), found)
        setter = self._setter(found[0]) if found else None
        return setter.where(found) if setter else Location(shown(self.file))

    def _setter(self, name: Any) -> Layer | None:
        """Return the base that sets the top-level ``name``, or did before this file removed it."""
        for base in self.bases:
            if setter := base if name in base.values else base._setter(name):
                return setter
        return None


def entry(container: Any, step: Any) -> Any:
    """Return ``container[step]``, or ``ABSENT``."""
    if isinstance(container, dict):
        return dict.get(container, step, ABSENT)  # a defaultdict stays as it is
    is_index = isinstance(container, (list, tuple)) and isinstance(step, int) and -1 < step < len(container)
    return container[step] if is_index else ABSENT


def shown(file: str | Path) -> str:
    """Return ``file`` as messages show it: relative where it lies under the current folder."""
    if isinstance(file, Path) and file.is_relative_to(here := Path.cwd()):
        return str(file.relative_to(here))
    return str(file)


_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}:,\n]|[^\s\[\]{}:,"]+')


def json_origin(text: str) -> tuple[Origin, list[tuple[ConfigPath, int, int]]]:
    """Return where each value of JSON text is, and each key given twice: its path and the lines of both.

    Text that is not JSON is not refused here.
    """
    root = Origin()
    stack: list[tuple[Origin, bool]] = [(root, True)]  # what is open, and whether it is a list
    steps: list[Any] = [0]  # the key or index that is being read in each
    twice: list[tuple[ConfigPath, int, int]] = []
    line, string = 1, ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        origin, is_list = stack[-1]
        if token == "\n":
            line += 1
        elif token == ":":
            if not is_list and string:
                steps[-1] = json.loads(string, strict=False)
                if steps[-1] in origin.lines:
                    twice.append((tuple(steps[1:]), origin.lines[steps[-1]], line))
                origin.lines[steps[-1]] = line
        elif token == ",":
            steps[-1] = steps[-1] + 1 if is_list else 0
        elif token in "]}":
            if len(stack) > 1:
                stack.pop()
                steps.pop()
        else:
            string = token if token[0] == '"' else ""
            if is_list:
                origin.lines.setdefault(steps[-1], line)
            if token in "[{":
                stack.append((origin.inside.setdefault(steps[-1], Origin(line)), token == "["))
                steps.append(0)
    return root.inside.get(0, root), twice


def decoded_origin(origin: Origin) -> Origin:
    """Return the origin of parsed JSON as that of the tuples and dicts that it encodes."""
    if origin.lines.keys() == {"__tuple__"} and "__tuple__" in origin.inside:
        return decoded_origin(origin.inside["__tuple__"])
    if origin.lines.keys() == {"__items__"}:
        return Origin(origin.line)
    return Origin(origin.line, origin.lines, None, {key: decoded_origin(item) for key, item in origin.inside.items()})


def mistake(message: str, location: Location | None = None, path: str = "") -> ConfigError:
    """Return the error that one mistake is."""
    return ConfigError([Problem(path, message, location)])


def given_twice(path: ConfigPath, first: int, place: Location) -> Problem:
    """Return the problem that a key given twice is."""
    return Problem(show_path(path), f"given twice; the first, on line {first}, is lost; remove one", place)
