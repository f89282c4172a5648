"""Type annotations, and whether a config's plain values fit them."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visreg.specs import is_spec

UNKNOWN: Any = inspect.Parameter.empty
PLAIN_NAMES: Mapping[Any, str] = {
    collections.abc.Sequence: "list", collections.abc.Iterable: "list", collections.abc.Collection: "list",
    collections.abc.Mapping: "dict",
}  # fmt: skip
DTYPE = "a dtype such as 'float32'"
CALLABLE: Any = collections.abc.Callable
PLAIN = (type(None), bool, int, float, str, list, tuple, dict)


def matches(value: Any, annotation: Any) -> bool:
    """Return whether a config's ``value`` is fit for a parameter annotated so; True where nobody can tell.

    >>> matches(1, float), matches(True, int), matches([1, 2], tuple[int, int]), matches("a", int | None)
    (True, False, True, False)
    """
    if annotation in (Any, UNKNOWN, object) or isinstance(annotation, (str, typing.TypeVar, typing.ForwardRef)):
        return True
    if is_spec(value):
        return not _is_plain(annotation) or _is_mapping(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, choice) for choice in arguments)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is typing.Annotated:
        return matches(value, arguments[0])
    return _matches_class(value, origin or annotation, arguments)


def _matches_class(value: Any, wanted: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(wanted, type):
        return True
    if wanted is type(None):
        return value is None
    if wanted in (int, float, numbers.Number):
        return isinstance(value, int if wanted is int else (int, float)) and not isinstance(value, bool)
    if wanted in (bool, str):
        return isinstance(value, wanted)
    if issubclass(wanted, enum.Enum):
        return isinstance(value, wanted) or (isinstance(value, str) and _enum_member(wanted, value) is not None)
    if wanted is Path or wanted.__name__ == "PathLike":
        return isinstance(value, str)
    if wanted.__name__ == "dtype":
        return isinstance(value, wanted) or (isinstance(value, str) and isinstance(_dtype(value), wanted))
    if issubclass(wanted, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(matches(item, arguments[1]) for item in value.values() if arguments)
    if issubclass(wanted, tuple) and arguments and arguments[-1] is not ...:
        return isinstance(value, (list, tuple)) and len(value) == len(arguments) and all(map(matches, value, arguments))
    if wanted is CALLABLE or not issubclass(wanted, collections.abc.Iterable):
        return _is_instance(value, wanted)
    if wanted.__name__ == "Tensor":
        return _is_numbers(value)
    if isinstance(value, (list, tuple)) and wanted.__module__ in ("builtins", "collections.abc"):
        return not arguments or all(matches(item, arguments[0]) for item in value)
    return _is_instance(value, wanted) and not isinstance(value, (str, dict))


def _is_instance(value: Any, wanted: type) -> bool:
    # A class that is not plain data can only be had from a spec, or be given as an object from Python.
    return not isinstance(value, PLAIN) and (wanted is CALLABLE or isinstance(value, wanted))


def _is_plain(annotation: Any) -> bool:
    """Return whether only plain data, and no built object, fits the annotation."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(_is_plain(choice) for choice in arguments)
    if origin is typing.Literal:
        return True
    if origin is typing.Annotated:
        return _is_plain(arguments[0])
    kind = origin or annotation
    return isinstance(kind, type) and (
        issubclass(kind, (bool, int, float, str, bytes, type(None), enum.Enum, Path, list, tuple, set, dict))
        or kind in (collections.abc.Sequence, collections.abc.Mapping, numbers.Number)
        or kind.__name__ in ("Tensor", "PathLike", "dtype")
    )


def _is_mapping(annotation: Any) -> bool:
    return any(
        isinstance(kind := typing.get_origin(choice) or choice, type) and issubclass(kind, collections.abc.Mapping)
        for choice in choices(annotation)
    )


def _is_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        _is_numbers(item) or (isinstance(item, (int, float)) and not isinstance(item, bool)) for item in value
    )


def fit(value: Any, annotation: Any) -> Any:
    """Return ``value`` as the parameter wants it: a list as the tuple or tensor, text as the enum member or dtype."""
    if not isinstance(value, (str, list, tuple)):
        return value
    for choice in choices(annotation):
        if isinstance(value, str) and isinstance(choice, type) and issubclass(choice, enum.Enum):
            return _enum_member(choice, value) or value
        if isinstance(value, str) and choice is Path and str not in choices(annotation):
            return Path(value)
        if isinstance(value, str) and getattr(choice, "__name__", "") == "dtype":
            return _dtype(value) or value
        if isinstance(value, (list, tuple)) and getattr(choice, "__name__", "") == "Tensor" and _is_numbers(value):
            return sys.modules["torch"].tensor(value, dtype=sys.modules["torch"].get_default_dtype())
        if isinstance(value, list) and (typing.get_origin(choice) or choice) is list:
            return value
        if isinstance(value, list) and (typing.get_origin(choice) or choice) is tuple:
            return tuple(value)
    return value


def choices(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union; of anything else, itself."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def _enum_member(kind: type[enum.Enum], value: str) -> enum.Enum | None:
    name = value.removeprefix(f"{kind.__name__}.").lower()
    known = kind.__members__.items()  # with the aliases, which iterating leaves out, such as ``DEFAULT`` of weights
    return next((member for key, member in known if name in (key.lower(), str(member.value).lower())), None)


def _dtype(name: str) -> Any:
    """Return torch's dtype of that name, such as ``"float32"`` or ``"torch.float32"``, or None."""
    found = getattr(sys.modules["torch"], name.removeprefix("torch."), None)
    return found if type(found).__name__ == "dtype" else None


def describe(annotation: Any) -> str:
    """Return what an annotation asks for, in words.

    >>> describe(float | None), describe(tuple[int, int]), describe(typing.Literal["a", "b"])
    ('float or None', 'tuple[int, int]', "'a' or 'b'")
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(choice) for choice in arguments))
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(repr(member.name.lower()) for member in annotation) or "str"
    if annotation is type(None):
        return "None"
    if origin is CALLABLE or not _is_plain(annotation):
        name = getattr(origin or annotation, "__name__", str(annotation))
        return name if name in ("Iterable", "Callable") else f"a dict(type=…) that makes a {name}"
    if arguments:
        name = PLAIN_NAMES.get(origin, getattr(origin, "__name__", str(origin)))
        return f"{name}[{', '.join(describe(item) for item in arguments)}]"
    return {"Tensor": "a list of numbers", "Path": "str", "PathLike": "str", "Number": "float", "dtype": DTYPE}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
    )
