"""Specs, the dicts with a ``type`` that name components, and where they are in a part of a config."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeGuard

Spec = Mapping[str, Any]  # {"type": name, **keyword arguments}
Steps = tuple[str | int, ...]  # from a config to a value in it: keys, and places in lists


def is_spec(value: object) -> TypeGuard[Spec]:
    """Return whether ``value`` names a component, if only by a name that there is not."""
    return isinstance(value, Mapping) and "type" in value


def items(value: object) -> Iterator[tuple[Any, Any]]:
    """Yield what is in a dict or a list, each with its key or its place; of anything else, nothing.

    >>> [*items({"a": 1})], [*items([True, None])], [*items("text")]
    ([('a', 1)], [(0, True), (1, None)], [])
    """
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)


def outer_specs(value: object, path: Steps = ()) -> Iterator[tuple[Steps, Spec]]:
    """Yield the specs in a part of a config that are not inside of others, each with its path.

    >>> [*outer_specs({"of": [0, {"type": "Inverted", "of": {"type": "MNIST"}}]})]
    [(('of', 1), {'type': 'Inverted', 'of': {'type': 'MNIST'}})]
    """
    if is_spec(value):
        yield path, value
    else:
        for step, item in items(value):
            yield from outer_specs(item, (*path, step))


def all_specs(value: object, path: Steps = ()) -> Iterator[tuple[Steps, Spec]]:
    """Yield every spec in a part of a config with its path, each before those inside of it.

    >>> [path for path, _ in all_specs({"of": [0, {"type": "Inverted", "of": {"type": "MNIST"}}]})]
    [('of', 1), ('of', 1, 'of')]
    """
    for place, spec in outer_specs(value, path):
        yield place, spec
        for step, item in items(spec):
            yield from all_specs(item, (*place, step))


def without(value: Any, places: Collection[Steps], path: Steps = ()) -> Any:
    """Return a part of a config without what is at some paths, in dicts and in lists.

    >>> without({"type": "Inverted", "of": [1, 2, 3]}, [("of", 0), ("of", 2)])
    {'type': 'Inverted', 'of': [2]}
    """
    left = {step: without(item, places, (*path, step)) for step, item in items(value) if (*path, step) not in places}
    if isinstance(value, Mapping):
        return left
    return [*left.values()] if isinstance(value, (list, tuple)) else value
