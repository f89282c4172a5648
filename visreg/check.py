"""Everything wrong with a config, found at once and before anything is built or read."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from visreg.config import Config, ConfigPath, show_path
from visreg.contradictions import contradictions, meant, section_names
from visreg.errors import (
    BLAMES_PLUGIN,
    ConfigError,
    Location,
    PluginError,
    Problem,
    RegistryError,
    VisregError,
)  # fmt: skip
from visreg.options import options_of, problems
from visreg.plugin_file import load_file
from visreg.schema import SECTIONS, Schema
from visreg.slots import SLOTS
from visreg.spec_check import slot_problems
from visreg.specs import items

Found = Iterator[tuple[ConfigPath, str]]
MOST = 1000  # mistakes that are looked for; a config with more is something else


def check_config(
    config: Config, *, dry_run: bool = True, plugin_files: Collection[Path] = (), weights: bool = True
) -> Schema:
    """Return the checked config with its defaults filled in.

    First names, options, types and values are looked at, without importing torch unless a component needs it. Then
    everything that is right so far is built on meta tensors, which have shapes but no data, and a blank batch goes
    through it.

    Args:
        config: what to check.
        dry_run: whether to take the second step.
        plugin_files: files to run beside those that a ``.py`` config itself lists.
        weights: whether the files of weights that models begin from must be there, and be of such models.

    Raises:
        ConfigError: listing every mistake found; of exit code 8 if a plugin is to blame.
    """
    found = [*_plugin_problems(config, plugin_files)]
    lost = [f"{_entry(config, problem)!r}, reported above," for problem in found]
    static = list(islice(static_problems(config.values), MOST))
    found += [_problem(config, path, message, lost) for path, message in static]
    if dry_run and len(static) < MOST:
        from visreg.dry_run import all_dry_run_problems

        broken = {path for path, _ in static} | {(name,) for name in meant(config.values)}
        schema = Schema.of(config.values, without=broken)
        found += [_problem(config, path, message) for path, message in all_dry_run_problems(schema, broken, weights)]
    if found:
        raise ConfigError(sorted(dict.fromkeys(found), key=_reading_order))
    return Schema.of(config.values)


def _reading_order(problem: Problem) -> tuple[str, int]:
    return (problem.location.file, problem.location.line) if problem.location else ("", 0)


def _entry(config: Config, problem: Problem) -> str:
    """Return the entry of ``plugins`` that a problem is about."""
    index = problem.path.removeprefix("plugins[").removesuffix("]")
    return str(config.values["plugins"][int(index)]) if index.isdigit() else str(problem.location)


def _problem(config: Config, path: ConfigPath, message: str, lost: Collection[str] = ()) -> Problem:
    broken = message.startswith(BLAMES_PLUGIN)
    message = message.removeprefix(BLAMES_PLUGIN)
    if lost and "is not among the" in message:
        message += f" (unless {' or '.join(lost)} has it)"
    return Problem(show_path(path), message, config.where(path), 8 if broken else 2)


def _plugin_problems(config: Config, plugin_files: Collection[Path]) -> Iterator[Problem]:
    """Load the plugin files, and make sure of the plugin packages, that the config lists."""
    listed = config.values.get("plugins", ())
    entries: list[tuple[ConfigPath, Any]] = [((), file) for file in plugin_files]
    if isinstance(listed, (list, tuple)):
        entries += [(("plugins", index), entry) for index, entry in enumerate(listed)]
    for path, entry in entries:
        location = config.where(path) if path else Location(f"--plugin {entry}")
        name = show_path(path)
        if not isinstance(entry, (str, Path)):
            continue  # its type is looked at with all others
        if not str(entry).endswith(".py"):
            yield from _package_problems(name, str(entry), location, _may_run_code(config, location))
        elif path and not _may_run_code(config, location):
            if Path(entry).name in {Path(file).name for file in plugin_files}:
                continue
            yield Problem(
                name, f"only a .py config may name a file to run; if you trust it, give --plugin {entry}", location
            )
        else:
            try:
                load_file((config.file.parent / entry) if path and config.file else Path(entry))
            except (PluginError, RegistryError) as error:
                yield Problem(name, str(error), location, error.exit_code)


def _may_run_code(config: Config, location: Location | None) -> bool:
    by_python = config.file is not None and config.file.suffix == ".py"
    return by_python and location is not None and location.line > 0 and location.file.endswith(".py")


def _package_problems(path: str, package: str, location: Location | None, trusted: bool) -> Iterator[Problem]:
    from importlib.metadata import PackageNotFoundError, version

    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", package):
        yield Problem(path, f"expected a .py file or the name of a package, got {package!r}", location)
        return
    try:
        version(package)
    except (PackageNotFoundError, ValueError):
        message = f"the package {package!r}, which provides components of this config, is not installed; "
        trust = "" if trusted else "if you trust it, "
        yield Problem(path, f"{message}{trust}pip install {package}, or pip install -e its folder", location, 8)


def static_problems(values: Mapping[str, Any]) -> Found:
    """Yield (path, message) of each mistake that can be found without building anything."""
    wrong = set()
    for path, message in _all_problems(values):
        wrong.add(path)
        yield path, _redirected(values, path, message)
    yield from ((path, message) for path, message in _not_a_number(values, ()) if path not in wrong)


def _redirected(values: Mapping[str, Any], path: ConfigPath, message: str) -> str:
    """Return ``message``; if it is about an option that is one elsewhere, such as ``epochs`` of ``run``, say where."""
    name = path[-1] if path else ""
    offered = re.findall(r"did you mean '(\w+)'", message)
    if not isinstance(name, str) or not message.startswith("no such") or get_close_matches(name, offered, cutoff=0.8):
        return message
    homes = [name, *(f"{section}.{name}" for section, kind in SECTIONS.items() if name in attrs.fields_dict(kind))]
    homes = homes if name in section_names() else homes[1:]
    with suppress(VisregError):
        for slot, spec in values.items():
            if slot in SLOTS and isinstance(spec, Mapping) and isinstance(spec.get("type"), str):
                homes += [f"{slot}.{name}"] * (name in options_of(SLOTS[slot].registry.get(spec["type"])))
    inside = [home for home in homes if home.split(".")[0] == path[0]]
    homes = [home for home in inside or homes if home != show_path(path)]
    return f"no such option here; did you mean {' or '.join(map(repr, homes))}?" if homes else message


def _all_problems(values: Mapping[str, Any]) -> Found:
    for name, message in problems(Schema, values, unchecked={*SECTIONS, *SLOTS}):
        if message.startswith("missing") and name in meant(values):
            continue
        yield (name,), _top_level(message)
    yield from slot_problems(values, ())
    for name, section in SECTIONS.items():
        if name in values and (values[name] is not None or name not in ("val", "test")):
            yield from _section_problems(section, values[name], (name,))
    yield from contradictions(values)


def _top_level(message: str) -> str:
    if message.startswith("no such option"):
        return f"no such section{message.removeprefix('no such option')} (a variable of your own begins with '_')"
    return message


def _section_problems(section: type[Any], value: Any, path: ConfigPath) -> Found:
    if not isinstance(value, Mapping):
        yield path, f"expected a dict, got {value!r}"
        return
    slots = {name for name in SLOTS if name in attrs.fields_dict(section)}
    yield from (((*path, name), message) for name, message in problems(section, value, unchecked=slots))
    yield from slot_problems({name: value[name] for name in slots if name in value}, path)


def _not_a_number(value: Any, path: ConfigPath) -> Found:
    if isinstance(value, float) and math.isnan(value):
        yield path, "is nan, which no option can mean"
    for step, item in items(value):
        yield from _not_a_number(item, (*path, step))
