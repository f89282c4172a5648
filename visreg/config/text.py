"""Configs written down and read back: JSON and Python text of the same values and types."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visreg.config.plain import DELETE, plain
from visreg.errors import ConfigError, Location, Problem, ResourceError
from visreg.whole_file import write_whole

WIDTH = 120
_TUPLE, _ITEMS = "__tuple__", "__items__"


def dump(values: Mapping[str, Any], path: str | Path) -> None:
    """Write ``values`` to ``path``, as JSON or Python by its suffix, all of it or nothing.

    Raises:
        ConfigError: if the suffix is another, or the values are not plain.
        ResourceError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".json", ".py"):
        raise ConfigError([Problem("", f"cannot write a config to {str(path)!r}; end it in .py or .json")])
    text = dumps_python(values) if path.suffix == ".py" else dumps_json(values) + "\n"
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise ResourceError(f"{path}: cannot write the config: {error.strerror or error}") from error


def dumps_json(values: Any) -> str:
    """Return plain data as JSON from which `loads_json` makes equal data of the same types.

    A tuple becomes ``{"__tuple__": [...]}``; a dict whose keys JSON cannot hold becomes
    ``{"__items__": [[key, value], ...]}``.

    >>> print(dumps_json({"size": (28,), "lr": 0.1}))
    {
      "size": {
        "__tuple__": [
          28
        ]
      },
      "lr": 0.1
    }
    """
    return json.dumps(_encode(plain(values)), indent=2).replace(
        "{{", r"{\u007b"
    )  # else it could be read as a reference


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() & {_TUPLE, _ITEMS} or any(type(key) is not str for key in value):
        return {_ITEMS: [[_encode(key), _encode(item)] for key, item in value.items()]}
    return {key: _encode(item) for key, item in value.items()}


def loads_json(text: str) -> dict[str, Any]:
    """Return the dict that `dumps_json` wrote, or any other JSON object; nothing is executed.

    Raises:
        ConfigError: if the text is not JSON, not an object, or gives a key twice.
    """
    return read_json(text, None)


def read_json(text: str, file: str | None) -> dict[str, Any]:
    """Return the object in the JSON ``text`` of ``file``; raises as `loads_json`."""
    place = Location(file) if file else None
    try:
        values = plain(_decode(json.loads(text, object_pairs_hook=_unique)))
    except json.JSONDecodeError as error:
        where = Location(file, error.lineno) if file else None
        line = "" if file else f"line {error.lineno}, "
        raise ConfigError([Problem("", f"not JSON: {error.msg} at {line}column {error.colno}", where)]) from None
    except RecursionError:
        raise ConfigError([Problem("", "nested too deeply to read; flatten it", place)]) from None
    except ConfigError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise ConfigError([Problem("", f"cannot be read: {str(error).partition(':')[0]}", place)]) from None
    if not isinstance(values, dict):
        raise ConfigError([Problem("", f"expected a JSON object, got a {type(values).__name__}; write {{...}}", place)])
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError([Problem("", f"the key {twice!r} is given twice; remove one")])
    return values


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        items, pairs = value.get(_TUPLE), value.get(_ITEMS)
        if isinstance(items, list):
            return tuple([_decode(item) for item in items])
        if isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            keys = [_decode(key) for key, _ in pairs]
            if not any(isinstance(key, (list, dict)) for key in keys):
                return dict(zip(keys, [_decode(item) for _, item in pairs], strict=True))
    return {key: _decode(item) for key, item in value.items()}


def dumps_python(values: Mapping[str, Any]) -> str:
    """Return a Python config from which `load_config` makes equal values of the same types.

    >>> print(dumps_python({"model": {"type": "ConvNet", "size": (28,)}, "lr": {0: float("inf")}}), end="")
    model = dict(type="ConvNet", size=(28,))
    lr = {0: float("inf")}

    Raises:
        ConfigError: if a key is one that a config file cannot set.
    """
    problems = [Problem(str(name), "not a name that a config file can set; rename it") for name in values if _bad(name)]
    sections = plain(dict(values))
    if _has_delete(sections):
        problems.append(Problem("", f"a key {DELETE!r} would not be read as data; remove it"))
    if problems:
        raise ConfigError(problems)
    return "".join(f"{name} = {_layout(section, 0, len(name) + 3)}\n" for name, section in sections.items())


def _bad(name: Any) -> bool:
    return not _is_name(name) or name.startswith("_") or name in ("dict", "float")


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def _has_delete(value: Any) -> bool:
    if isinstance(value, dict):
        return DELETE in value or any(map(_has_delete, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_delete, value))


def _layout(value: Any, indent: int, column: int) -> str:
    """Return ``value`` as Python that starts at ``column``, over several lines if it does not fit on one."""
    opening, closing, parts = _parts(value)
    flat = _flat(value)
    if not parts or column + len(flat) < WIDTH:
        return flat
    margin = " " * (indent + 4)
    lines = [f"{margin}{prefix}{_layout(item, indent + 4, indent + 5 + len(prefix))},\n" for prefix, item in parts]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing.lstrip(',')}"


def _flat(value: Any) -> str:
    opening, closing, parts = _parts(value)
    return opening + ", ".join(prefix + _flat(item) for prefix, item in parts) + closing


def _parts(value: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    """Return how ``value`` opens and closes, and its entries, each with what stands before it."""
    if isinstance(value, dict):
        if all(map(_is_name, value)):
            return "dict(", ")", [(f"{key}=", item) for key, item in value.items()]
        return "{", "}", [(f"{_flat(key)}: ", item) for key, item in value.items()]
    if isinstance(value, list):
        return "[", "]", [("", item) for item in value]
    if isinstance(value, tuple):
        return "(", ",)" if len(value) == 1 else ")", [("", item) for item in value]
    return _scalar(value), "", []


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        quoted = repr(value) if '"' in value else '"' + repr("'" + value)[2:]
        return quoted.replace("{{", r"{\x7b")  # else it could be read as a reference
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)
