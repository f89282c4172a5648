"""A loaded config, and what is asked of it: overriding, finding and explaining values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from visreg.config.loader import Loader
from visreg.config.origin import ABSENT, Change, Layer, entry
from visreg.config.path import ConfigPath, partition_override, show_path
from visreg.config.plain import clone, parse_literal, plain, without_delete
from visreg.errors import ConfigError, Location, Problem, nearest, suggest


@frozen
class Override:
    """A value set from outside the config's files, at a path that exists or whose parent does."""

    path: ConfigPath
    value: Any
    location: Location


@frozen(eq=False)
class Config:
    """A config's values, and where each comes from.

    Attributes:
        values: plain dicts, lists, tuples and scalars.
        file: the file it was loaded from, if any.
    """

    values: dict[str, Any]
    file: Path | None = None
    _layer: Layer = field(repr=False, kw_only=True)
    _overrides: tuple[Override, ...] = field(default=(), repr=False, kw_only=True)

    def where(self, path: ConfigPath) -> Location:
        """Return where the value at ``path`` was set, or the nearest value around it that is known."""
        for end in range(len(path), 0, -1):
            changes = self.history(path[:end])
            if changes:
                return changes[-1].location
        return self._layer.where(())

    def history(self, path: ConfigPath) -> list[Change]:
        """Return every setting of the value at ``path``, oldest first, overridden ones included."""
        changes = self._layer.history(path)
        for override in self._overrides:
            depth = len(override.path)
            if path[:depth] == override.path:
                value = _find(override.value, path[depth:])
                changes = [*changes, Change(override.location, repr(value))] if value is not ABSENT else []
        return changes


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Load the config file at ``path``, ``.py`` or ``.json``, with its base files.

    A ``.py`` file is run, like any script of one's own; nothing else is ever executed.

    Args:
        path: the file.
        overrides: changes such as ``"optimizer.lr=0.01"`` and ``"hooks.0.patience=3"``.

    Raises:
        ConfigError: if the file or one of its bases cannot be read, or an override does not fit.
    """
    layer = Loader().load(path)
    values = {name: value for name, value in layer.values.items() if not name.startswith("_")}
    return apply_overrides(Config(values, Path(path), layer=layer), overrides)


def config_from(values: Mapping[str, Any], name: str = "<dict>") -> Config:
    """Return a config of plain ``values``, such as a checkpoint's own; nothing is executed.

    Args:
        values: the config's values.
        name: what messages call the place they come from.

    Raises:
        ConfigError: if a value is not plain data.
    """
    copied = plain(dict(values))
    return Config(clone(copied), layer=Layer(name, copied, copied))


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """Return ``config`` with each ``"key=value"`` applied, in order; ``config`` itself stays as it is.

    A value is a Python literal, else a string. A key's parents must exist; the key itself need not.

    >>> config = config_from({"optimizer": {"lr": 0.1}, "size": (28, 28)})
    >>> apply_overrides(config, ["optimizer.lr=0.01", "size.-1=32", "name=my first"]).values
    {'optimizer': {'lr': 0.01}, 'size': (28, 32), 'name': 'my first'}

    Raises:
        ConfigError: listing every override that does not fit.
    """
    problems: list[Problem] = []
    config = evolve(config, values=clone(config.values))
    for text in overrides:
        flag = Location(f"--set {text if len(text) <= 100 else text[:97] + '...'}")
        try:
            config = _override(config, text, flag)
        except ConfigError as error:
            problems += [evolve(problem, location=flag) for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return config


def _override(config: Config, text: str, location: Location) -> Config:
    asked, literal = partition_override(text)
    path = _resolve(config.values, asked)
    if isinstance(path[0], str) and path[0].startswith("_"):
        raise ConfigError([Problem(show_path(path), "a name that begins with _ is not part of a config")])
    value = without_delete(parse_literal(literal))
    override = Override(path, value, location)
    return evolve(config, values=_with(config.values, path, value), overrides=(*config._overrides, override))


def _resolve(values: Any, path: ConfigPath, new: bool = True) -> ConfigPath:
    """Return ``path`` as the values spell it: from the front, and each key of the type that the dict has.

    Args:
        values: what it leads into.
        path: the path.
        new: whether the last step may be a new key of a dict.

    Raises:
        ConfigError: if the path does not exist.
    """
    resolved: list[Any] = []
    for depth, step in enumerate(path):
        last = new and depth == len(path) - 1
        if isinstance(values, dict):
            found = step if step in values else str(step)
            if found not in values and not last:
                near = [show_path((*resolved, other)) for other in nearest(str(step), map(str, values))]
                _refuse(
                    resolved, step, f"no such key{suggest(near[0], near) if near else suggest('', map(str, values))}"
                )
        elif not isinstance(values, (list, tuple)):
            _refuse(resolved, step, f"{show_path(tuple(resolved))} is {values!r}, which has no keys")
        elif not isinstance(step, int) or not -len(values) <= step < len(values):
            has = f"0 to {len(values) - 1}" if values else "none, since it is empty"
            _refuse(resolved, step, f"no such index; {show_path(tuple(resolved))} has {has}")
        else:
            found = step % len(values)
        resolved.append(found)
        values = values[found] if not last else None
    return tuple(resolved)


def _refuse(before: list[Any], step: str | int, message: str) -> None:
    raise ConfigError([Problem(show_path((*before, step)), message)])


def _with(values: Any, path: ConfigPath, value: Any) -> Any:
    """Return a copy of ``values`` with ``value`` at ``path``."""
    if not path:
        return clone(value)
    if isinstance(values, dict):
        return {**values, path[0]: _with(values.get(path[0]), path[1:], value)}
    items = [_with(item, path[1:], value) if index == path[0] else item for index, item in enumerate(values)]
    return items if isinstance(values, list) else tuple(items)


def _find(values: Any, path: ConfigPath) -> Any:
    for step in path:
        values = entry(values, step)
    return values


def explain(config: Config, path: ConfigPath) -> str:
    """Return the value at ``path`` and which file or flag set it, and what that overrode.

    >>> config = apply_overrides(config_from({"lr": 0.1}, "a.py"), ["lr=0.01"])
    >>> print(explain(config, ("lr",)))
    lr = 0.01
      set by --set lr=0.01
      overrode 0.1 from a.py

    Raises:
        ConfigError: if there is no such value.
    """
    path = _resolve(config.values, path, new=False)
    value = _find(config.values, path)
    if isinstance(value, (dict, list, tuple)) and value:
        rows = list(_rows(config, path, value, f"{show_path(path)} = ", 0))
        width = min(max(len(text) for text, _ in rows), 80)
        return "\n".join(f"{text:{width}}  # {place}" if place else text for text, place in rows)
    *before, last = config.history(path)
    lines = [f"{show_path(path)} = {value!r}", f"  set by {last.location}"]
    return "\n".join([*lines, *(f"  overrode {change.value} from {change.location}" for change in reversed(before))])


def _rows(config: Config, path: ConfigPath, value: Any, prefix: str, indent: int) -> Iterator[tuple[str, str]]:
    """Yield the lines that show ``value``, each with the place that set what is on it."""
    margin = "    " * indent
    comma = "," if indent else ""
    if not isinstance(value, (dict, list, tuple)) or not value:
        yield f"{margin}{prefix}{value!r}{comma}", str(config.where(path))
        return
    brackets = {dict: "{}", list: "[]", tuple: "()"}[type(value)]
    yield f"{margin}{prefix}{brackets[0]}", ""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        label = f"{key!r}: " if isinstance(value, dict) else ""
        yield from _rows(config, (*path, key), item, label, indent + 1)
    yield f"{margin}{brackets[1]}{comma}", ""
