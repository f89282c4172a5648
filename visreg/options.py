"""The options of a component, read from its signature: their names, types, defaults and validators."""

from __future__ import annotations

import builtins
import inspect
import math
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

import attrs
from attrs import frozen

from visreg.annotations import UNKNOWN, describe, matches
from visreg.errors import distance, nearest, suggest
from visreg.specs import outer_specs

MISANNOTATED: Mapping[tuple[str, str], Any] = {("RandomErasing", "value"): float | str | list[float]}
# What torch takes without a look, and nobody can mean.
SHORT = 3  # letters of a name of which a single other one makes quite another
RANGES = {
    "lr": (-math.inf, 1000), "label_smoothing": (0, 1), "momentum": (-math.inf, 1), "gamma": (0, math.inf),
    "step_size": (1, math.inf), "weight": (0, math.inf), "pos_weight": (0, math.inf),
}  # fmt: skip


@frozen(eq=False)
class Option:
    """One argument of a component's constructor.

    Attributes:
        attribute: the attrs field behind it, whose validator and converter count.
        inner: whether it belongs to what the component passes its ``**kwargs`` to; then it may well be set there.
    """

    name: str
    annotation: Any = UNKNOWN
    default: Any = UNKNOWN
    attribute: attrs.Attribute[Any] | None = None
    inner: bool = False

    @property
    def required(self) -> bool:
        """Whether a config must give it."""
        return self.default is UNKNOWN and not self.inner


@lru_cache(maxsize=1024)
def options_of(factory: Callable[..., Any]) -> Mapping[str, Option]:
    """Return the options that ``factory`` takes, by name.

    Where it takes ``**kwargs``, they are those of whatever it passes them to: of a class, the constructors of its
    bases; of a function, the class that its annotation says it returns.

    >>> sorted(options_of(Option))
    ['annotation', 'attribute', 'default', 'inner', 'name']
    """
    fields = attrs.fields_dict(factory) if isinstance(factory, type) and attrs.has(factory) else {}
    by_argument = {field.alias: field for field in fields.values() if field.init}
    found: dict[str, Option] = {}
    for number, function in enumerate(_passed_through(factory)):
        hints_of = _constructor(function) if isinstance(function, type) else function
        for name, parameter in _parameters(function).items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                continue
            field = by_argument.get(name)
            meant = _resolve(parameter.annotation, _declaring(factory, field.name) if field else hints_of)
            annotation = MISANNOTATED.get((function.__name__, name), meant)
            option = Option(name, annotation, parameter.default, field, inner=number > 0)
            found.setdefault(name, option)
    return found


@lru_cache(maxsize=1024)
def open_ended(factory: Callable[..., Any]) -> bool:
    """Return whether ``factory`` takes keyword arguments whose names cannot be known."""
    functions = _passed_through(factory)
    return _takes_kwargs(functions[-1]) if functions else True


def problems(
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    given: Collection[str] = (),
    offered: Collection[str] = (),
    unchecked: Collection[str] = (),
    others: Collection[str] = (),
) -> Iterator[tuple[str, str]]:
    """Yield (option, what is wrong with it) for each reason ``factory(**arguments)`` would fail; do not call it.

    Args:
        factory: the component's class or function.
        arguments: plain data and specs, as a config holds them.
        given: names of the arguments that the program adds when the time comes, and a config may not.
        offered: names of those that the program adds unless the config does.
        unchecked: names of those whose values somebody else looks at.
        others: names that are not the factory's own, but may stand beside them.
    """
    known = options_of(factory)
    settable = {name: option for name, option in known.items() if name not in given}
    unknown = [name for name in arguments if name not in known]
    if open_ended(factory):  # then a name that nobody knows is none to be sure of, unless it is all but a known one
        unknown = [name for name in unknown if isinstance(name, str) and _is_misspelt({*settable} - {*arguments}, name)]
    missing = [name for name in settable if settable[name].required and name not in {*arguments, *offered}]
    for name in arguments:
        if not isinstance(name, str):
            yield str(name), f"the name of an option must be a str, got {name!r}"
        elif name in settable and name in unchecked:
            continue
        elif name in settable:
            yield from ((name, message) for message in value_problems(settable[name], arguments[name]))
        elif name in known:
            yield name, "is set by visreg, not by a config; remove it"
        elif name in unknown:
            free = [other for other in (*settable, *others) if other not in arguments]
            yield name, f"no such option{suggest_option(name, free if nearest(name, free) else settable, missing)}"
    meant = {near for name in unknown if isinstance(name, str) for near in nearest(name, missing)}
    yield from ((name, "missing; it has no default") for name in missing if name not in meant)  # else reported already


def _is_misspelt(known: Collection[str], name: str) -> bool:
    return len(name) > SHORT and any(distance(name, other) == 1 for other in known)


def suggest_option(name: str, known: Collection[str], missing: Collection[str] = ()) -> str:
    """Return a suggestion for an unknown option, one that is missing anyway first."""
    near = nearest(name, missing)
    return f"; did you mean {near[0]!r}?" if near else suggest(name, known)


