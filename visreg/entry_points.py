"""The entry points of installed packages, through which plugins join; nothing is imported to read them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

GROUPS = "visreg."  # what the names of our groups begin with


def entry_points() -> Iterator[tuple[str, str, str, str]]:
    """Yield (group, name, target, distribution) of every installed entry point of a group of visreg's."""
    import entrypoints

    try:
        # What get_group_all does for one group, which would read every file once more for each.
        files = list(entrypoints.iter_files_distros())
    except Exception as error:  # one malformed file of any package, and nothing at all can be read so
        _warn_of_bad_metadata(getattr(error, "source", "an installed package's entry_points.txt"), error)
        files = list(_files_one_by_one())
    for groups, distribution in files:
        owner = owner_of(distribution.name, distribution.version)
        for group in (group for group in groups if group.startswith(GROUPS)):
            for name in groups[group]:
                try:
                    point = entrypoints.EntryPoint.from_string(groups[group][name], name)
                    yield group, name, f"{point.module_name}:{point.object_name or ''}", owner
                except Exception as error:  # BadEntryPoint, or a stray % that configparser takes for its own
                    _warn_of_bad_metadata(f"{owner}: entry point {name!r} of {group}", error)


def _files_one_by_one() -> Iterator[tuple[Mapping[str, Mapping[str, str]], Any]]:
    """Yield the entry points, by group and name, and the distribution of each installed package that can be read."""
    from importlib.metadata import distributions

    seen = set()
    for distribution in distributions():
        groups: dict[str, dict[str, str]] = {}
        try:
            if distribution.name in seen:  # the first on the path hides the others
                continue
            seen.add(distribution.name)
            for point in distribution.entry_points:
                groups.setdefault(point.group, {})[point.name] = point.value
        except Exception as error:
            _warn_of_bad_metadata(str(getattr(distribution, "_path", distribution.locate_file(""))), error)
        yield groups, distribution


def owner_of(name: str, version: str | None) -> str:
    """Return a distribution's name, spelt as package indexes do, and its version."""
    return f"{re.sub('[-_.]+', '-', name).lower()} {version or ''}".strip()


def _warn_of_bad_metadata(where: str, error: Exception) -> None:
    reason = str(error).partition("\n")[0] or type(error).__name__
    warnings.warn(f"{where}: malformed ({reason}); the components it names, if any, are left out", stacklevel=2)
