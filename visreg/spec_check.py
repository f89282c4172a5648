"""What is wrong with the specs of a config, each held against the signature of the component that it names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from visreg.config import ConfigPath
from visreg.contradictions import meant
from visreg.errors import BLAMES_PLUGIN, PluginError, RegistryError, nearest, suggest
from visreg.options import open_ended, options_of, problems
from visreg.registry import Registry, kind_of
from visreg.slots import NESTED, SLOTS, ModelKeys, Slot
from visreg.specs import is_spec, items, outer_specs

Found = Iterator[tuple[ConfigPath, str]]


def slot_problems(values: Mapping[str, Any], path: ConfigPath) -> Found:
    """Yield (path, message) of what is wrong with the specs in a config, or in the section of it at ``path``."""
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
