"""What hooks and schedules wait for, or change: scores that a metric must give, parameters that a model must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from visreg.config import ConfigPath
from visreg.diagnosis import message_of
from visreg.dry_run.learning import schedules_of
from visreg.dry_run.parts import Parts
from visreg.errors import ConfigError, suggest
from visreg.gradient_checkpointing import checkpoint_gradients
from visreg.hook import Hook
from visreg.hooks.freeze import Freeze
from visreg.hooks.whiten import Whiten
from visreg.metric import Metric
from visreg.patterns import matching_parameters
from visreg.registry import HOOKS
from visreg.specs import Spec
from visreg.task import Task


def check_scores(parts: Parts, metrics: Mapping[int, Metric]) -> dict[ConfigPath, Hook]:
    """Make sure that no two metrics give the same score, and that every score waited for is given.

    Returns:
        The hooks, by their paths.
    """
    names: list[str] = []
    hooks: dict[ConfigPath, Hook] = {}
    for index, metric in metrics.items():
        for name in set(names).intersection(metric.names()):
            parts.found.append((("metrics", index), f"gives a second score {name!r}; give it another name"))
        names += metric.names()
    for key in ("hooks", "default_hooks"):
        specs = getattr(parts.schema, key)
        for index, hook in parts.build_all(HOOKS, specs, (key,)).items():
            hooks[key, index] = hook
            for name in hook.monitors():
                _check_monitor(parts, name, names, (key, index), specs[index])
    for place, spec in schedules_of(parts):
        if spec["type"] == "ReduceLROnPlateau":
            _check_monitor(parts, spec.get("monitor"), names, place, spec)
    return hooks


def _check_monitor(parts: Parts, name: str | None, names: Sequence[str], path: ConfigPath, spec: Spec) -> None:
    key = next((key for key, value in spec.items() if value == name), "monitor")
    if parts.is_broken("metrics") or parts.is_broken("val"):
        return
    if parts.schema.val is None:
        parts.found.append(((*path, key), f"{spec['type']} waits for a score, and there is no val to measure it on"))
    elif name is None:
        parts.found.append((path, f"{spec['type']} needs monitor=…{suggest('', names)}"))
    elif name not in names:
        parts.found.append(((*path, key), f"no metric gives a score {name!r}{suggest(name, names)}"))


def check_patterns(parts: Parts, hooks: Mapping[ConfigPath, Hook], task: Task) -> None:
    """Make sure that what hooks such as Freeze are to change, and what is to be computed again, is there."""
    for place, hook in hooks.items():
        if type(hook).__module__.startswith("visreg.hooks."):
            for option in ("patterns", "exclude"):
                with _noted(parts, *place, option):
                    matching_parameters(task, getattr(hook, option, ()), type(hook).__name__)
        if isinstance(hook, (Freeze, Whiten)) and not any(path[: len(place)] == place for path, _ in parts.found):
            with _noted(parts, *place, "patterns" if isinstance(hook, Freeze) else "layer"):
                hook.chosen(task)
    if parts.schema.run is not None and not parts.is_broken("run", "gradient_checkpointing"):
        with _noted(parts, "run", "gradient_checkpointing"):
            checkpoint_gradients(task.model, parts.schema.run.gradient_checkpointing)


@contextmanager
def _noted(parts: Parts, *path: str | int) -> Iterator[None]:
    """Note what is said of patterns that mean nothing."""
    try:
        yield
    except ConfigError as error:
        parts.found.append((path, message_of(error).partition(": ")[2]))
