"""What is registered, shown: every name, the names of one kind, or all there is to know of one name."""

from __future__ import annotations

import enum
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import NOTHING, frozen

from visreg import adopted
from visreg.annotations import UNKNOWN, describe
from visreg.component import Component
from visreg.errors import PluginError, RegistryError, suggest
from visreg.options import Option, options_of
from visreg.registry import KINDS, Registry

RANKS = ("own", "file", "plugin", "adopted")
# How a config names a component of each kind.
SNIPPETS = {
    "models": "model = {}",
    "losses": "loss = {}",
    "tasks": "task = {}",
    "datasets": "train = dict(dataset={}, batch_size=64)",
    "transforms": "train = dict(dataset=..., batch_size=64, transforms=[{}])",
    "samplers": "train = dict(dataset=..., batch_size=64, sampler={})",
    "metrics": "metrics = [{}]",
    "optimizers": "optimizer = {}",
    "schedules": "schedule = {}",
    "hooks": "hooks = [{}]",
}


def show(kind: str | None, name: str | None) -> None:
    """Print every name that is registered; or, of the names of one ``kind``, the options; or all there is on one.

    Args:
        kind: such as ``"models"``, or ``"model"``.
        name: such as ``"resnet18"``.

    Raises:
        RegistryError: if there is no such kind or name.
        PluginError: if the plugin that has the name fails to import.
    """
    if kind is None:
        for registry in KINDS.values():
            print(*_names(registry), sep="\n", end="\n\n")
        print("visreg list KIND shows their options, and visreg list KIND NAME all there is on one.")
    elif name is None:
        _print_table(_registry(kind))
    else:
        registry = _registry(kind)
        factory = registry.get(name)
        print(*_description(registry, registry.claims(name)[0], factory), sep="\n")


def _registry(kind: str) -> Registry[Any]:
    for known, registry in KINDS.items():
        if kind in (known, known.removesuffix("s"), known.removesuffix("es")):
            return registry
    owners = [known for known, registry in KINDS.items() if registry.claims(kind)]
    if owners:
        raise RegistryError(f"no kind {kind!r}, but it is one of the {owners[0]}; try `visreg list {owners[0]} {kind}`")
    raise RegistryError(f"no kind {kind!r}{suggest(kind, KINDS)}")


def _names(registry: Registry[Any]) -> Iterator[str]:
    """Yield lines with all names of a kind, grouped by where they come from."""
    groups: dict[str, list[str]] = {}
    troubles: list[str] = []
    for first in sorted((registry.claims(name)[0] for name in registry), key=lambda first: RANKS.index(first.source)):
        name = first.name
        trouble = _trouble(registry, name)
        groups.setdefault(_origin(first), []).append(f"{name}{'*' * (trouble is not None)}")
        troubles += [trouble] if trouble else []
    yield _bold(f"{registry.kind} ({len(list(registry))})")
    for origin, names in groups.items():
        yield _wrapped(f"{origin}: {' '.join(names)}", "  ", "      ")
    yield from (_wrapped(f"* {trouble}", "  ", "      ") for trouble in troubles)
    if not groups:
        yield "  none"


def _trouble(registry: Registry[Any], name: str) -> str | None:
    """Return why a plugin's component cannot be used, if so; the plugin is imported to know."""
    claims = registry.claims(name)
    plugins = [claim for claim in claims if claim.source == "plugin"]
    if plugins and claims[0].source == "own":
        return f"hidden: {name!r} of {' and of '.join(map(str, plugins))}, since visreg has one of that name"
    try:
        component = registry.find(name)
        if component is not None and component.source == "plugin":
            component.load()
    except RegistryError as error:
        return f"conflict: {error}"
    except PluginError as error:
        return f"broken: {error}"
    return None


def _origin(component: Component) -> str:
    if component.source == "own":
        from visreg import __version__

        return f"visreg {__version__}"
    return adopted.version(component.owner) if component.source == "adopted" else component.owner


@frozen
class _Row:
    name: str
    origin: str
    signature: str
    summary: str


