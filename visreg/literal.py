"""Config values as text and back: paths, Python literals, JSON and Python files; nothing here executes anything.

A config value is *plain*: a dict, list, tuple, str, int, float, bool or None, all the way down.
"""

from __future__ import annotations

import ast
import json
import keyword
import math
import numbers
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from visreg.errors import ConfigError, Problem

ConfigPath = tuple[str | int, ...]
"""The way to a value: ``("hooks", 0, "patience")``, shown as ``hooks[0].patience``."""

MAX_DEPTH = 80  # Python itself refuses to read much more than this
MAX_BITS = 4096  # Python refuses to print integers a few times as long
WIDTH = 120

_WORD = re.compile(r"[^.\[\]'\"\s]+")
_INDEX = re.compile(r"-?[0-9]{1,9}")
_STEP = re.compile(
    r"""\[\s*(?P<index>-?[0-9]{1,9})\s*\]
      | \[\s*(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*\]
      | \.?(?P<word>[^.\[\]'"\s]+)""",
    re.VERBOSE,
)


def show_path(path: ConfigPath) -> str:
    """Return ``path`` as a reader writes it.

    >>> show_path(("hooks", 0, "patience"))
    'hooks[0].patience'
    >>> show_path(("custom_keys", "backbone.conv1", "lr_mult"))
    "custom_keys['backbone.conv1'].lr_mult"
    """
    shown = ""
    for step in path:
        if isinstance(step, str) and _WORD.fullmatch(step) and not _INDEX.fullmatch(step):
            shown += f".{step}" if shown else step
        else:
            shown += f"[{step!r}]"
    return shown


def parse_path(text: str) -> ConfigPath:
    """Return the path that ``text`` names; the opposite of `show_path`.

    >>> parse_path("hooks[0].patience") == parse_path("hooks.0.patience") == ("hooks", 0, "patience")
    True
    >>> parse_path("hooks.-1.patience")
    ('hooks', -1, 'patience')

    Raises:
        ConfigError: if ``text`` is empty or not a path.
    """
    path: list[str | int] = []
    end = 0
    while end < len(text):
        step = _STEP.match(text, end)
        if step is None or (step["word"] and (text[end] == ".") != bool(path)):
            raise ConfigError([Problem("", f"{text!r} is not a path; write it like hooks[0].patience")])
        path.append(_step(step))
        end = step.end()
    if not path:
        raise ConfigError([Problem("", "a path is empty; write it like hooks[0].patience")])
    return tuple(path)


def _step(step: re.Match[str]) -> str | int:
    if step["quoted"]:
        return str(ast.literal_eval(step["quoted"]))
    text: str = step["index"] or step["word"]
    return int(text) if _INDEX.fullmatch(text) else text


def plain(value: Any) -> Any:
    """Return a copy of ``value`` as plain data; what merely resembles it becomes it.

    Subclasses (``OrderedDict``, named tuples, enums, NumPy scalars) become what they derive from, and a `pathlib`
    path becomes a string. Anything else, such as a class, a function or a set, is refused.

    >>> plain({"size": (28, 28), "root": PurePath("data")})
    {'size': (28, 28), 'root': 'data'}

    Raises:
        ConfigError: listing every value that is not plain, each with its path.
    """
    try:
        return _plain(value, 0)
    except (_NotPlainError, RecursionError):
        raise ConfigError([Problem(show_path(path), message) for path, message in _not_plain(value)]) from None


class _NotPlainError(Exception):
    """A value is not plain data."""


_FIXED = frozenset({str, bool, float, type(None)})


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _FIXED:
        return value
    if depth > MAX_DEPTH:
        raise _NotPlainError
    if isinstance(value, dict):
        return {_plain_key(key): _plain(item, depth + 1) for key, item in dict.items(value)}
    if kind is list:
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)([_plain(item, depth + 1) for item in value])
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, numbers.Integral):
        number = int(value)
        if number.bit_length() <= MAX_BITS:
            return number
    elif isinstance(value, numbers.Real):
        return float(value)
    elif type(value).__name__ in ("bool", "bool_") and type(value).__module__ == "numpy":
        return bool(value)
    raise _NotPlainError


