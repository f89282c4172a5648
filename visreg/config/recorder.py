"""What a running config file reports to, and the base files' values as it sees them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from visreg.config.origin import Origin, entry
from visreg.config.path import ConfigPath
from visreg.config.rewriter import LINES, MADE, PUT, Rewriter
from visreg.errors import suggest


class Recorder:
    """Remembers, while one config file runs, where each container it makes was written."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._sites = rewriter.sites
        self._marks: dict[int, tuple[Any, Origin]] = {}  # by id; the object is kept, so that no other gets its id
        self.lines: dict[str, int] = dict(rewriter.lines)

    def hooks(self) -> dict[str, Any]:
        """Return what the rewritten file calls."""
        return {MADE: self.made, PUT: self.put, LINES: self.lines}

    def made(self, value: Any, site: int, *sources: Any) -> Any:
        """Remember where ``value`` was written and return it; ``sources`` are what it was copied from."""
        if isinstance(value, (dict, list, tuple)):
            self._marks[id(value)] = (value, self._sites[site])
            for source in sources:
                self._inherit(value, source)
        return value

    def put(self, container: Any, key: Any, line: int) -> None:
        """Remember that ``container[key]`` was set on ``line``; without a key, that entries have moved."""
        origin = self.mark(container)
        if isinstance(container, list) and isinstance(key, int) and key < 0:
            key += len(container)
        if isinstance(key, (str, int)) and isinstance(container, (dict, list)):
            lines = {**origin.lines, key: line}
        elif key is None and isinstance(container, list):
            lines = {}
        else:
            return
        self._marks[id(container)] = (container, Origin(origin.line, lines, origin.base))

    def mark(self, container: Any) -> Origin:
        """Return what is known of ``container`` itself."""
        return self._marks[id(container)][1] if id(container) in self._marks else Origin()

    def origin(self, container: Any, lines: dict[str, int] | None = None) -> Origin:
        """Return what is known of ``container`` and all containers inside it; ``lines`` replaces its own lines."""
        mark = self.mark(container)
        inside = {key: self.origin(item) for key, item in _entries(container) if isinstance(item, (dict, list, tuple))}
        return Origin(mark.line, mark.lines if lines is None else lines, mark.base, inside)

    def view(self, value: Any, path: ConfigPath | None = None) -> Any:
        """Return a copy of ``value`` whose dicts are `View` s; it is the base files' value at ``path``, if given."""
        if isinstance(value, View) or not isinstance(value, (dict, list, tuple)):
            return value
        below = [(key, self.view(item, None if path is None else (*path, key))) for key, item in _entries(value)]
        if isinstance(value, dict):
            copied: Any = View(self, below)
        else:
            copied = (list if isinstance(value, list) else tuple)([item for _, item in below])
        self._marks[id(copied)] = (copied, self.mark(value) if path is None else Origin(base=path))
        return copied

    def _inherit(self, value: Any, source: Any) -> None:
        mine, theirs = self.mark(value), self.mark(source)
        known = Origin(mine.line, {**theirs.lines, **mine.lines}, mine.base or theirs.base)
        self._marks[id(value)] = (value, known)
        for key, item in _entries(value):
            if isinstance(item, (dict, list, tuple)) and id(item) not in self._marks:
                self._inherit(item, entry(source, key))


def _entries(container: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(container, dict):
        return dict.items(container)
    return enumerate(container) if isinstance(container, (list, tuple)) else ()


class View(dict[Any, Any]):
    """The base files' values as a config file sees them: a dict whose keys are attributes too.

    Behaves like mmengine's ``ConfigDict``: ``update`` and ``|`` merge, ``pop`` needs no default, and dicts put into it
    become views.
    """

    def __init__(self, recorder: Recorder, items: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(items)
        object.__setattr__(self, "_recorder", recorder)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the base files set no {name!r} here{suggest(name, map(str, self))}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self.__getattr__(name)
        del self[name]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, self._recorder.view(value))

    def __deepcopy__(self, memo: dict[int, Any]) -> View:
        copied = View(self._recorder)
        memo[id(self)] = copied
        dict.update(copied, {key: copy.deepcopy(item, memo) for key, item in self.items()})
        return copied

    def __copy__(self) -> View:
        copied = View(self._recorder)
        for key, item in self.items():
            copied[key] = item
        return copied

    def copy(self) -> View:
        return self.__copy__()

    def deepcopy(self) -> View:
        return copy.deepcopy(self)

    def __reduce__(self) -> tuple[type[dict[Any, Any]], tuple[dict[Any, Any]]]:
        return dict, (dict(self),)

    def __or__(self, other: Any) -> View:
        merged = self.deepcopy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> View:
        merged = View(self._recorder)
        merged.update(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Any) -> View:
        self.update(other)
        return self

    def pop(self, key: Any, default: Any = None) -> Any:
        return super().pop(key, default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, other: Any = (), /, **named: Any) -> None:
        lines = self._recorder.mark(other).lines
        for key, value in {**dict(other), **named}.items():
            if isinstance(self.get(key), View) and isinstance(value, dict):
                self[key].update(value)
            else:
                self[key] = value
            if key in lines:
                self._recorder.put(self, key, lines[key])

    def to_dict(self) -> dict[Any, Any]:
        """Return the same as plain dicts."""
        return {key: item.to_dict() if isinstance(item, View) else item for key, item in self.items()}
