"""A task, a loss or a metric that is wrong, tried once more without what is: one mistake is not to hide another."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import evolve, validators

from visreg.config import ConfigPath
from visreg.dry_run.run import dry_run_problems
from visreg.schema import Schema
from visreg.specs import Spec, all_specs, without

PARTS = ("task", "loss", "metrics")  # whose options say for themselves what is wrong with them


def all_dry_run_problems(
    schema: Schema, broken: Collection[ConfigPath] = (), weights: bool = True
) -> list[tuple[ConfigPath, str]]:
    """Return (path, message) of each mistake that shows when a config is built and run on blank data.

    Args:
        schema: the config.
        broken: places where it is known to be wrong, which are left alone.
        weights: whether to look at the files that models begin from, too.
    """
    found = dry_run_problems(schema, broken, weights)
    parts = {name: getattr(schema, name) for name in PARTS}
    specs = dict(all_specs(parts))
    options = {path: _option(path, specs) for path in (*broken, *(path for path, _ in found))}
    wrong = {option for option in options.values() if option}
    if not wrong:
        return found
    with validators.disabled():  # as in a schema of which parts are missing
        mended = evolve(schema, **without(parts, wrong))
    again = all_dry_run_problems(mended, [path for path in broken if not options[path]], weights)
    left = {place: spec for place, spec in all_specs(without(parts, wrong)) if any(o[:-1] == place for o in wrong)}
    return found + [each for each in again if each not in found and _is_certain(*each, left)]


def _option(path: ConfigPath, specs: Mapping[ConfigPath, Spec]) -> ConfigPath:
    """Return the path of the written option, of the innermost spec, that a mistake is in; nothing if it is in none."""
    place = max((place for place in specs if path[: len(place)] == place), key=len, default=path)
    option = path[len(place) :][:1]
    return (*place, *option) if option and option[0] != "type" and option[0] in specs[place] else ()


def _is_certain(path: ConfigPath, message: str, mended: Mapping[ConfigPath, Spec]) -> bool:
    """Return whether a mistake is about an option that was left, and does not follow from the lack of another."""
    place = max((place for place in mended if path[: len(place)] == place), key=len, default=None)
    if place is None:
        return False
    rest, spec = path[len(place) :], mended[place]
    quoted = (value for option, value in spec.items() if option != "type" and isinstance(value, str))
    return rest[0] in spec if rest else any(repr(value) in message for value in quoted)