def _plain_key(key: Any) -> Any:
    if type(key) is str:
        return key
    if isinstance(key, (dict, list)):
        raise _NotPlainError
    return _plain(key, MAX_DEPTH - 1)


def _not_plain(value: Any, path: ConfigPath = ()) -> Iterator[tuple[ConfigPath, str]]:
    """Yield the path of each value that is not plain, and what to do about it."""
    if len(path) > MAX_DEPTH:
        yield path[:3], f"nested more than {MAX_DEPTH} deep, or contains itself; flatten it"
        return
    if isinstance(value, (dict, list, tuple)):
        for key, item in dict.items(value) if isinstance(value, dict) else enumerate(value):
            yield from _bad_key(key, path)
            deeper = list(_not_plain(item, (*path, key)))
            yield from deeper
            if deeper and len(path) < MAX_DEPTH <= len(path) + 1:
                return  # one is enough: what contains itself would repeat for ever
        return
    try:
        _plain_scalar(value) if type(value) not in _FIXED else None
    except _NotPlainError:
        yield path, _advice(value)


def _bad_key(key: Any, path: ConfigPath) -> Iterator[tuple[ConfigPath, str]]:
    try:
        _plain_key(key)
    except _NotPlainError:
        yield path, f"the key {key!r} is not plain data; write a string or a number"


def _advice(value: Any) -> str:
    if isinstance(value, int):
        return f"an integer of {value.bit_length()} bits is too large; write at most {MAX_BITS}"
    if isinstance(value, (set, frozenset)):
        return "a set is not plain data, since it has no order; write a list"
    name = getattr(value, "__name__", None)
    if isinstance(value, type) or callable(value):
        what = "class" if isinstance(value, type) else "function"
        return f"the {what} {name or value!r} is not plain data; write its name, {str(name)!r}"
    kind = type(value).__name__
    return f"a value of type {kind} is not plain data; write a dict, list, tuple, string, number, True, False or None"


def clone(value: Any) -> Any:
    """Return a copy of plain data that shares nothing with it that could change."""
    kind = type(value)
    if kind is dict:
        return {key: clone(item) for key, item in value.items()}
    if kind is list:
        return [clone(item) for item in value]
    if kind is tuple:
        return tuple([clone(item) for item in value])
    return value


def parse_literal(text: str) -> Any:
    """Return the Python literal that ``text`` is, else ``text`` itself, spaces and all.

    >>> parse_literal("(1, 2)"), parse_literal("-1e-3"), parse_literal("None"), parse_literal("runs/my first")
    ((1, 2), -0.001, None, 'runs/my first')

    Raises:
        ConfigError: if the literal is not plain data, or is too large or too deep to read.
    """
    try:
        value = ast.literal_eval(text)
        ast.literal_eval(f"({text})")  # fails where a "#" made the first one drop the end of the text
    except (RecursionError, MemoryError):
        raise ConfigError([Problem("", "the value is nested too deeply; flatten it")]) from None
    except (ValueError, TypeError, SyntaxError) as error:
        if "too many nested" in str(error) or "Exceeds the limit" in str(error):
            raise ConfigError([Problem("", f"the value cannot be read: {_first_clause(error)}")]) from None
        return text
    return plain(value)


def _first_clause(error: Exception) -> str:
    return (error.msg if isinstance(error, SyntaxError) else str(error)).partition(":")[0]


def dumps_json(values: Any) -> str:
    """Return plain data as JSON from which `loads_json` makes equal data of the same types.

    A tuple becomes ``{"__tuple__": [...]}``; a dict whose keys JSON cannot hold becomes
    ``{"__items__": [[key, value], ...]}``.

    >>> print(dumps_json({"size": (28, 28)}))
    {
      "size": {
        "__tuple__": [
          28,
          28
        ]
      }
    }
    """
    return json.dumps(_encode(plain(values)), indent=2)


