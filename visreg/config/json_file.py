"""One JSON config file; nothing in it is executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from visreg.config.merge import layer, names_of_bases
from visreg.config.origin import ABSENT, Layer, Origin, decoded_origin, entry, given_twice, json_origin, mistake, shown
from visreg.config.plain import clone
from visreg.config.rewriter import BASE, REFERENCE
from visreg.config.text import read_json
from visreg.errors import ConfigError, Location, suggest

_STRING_OR_REFERENCE = re.compile(rf'"(?:[^"\\]++|\\.)*+"|{REFERENCE.pattern}')
_MARKED = re.compile("\0_base_\\.([\\w.]+)\0")


def _mark(match: re.Match[str]) -> str:
    """Return a JSON string, or a bare reference as one, with its references marked."""
    marked = REFERENCE.sub(r"\\u0000_base_.\1\\u0000", match[0])
    return marked if match[0].startswith('"') else f'"{marked}"'


class JSONFile:
    """A JSON config, read.

    Args:
        path: the file.
        text: its text; ``{{ _base_.a.b }}`` may stand where a value does, or in a string.

    Raises:
        ConfigError: if it cannot be read.
    """

    steady = True

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = _STRING_OR_REFERENCE.sub(_mark, text)
        self._origin = Origin()
        origin, twice = json_origin(self._text)
        if twice:
            raise ConfigError([given_twice(path, first, self._place(line)) for path, first, line in twice])
        self._values = read_json(self._text, shown(path))
        self._origin = decoded_origin(origin)

    def base_names(self) -> tuple[list[str], Location]:
        """Return the base files it names, and where."""
        place = self._place(self._origin.lines.get(BASE, 0))
        return names_of_bases(self._values.get(BASE, []), place), place

    def layer(self, inherited: dict[str, Any], bases: tuple[Layer, ...]) -> Layer:
        """Return what it makes of the ``inherited`` values of its ``bases``."""
        own = {name: self._refer(value, inherited) for name, value in self._values.items() if name != BASE}
        return layer(self._path, own, self._origin, inherited, bases)

    def _refer(self, value: Any, inherited: dict[str, Any]) -> Any:
        """Return ``value`` with the strings that refer to base values replaced."""
        if isinstance(value, dict):
            return {key: self._refer(item, inherited) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._refer(item, inherited) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if not isinstance(value, str) or "\0" not in value:
            return value
        if whole := _MARKED.fullmatch(value):
            return clone(self._look_up(whole[1], inherited))
        return _MARKED.sub(lambda match: str(self._look_up(match[1], inherited)), value)

    def _look_up(self, name: str, inherited: dict[str, Any]) -> Any:
        found: Any = inherited
        for step in name.split("."):
            around = found
            found = entry(around, int(step) if isinstance(around, (list, tuple)) and step.isdecimal() else step)
            if found is ABSENT:
                near = suggest(step, map(str, around)) if isinstance(around, dict) else ""
                line = self._text[: self._text.find(name)].count("\n") + 1
                raise mistake(f"the base files set no {name!r}{near}", self._place(line), BASE)
        return found

    def _place(self, line: int) -> Location:
        return Location(shown(self._path), line)