def _rows(registry: Registry[Any]) -> Iterator[_Row]:
    for name in registry:
        origin = _origin(registry.claims(name)[0])
        trouble = _trouble(registry, name)
        try:
            factory = registry.get(name)
        except Exception as error:  # of whatever kind: the others are still to be shown
            yield _Row(name, origin, "", trouble or f"broken: {type(error).__name__}: {error}")
            continue
        ours = _offered(registry, factory)
        options = ", ".join(_short(option, option.name in ours) for option in _settable(registry, factory))
        yield _Row(name, origin, f"({options})", f"{trouble}. " * (trouble is not None) + _summary(factory))


def _print_table(registry: Registry[Any]) -> None:
    """Print a table that fits a terminal; or, where there is none, one line for each name."""
    rows = list(_rows(registry))
    if not _on_terminal():
        name, origin = (max((len(getattr(row, part)) for row in rows), default=0) for part in ("name", "origin"))
        for row in rows:
            print(f"{row.name:{name}}  {row.origin:{origin}}  {row.signature}  {row.summary}".rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "from", "options", "summary", box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(row.name, row.origin, row.signature, row.summary)
    Console(markup=False, highlight=False, emoji=False).print(table)


def _description(registry: Registry[Any], component: Component, factory: Callable[..., Any]) -> Iterator[str]:
    """Yield lines with all there is to know of one component."""
    yield f"{_bold(component.name)}, one of the {registry.kind}, from {_origin(component)} ({component.target})"
    yield f"\n{inspect.cleandoc(_doc(factory))}" if _doc(factory) else ""
    options = _settable(registry, factory)
    yield _bold("\nOptions:" if options else "\nNo options.")
    ours = _offered(registry, factory)
    for option in options:
        kind = "" if option.annotation in (UNKNOWN, Any) else f": {describe(option.annotation)}"
        yield f"    {option.name}{kind}{_rest(option, option.name in ours)}"
    yield _bold("\nIn a config:")
    if component.source == "plugin":
        yield f'    plugins = ["{component.owner.partition(" ")[0]}"]'
    needed = [f"{option.name}=..." for option in options if option.required and option.name not in ours]
    spec = ", ".join([f'type="{component.name}"', *needed])
    yield "    " + SNIPPETS[registry.kind].format(f"dict({spec})")


def _rest(option: Option, ours: bool) -> str:
    if ours:
        return "  (set by visreg unless the config does)"
    if option.required:
        return "  (required)"
    return f" = {_value(option)}"


def _settable(registry: Registry[Any], factory: Callable[..., Any]) -> Sequence[Option]:
    """Return the options that a config may set."""
    from visreg.slots import SLOTS  # here, as below: names alone take none of it

    given = frozenset().union(*(slot.given for slot in SLOTS.values() if slot.registry is registry))
    return [option for option in options_of(factory).values() if option.name not in given]


def _offered(registry: Registry[Any], factory: Callable[..., Any]) -> set[str]:
    from visreg.spec_check import offered

    return offered(registry, factory)


def _short(option: Option, ours: bool) -> str:
    if ours:
        return f"{option.name}=…"
    return option.name if option.required else f"{option.name}={_value(option)}"


def _value(option: Option) -> str:
    """Return a default as a config would write it; ``…`` where it is worked out, or cannot be written."""
    default = option.default
    if default is NOTHING and option.attribute is not None:
        factory = getattr(option.attribute.default, "factory", None)
        default = factory() if factory in (list, tuple, dict) else UNKNOWN
    if isinstance(default, enum.Enum):
        return repr(default.name.lower())
    text = "…" if default is UNKNOWN else repr(default)
    return "…" if text.startswith("<") or len(text) > 60 else text


def _doc(factory: Callable[..., Any]) -> str:
    return vars(factory).get("__doc__") or "" if isinstance(factory, type) else factory.__doc__ or ""


def _summary(factory: Callable[..., Any]) -> str:
    """Return the first sentence of a docstring without its markup.

    >>> _summary(_summary)
    'Return the first sentence of a docstring without its markup.'
    """
    paragraph = " ".join(inspect.cleandoc(_doc(factory)).partition("\n\n")[0].split())
    plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`|`+([^`<]+?)(?: <[^>]*>)?`+_{0,2}", r"\1\2", paragraph)
    return re.split(r"(?<=[a-z)\d]\.) (?=[A-Z])", plain)[0]


def _wrapped(text: str, first: str, other: str) -> str:
    if not _on_terminal():
        return first + text
    import shutil  # which imports every way to compress

    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    )


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _bold(text: str) -> str:
    plain = not _on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\033[1m{text}\033[0m"
