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
    nearest,
    suggest,
)  # fmt: skip
from visreg.options import open_ended, options_of, problems
from visreg.plugin_file import load_file
from visreg.registry import Registry, kind_of
from visreg.schema import SECTIONS, Schema
from visreg.slots import NESTED, SLOTS, ModelKeys, Slot
from visreg.specs import is_spec, items, outer_specs

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
    yield from _slot_problems(values, ())
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
    yield from _slot_problems({name: value[name] for name in slots if name in value}, path)


def _slot_problems(values: Mapping[str, Any], path: ConfigPath) -> Found:
    for name, slot in SLOTS.items():
        value = values.get(name)
        if name not in values or (value is None and name in ("loss", "sampler")):
            continue
        listed = value if isinstance(value, (list, tuple)) and (slot.many or name == "schedule") else None
        if slot.many and listed is None:
            advice = "; put it in [ ]" if is_spec(value) else ""
            yield (*path, name), f"expected a list of dict(type=…), got {value!r}{advice}"
            continue
        specs: Any = [(None, value)] if listed is None else enumerate(listed)
        for index, spec in specs:
            here = (*path, name) if index is None else (*path, name, index)
            yield from _spec_problems(slot.registry, spec, here, slot, values)


def _spec_problems(
    registry: Registry[Any],
    spec: Any,
    path: ConfigPath,
    slot: Slot | None = None,
    values: Mapping[str, Any] | None = None,
) -> Found:
    """Yield what is wrong with a spec and those nested in it."""
    slot = slot or NESTED.get(registry.kind) or Slot(registry=registry)
    if not isinstance(spec, Mapping):
        yield path, f"expected dict(type=…, …), got {spec!r}"
        return
    if not isinstance(spec.get("type"), str):
        yield from _type_problems(registry, spec, path)
        return
    try:
        factory = registry.get(spec["type"])
    except PluginError as error:
        yield (*path, "type"), f"{BLAMES_PLUGIN}{error}"
        return
    except RegistryError as error:
        yield (*path, "type"), str(error)
        return
    keys = _keys(slot, factory)
    if slot.keys and keys:
        extra = {name: value for name, value in spec.items() if name in keys}
        yield from (((*path, name), message) for name, message in problems(slot.keys, extra))
    arguments = {name: value for name, value in spec.items() if name != "type" and name not in keys}
    yield from _argument_problems(registry, factory, arguments, path, slot, keys, values or {})


def _keys(slot: Slot, factory: Any) -> Collection[str]:
    """Return the names of the keys in a spec that are not the component's own."""
    if slot.registry.kind == "models":
        from visreg.models.adopted import takes_weights  # here, since it imports torch, as the factory's module has

        return attrs.fields_dict(ModelKeys) if takes_weights(factory) else {}
    return attrs.fields_dict(slot.keys) if slot.keys else {}


def _argument_problems(
    registry: Registry[Any],
    factory: Any,
    arguments: Mapping[str, Any],
    path: ConfigPath,
    slot: Slot,
    keys: Collection[str],
    values: Mapping[str, Any],
) -> Found:
    known = options_of(factory)
    wrong = set()
    for name, message in problems(factory, arguments, slot.given, offered(registry, factory), others={"type", *keys}):
        wrong.add(name)
        untyped = [*_untyped(arguments[name], (*path, name))] if message.startswith("expected") else []
        yield from untyped or [((*path, name), message)]
    if "loss" in slot.given:
        yield from _loss_problems(factory, values)
    for name, value in arguments.items():
        if name in wrong and not isinstance(value, (list, tuple)):
            continue
        annotation = known[name].annotation if name in known else Any
        kind = kind_of(annotation, registry, name)
        for place, spec in outer_specs(value, (*path, name)):
            yield from _spec_problems(kind, spec, place)


def _loss_problems(task: Any, values: Mapping[str, Any]) -> Found:
    """Yield it if a config has no loss and its task needs one, or the other way round."""
    option = options_of(task).get("loss")
    if values.get("loss") is not None and option is None and not open_ended(task):
        nested = ", but its tasks do; move it there" if "tasks" in options_of(task) else "; remove it"
        yield ("loss",), f"of no use, since {task.__name__} takes none{nested}"
    elif values.get("loss") is None and "loss" not in meant(values) and option is not None and option.required:
        yield ("loss",), f"missing; the task {task.__name__} needs one"


def offered(registry: Registry[Any], factory: Any) -> set[str]:
    """Return the options that visreg sets unless a config does."""
    names = {name for slot in SLOTS.values() if slot.registry is registry for name in slot.offered}
    if registry.kind == "datasets":
        from visreg.datasets.adopted import defaults  # here, since it imports torch, as the factory's module has by now

        names |= defaults(factory).keys()
    return names


def _untyped(value: Any, path: ConfigPath) -> Found:
    """Yield each spec in ``value`` whose ``type`` is misspelt, so that it looks like plain data."""
    if not is_spec(value):
        words = [key for key, item in items(value) if isinstance(key, str) and isinstance(item, str)]
        yield from (((*path, key), "no such option; did you mean 'type'?") for key in nearest("type", words))
        for step, item in items(value):
            yield from _untyped(item, (*path, step))


def _type_problems(registry: Registry[Any], spec: Mapping[str, Any], path: ConfigPath) -> Found:
    if "type" in spec:
        yield (*path, "type"), f"expected a name from the {registry.kind}, got {spec['type']!r}"
    elif near := [key for key in spec if isinstance(key, str) and nearest(key, ["type"])]:
        yield (*path, near[0]), "no such option; did you mean 'type'?"
    else:
        yield path, f"no 'type', which names one of the {registry.kind}: {suggest('', registry).removeprefix('; ')}"


def _not_a_number(value: Any, path: ConfigPath) -> Found:
    if isinstance(value, float) and math.isnan(value):
        yield path, "is nan, which no option can mean"
    for step, item in items(value):
        yield from _not_a_number(item, (*path, step))
