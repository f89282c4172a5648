"""Plain data: what a config's values are made of, and nothing else.

Plain are dict, list, tuple, str, int, float, bool and None, all the way down.
"""

from __future__ import annotations

import ast
import numbers
from pathlib import PurePath
from typing import Any

from visreg.config.path import ConfigPath, show_path
from visreg.errors import ConfigError, Problem

MAX_DEPTH = 80  # Python does not parse much more
MAX_BITS = 4096  # Python does not print integers a few times as long
DELETE = "_delete_"


def plain(value: Any) -> Any:
    """Return a copy of ``value`` as plain data; what merely resembles it becomes it.

    Subclasses (``OrderedDict``, named tuples, enums, NumPy scalars) become what they derive from, and a `pathlib` path
    becomes a string. Anything else, such as a class, a function or a set, is refused.

    >>> plain({"size": (28, 28), "root": PurePath("data")})
    {'size': (28, 28), 'root': 'data'}

    Raises:
        ConfigError: listing every value that is not plain, each with its path.
    """
    problems: list[Problem] = []
    copied = _plain(value, (), problems)
    if problems:
        raise ConfigError(problems)
    return copied


_FIXED = frozenset({str, bool, float, type(None)})


def _plain(value: Any, path: ConfigPath, problems: list[Problem]) -> Any:
    if len(path) > MAX_DEPTH:  # stop here: what contains itself would go on for ever
        raise ConfigError([Problem(show_path(path[:3]), f"nested more than {MAX_DEPTH} deep; flatten it")])
    if isinstance(value, dict):
        return {
            key if type(key) is str else _plain_key(key, path, problems): (
                item if type(item) in _FIXED else _plain(item, (*path, key), problems)
            )
            for key, item in dict.items(value)
        }
    if isinstance(value, (list, tuple)):
        items = [
            item if type(item) in _FIXED else _plain(item, (*path, index), problems) for index, item in enumerate(value)
        ]
        return items if isinstance(value, list) else tuple(items)
    try:
        return _plain_scalar(value)
    except TypeError:
        problems.append(Problem(show_path(path), _advice(value)))
        return None


def _plain_scalar(value: Any) -> Any:
    """Return ``value`` as exactly one of the plain types; raises TypeError."""
    if value is None or isinstance(value, (bool, float)):
        return value if value is None or isinstance(value, bool) else float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, numbers.Integral) and int(value).bit_length() <= MAX_BITS:
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value)
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise TypeError


def _plain_key(key: Any, path: ConfigPath, problems: list[Problem]) -> Any:
    try:
        return tuple([_plain_key(item, path, problems) for item in key]) if type(key) is tuple else _plain_scalar(key)
    except TypeError:
        problems.append(Problem(show_path(path), f"the key {key!r} is not plain data; write a string or a number"))


def _advice(value: Any) -> str:
    if isinstance(value, int):
        return f"an integer of {value.bit_length()} bits is too large; write at most {MAX_BITS}"
    if isinstance(value, (set, frozenset)):
        return "a set is not plain data, since it has no order; write a list"
    if isinstance(value, type) or callable(value):
        what = "class" if isinstance(value, type) else "function"
        name = getattr(value, "__name__", type(value).__name__)
        return f"the {what} {name!r} is not plain data; write the name of a registered component"
    kind = type(value).__name__
    return f"a value of type {kind} is not plain data; write a dict, list, tuple, string, number, True, False or None"


def clone(value: Any) -> Any:
    """Return a copy of plain data that shares nothing with it that could change."""
    kind = type(value)
    if kind is dict:
        return {key: clone(item) for key, item in value.items()}
    if kind is list:
        return [clone(item) for item in value]
    return tuple([clone(item) for item in value]) if kind is tuple else value


def without_delete(value: Any) -> Any:
    """Return a copy of plain data without any ``_delete_`` key."""
    kind = type(value)
    if kind is dict:
        return {key: without_delete(item) for key, item in value.items() if key != DELETE}
    if kind is list:
        return [without_delete(item) for item in value]
    return tuple([without_delete(item) for item in value]) if kind is tuple else value


def parse_literal(text: str) -> Any:
    """Return the Python literal that ``text`` is, else ``text`` itself, spaces and all; ``dict(a=1)`` is a literal too.

    >>> parse_literal("(1, 2)"), parse_literal("-1e-3"), parse_literal("None"), parse_literal("runs/my first")
    ((1, 2), -0.001, None, 'runs/my first')

    Raises:
        ConfigError: if the literal is not plain data, or is too large or too deep to read.
    """
    try:
        value = _literal(text.lstrip(" \t"))
        _literal(f"({text})")  # fails if all behind a "#" was dropped, which belongs to a string
    except (RecursionError, MemoryError):
        raise ConfigError([Problem("", "the value is nested too deeply to read; flatten it")]) from None
    except (ValueError, TypeError, SyntaxError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        if "too many nested" in reason or "Exceeds the limit" in reason:
            raise ConfigError([Problem("", f"the value cannot be read: {reason.partition(':')[0]}")]) from None
        return text
    return plain(value)


def _literal(text: str) -> Any:
    return ast.literal_eval(_DictCalls().visit(ast.parse(text, mode="eval")))


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict(type="EMA")``, as configs write it, into ``{"type": "EMA"}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])