def value_problems(option: Option, value: Any) -> Iterator[str]:
    """Yield what is wrong with ``value`` for ``option``: first its type, then, if that is right, its validators."""
    expected = _like_default(option.default) if option.annotation is UNKNOWN else option.annotation
    if value is option.default:
        return
    if not matches(value, expected):
        yield f"expected {describe(expected)}, got {value!r}"
    elif option.attribute is None and option.name in RANGES:
        low, high = RANGES[option.name]
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if not all(low <= number <= high for number in numbers if isinstance(number, (int, float))):
            bounds = [f"{low} or more"] * (low > -math.inf) + [f"at most {high}"] * (high < math.inf)
            yield f"must be {' and '.join(bounds)}, got {value!r}"
    elif option.attribute is not None and option.attribute.validator is not None and not any(outer_specs(value)):
        try:
            option.attribute.validator(None, option.attribute, _converted(option.attribute, value))
        except AttributeError:  # it asks for other attributes of the object that is to be built
            return
        except (TypeError, ValueError) as error:
            yield _plain_message(error, option, value)


def _converted(attribute: attrs.Attribute[Any], value: Any) -> Any:
    converter = attribute.converter
    return value if converter is None or isinstance(converter, attrs.Converter) else converter(value)


# What the validators of attrs say: of what they want, which is group 1, and of what they got, which is group 2.
_ATTRS_SAYS = (
    (re.compile(r"Length of '\w+' must be (.+): \d+", re.DOTALL), "length must be {0}"),
    (re.compile(r"'\w+' (must be [<>]=? .+?): (.+)", re.DOTALL), "{0}"),
    (re.compile(r"'\w+' (must match regex .+) \((.+) doesn't\)", re.DOTALL), "{0}"),
    (re.compile(r"'\w+' (must be .+?) \(got (.+?)(?: that is .+)?\)\.?", re.DOTALL), "{0}"),
    (re.compile(r"None of (.+) satisfied for value .+", re.DOTALL), "must satisfy one of {0}"),
    (re.compile(r"not_ validator child '(.+)' did not raise a captured error", re.DOTALL), "must not satisfy {0}"),
)


def _plain_message(error: Exception, option: Option, value: Any) -> str:
    """Return what a validator objects to, in words; of a value inside ``value``, with that one too."""
    message = str(error.args[0]) if error.args else str(error)
    item = ""
    for pattern, plain in _ATTRS_SAYS:
        if found := pattern.fullmatch(message):
            message = plain.format(found[1])
            item = found[2] if pattern.groups > 1 and found[2] not in (str(value), repr(value)) else ""
            break
    message = _without_classes(message).removeprefix(f"{option.name}: ").removeprefix(f"'{option.name}' ")
    return message if ", got " in message else f"{message}, got {f'{item} in ' if item else ''}{value!r}"


def _without_classes(message: str) -> str:
    """Return ``message`` with ``int or str`` for ``(<class 'int'>, <class 'str'>)``."""
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    return re.sub(
        r"(must be |subclass of )\((\w+(?:, \w+)*),?\)",
        lambda found: found[1] + found[2].replace(", ", " or "),
        message,
    )


def _like_default(default: Any) -> Any:
    """Return the type that a parameter without annotation can be taken to want, judged by its default."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, (int, float)):
        return float | tuple | list | None
    return Any


def _passed_through(factory: Callable[..., Any]) -> list[Any]:
    """Return ``factory`` and, while keyword arguments are passed on, what receives them."""
    chain: list[Any] = [factory]
    if isinstance(factory, type):
        if _takes_kwargs(factory):
            chain += [base for base in factory.__mro__[1:-1] if "__init__" in vars(base)]
    elif _takes_kwargs(factory):
        made = _resolve(getattr(factory, "__annotations__", {}).get("return", UNKNOWN), factory)
        if isinstance(made, type):
            chain.append(made)
    cut = next((number for number, function in enumerate(chain) if not _takes_kwargs(function)), len(chain) - 1)
    return chain[: cut + 1]


def _takes_kwargs(function: Callable[..., Any]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in _parameters(function).values())


def _constructor(kind: type) -> Callable[..., Any]:
    return kind.__init__  # type: ignore[misc, no-any-return]  # of this very class, not of an instance


@lru_cache(maxsize=1024)
def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    if isinstance(function, type):
        found = list(inspect.signature(_constructor(function)).parameters.items())[1:]
        return dict(found)
    return inspect.signature(function).parameters


def _declaring(factory: Any, name: str) -> Any:
    """Return which class a field comes from: its module knows what the names in the annotation mean."""
    return next((base for base in factory.__mro__ if name in vars(base).get("__annotations__", {})), factory)


def _resolve(annotation: Any, function: Any) -> Any:
    """Return an annotation that is text as what it means, or `Any` where that cannot be had at run time."""
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(getattr(function, "__module__", ""), None)
    names = {
        **vars(builtins),
        **vars(typing),
        **(vars(module) if module else {}),
        **getattr(function, "__globals__", {}),
    }
    try:
        return eval(annotation, names)  # the text of the function's own annotation: code that was imported already
    except Exception:  # names that are only imported for type checkers
        return Any