_TUPLE, _ITEMS = "__tuple__", "__items__"


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
    """Return the dict that `dumps_json` wrote, or any other JSON object.

    Raises:
        ConfigError: if the text is not JSON, not an object, or gives a key twice.
    """
    values = decode(parse_json(text))
    if not isinstance(values, dict):
        raise ConfigError([Problem("", f"expected a JSON object, got {type(values).__name__}; write {{...}}")])
    return values


def parse_json(text: str, file: str = "") -> Any:
    """Return the JSON value in ``text``, with tuples still encoded."""
    from visreg.errors import Location

    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        problem = Problem("", f"not JSON: {error.msg} at column {error.colno}", Location(file, error.lineno))
    except RecursionError:
        problem = Problem("", "nested too deeply to read; flatten it", Location(file) if file else None)
    except ValueError as error:  # an integer of thousands of digits
        problem = Problem("", f"not JSON that can be read: {_first_clause(error)}", Location(file) if file else None)
    raise ConfigError([problem])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError([Problem("", f"the key {twice!r} is given twice; remove one")])
    return values


def decode(value: Any) -> Any:
    """Return parsed JSON with its encoded tuples and dicts as such."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if isinstance(value.get(_TUPLE), list):
            return tuple([decode(item) for item in value[_TUPLE]])
        pairs = value.get(_ITEMS)
        if isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return {decode(key): decode(item) for key, item in pairs}
    return {key: decode(item) for key, item in value.items()}


def dumps_python(values: Mapping[str, Any]) -> str:
    """Return a Python config from which `load_config` makes equal values of the same types.

    >>> print(dumps_python({"model": {"type": "ConvNet", "size": (28,)}, "lr": {0: float("inf")}}), end="")
    model = dict(type="ConvNet", size=(28,))
    lr = {0: float("inf")}

    Raises:
        ConfigError: if a top-level key is not a name that a config can have.
    """
    problems = [Problem(str(name), "not a name that a config can set; rename it") for name in values if _unfit(name)]
    if problems:
        raise ConfigError(problems)
    sections = plain(dict(values)).items()
    return "".join(f"{name} = {_layout(section, 0, len(name) + 3)}\n" for name, section in sections)


def _unfit(name: Any) -> bool:
    return not (_is_name(name) and not name.startswith("_") and name not in ("dict", "float"))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isascii() and name.isidentifier() and not keyword.iskeyword(name)


def _layout(value: Any, indent: int, column: int) -> str:
    """Return ``value`` as Python that starts at ``column``, over several lines if it does not fit on one."""
    opening, closing, parts = _parts(value)
    flat = opening + ", ".join(prefix + _layout(item, 0, -MAX_DEPTH * WIDTH**2) for prefix, item in parts) + closing
    if column + len(flat) < WIDTH or not parts:
        return flat
    margin = " " * (indent + 4)
    lines = [f"{margin}{prefix}{_layout(item, indent + 4, indent + 5 + len(prefix))},\n" for prefix, item in parts]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing.lstrip(',')}"


def _parts(value: Any) -> tuple[str, str, list[tuple[str, Any]]]:
    if isinstance(value, dict):
        if all(_is_name(key) for key in value):
            return "dict(", ")", [(f"{key}=", item) for key, item in value.items()]
        return "{", "}", [(f"{_layout(key, 0, 0)}: ", item) for key, item in value.items()]
    if isinstance(value, list):
        return "[", "]", [("", item) for item in value]
    if isinstance(value, tuple):
        return "(", ",)" if len(value) == 1 else ")", [("", item) for item in value]
    return _scalar(value), "", []


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        quoted = repr(value) if '"' in value else '"' + repr("'" + value)[2:]
        return quoted.replace("{{", r"{\x7b")  # else it would be read as a reference
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def dump(values: Mapping[str, Any], path: str | Path) -> None:
    """Write ``values`` to ``path``, as JSON or Python by its suffix."""
    path = Path(path)
    if path.suffix not in (".json", ".py"):
        raise ConfigError([Problem("", f"cannot write a config to {str(path)!r}; end it in .py or .json")])
    text = dumps_python(values) if path.suffix == ".py" else dumps_json(values) + "\n"
    path.write_text(text, encoding="utf-8")
