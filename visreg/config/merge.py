"""How a config file's own values go together with those of its base files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visreg.config.origin import Layer, Origin, mistake
from visreg.config.path import show_path
from visreg.config.plain import DELETE, without_delete
from visreg.errors import ConfigError, Location, Problem


def merge(over: Mapping[Any, Any], under: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return ``under`` with ``over`` merged into it: dict into dict, anything else replaced.

    The result holds no ``_delete_``, but shares values with ``under``.

    >>> merge({"model": {"depth": 50}, "hooks": [2]}, {"model": {"type": "ResNet", "depth": 18}, "hooks": [1]})
    {'model': {'type': 'ResNet', 'depth': 50}, 'hooks': [2]}
    >>> merge({"model": {"_delete_": True, "type": "VGG"}}, {"model": {"type": "ResNet", "depth": 18}})
    {'model': {'type': 'VGG'}}
    """
    merged = dict(under)
    for key, value in over.items():
        if key == DELETE:
            continue
        if not isinstance(value, dict) or key not in under or value.get(DELETE):
            merged[key] = without_delete(value)
            continue
        try:
            if not isinstance(under[key], dict):
                raise _ClashError
            merged[key] = merge(value, under[key])
        except _ClashError as error:
            raise _ClashError(key, *error.args) from None
    return merged


class _ClashError(Exception):
    """A dict has nothing to merge into at the path of its arguments."""


def layer(path: Path, own: dict[str, Any], origin: Origin, inherited: dict[str, Any], bases: Sequence[Layer]) -> Layer:
    """Return the layer of the file at ``path``, whose ``own`` values go over the ``inherited`` ones of its ``bases``.

    Raises:
        ConfigError: if a dict would have to be merged into something else.
    """
    made = Layer(path, own, inherited, origin, tuple(bases))
    try:
        made.values = merge(own, inherited)
    except _ClashError as error:
        earlier = [base.where(error.args) for base in bases if error.args[0] in base.values]
        message = f"a dict here, but not in {earlier[-1]}, so they cannot be merged; add _delete_=True to replace it"
        raise mistake(message, made.where(error.args), show_path(error.args)) from None
    return made


def join(bases: Sequence[Layer], place: Location) -> dict[str, Any]:
    """Return the values of all ``bases``, which ``place`` names; none may set what another sets."""
    joined: dict[str, Any] = {}
    problems = []
    for number, base in enumerate(bases):
        for name in [name for name in base.values if name in joined and not name.startswith("_")]:
            first = next(other for other in bases[:number] if name in other.values)
            both = f"{first.where((name,))} and {base.where((name,))}"
            problems.append(Problem(name, f"set by two base files, {both}; remove one of the two", place))
        joined.update(base.values)
    if problems:
        raise ConfigError(problems)
    return joined


def names_of_bases(value: Any, place: Location) -> list[str]:
    """Return the value of ``_base_`` as a list of file names."""
    names = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise mistake(f"expected a file name or a list of them, got {value!r}", place, "_base_")
    return names
