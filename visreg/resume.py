"""Going on from a checkpoint: what has changed since it was made, and whether the end can still be the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from attrs import frozen

from visreg.config import ConfigPath, loads_json, show_path
from visreg.errors import CheckpointError, ConfigError, first
from visreg.schema import DEFAULT_HOOKS, SECTIONS

logger = logging.getLogger("visreg")

ABSENT = "(not given)"
MAX_THREADS = 1024  # that a checkpoint may ask for

# What may be changed between two lives of a run, by the longest path that fits; with what it decides. Changes of the
# first kind are refused, since the run would not end as one that had the new config from its start, nor as one that had
# the old to its end. Those of the second are only told.
BREAKING: Mapping[ConfigPath, str] = {
    ("task",): "what is learnt",
    ("model",): "the network",
    ("model", "weights"): "what training began with",
    ("loss",): "what is minimised",
    ("optimizer",): "how the weights are changed",
    ("param_groups",): "how the weights are changed",
    ("schedule",): "the learning rate",
    ("train",): "what is learnt from",
    ("train", "dataset"): "what is learnt from",
    ("train", "transforms"): "the augmentation",
    ("train", "batch_transforms"): "the augmentation",
    ("train", "draft"): "the pixels of images that are shrunk",
    ("train", "cache"): "the pixels of images that are shrunk, since whole ones are kept",
    ("train", "batch_size"): "what one step sees, and how many steps an epoch has",
    ("train", "drop_last"): "how many steps an epoch has",
    ("train", "shuffle"): "the order of the samples",
    ("train", "samples_per_epoch"): "how many steps an epoch has",
    ("train", "sampler"): "the order of the samples",
    ("train", "on_bad_sample"): "what is learnt from",
    ("train", "max_bad_samples"): "what is learnt from",
    ("run",): "how training computes",
    ("run", "seed"): "every random choice",
    ("run", "precision"): "the rounding of every product",
    ("run", "accumulate"): "the order of every sum over a batch",
    ("run", "compile"): "the order of sums",
    ("run", "channels_last"): "the order of sums",
    ("run", "deterministic"): "which algorithms compute",
    ("hooks",): "what is done to weights and gradients",
}
HARMLESS: Mapping[ConfigPath, str] = {
    ("train", "workers"): "no sample depends on it",
    ("train", "in_memory"): "the batches are the same, but for rounding on a GPU",
    ("train", "timeout"): "no sample depends on it",
    ("train", "dataset", "root"): "where the data is; its name, size and classes are compared",
    ("train", "dataset", "download"): "where the data comes from",
    ("run", "epochs"): "how long to train; the schedule becomes that of the new length",
    ("run", "steps"): "how long to train; the schedule becomes that of the new length",
    ("run", "eval_every"): "what is measured",
    ("run", "on_nan"): "what is done about numbers that are not finite",
    ("run", "max_rollbacks"): "what is done about numbers that are not finite",
    ("run", "work_dir"): "where the run's files are",
    ("run", "device"): "the last bits may differ",
    ("run", "gradient_checkpointing"): "what is kept in memory",
    ("val",): "what is measured",
    ("test",): "what is measured",
    ("metrics",): "what is measured",
    ("plugins",): "where components come from",
    ("hooks", "Checkpoint"): "what is kept",
    ("hooks", "Console"): "what is shown",
    ("hooks", "EarlyStopping"): "how long to train",
    ("hooks", "MetricsLog"): "what is written down",
    ("hooks", "Profiler"): "what is written down",
    ("hooks", "TensorBoard"): "what is written down",
}
MEASURED = frozenset({"val", "metrics", "eval_every"})  # what a schedule that waits for a score depends on


@frozen
class Change:
    """A value of a config that is another than in the checkpoint.

    Attributes:
        breaking: whether a resumed run could not end exactly as one that was never stopped.
        reason: what the value decides.
    """

    path: ConfigPath
    old: str
    new: str
    breaking: bool
    reason: str

    def __str__(self) -> str:
        return f"{show_path(self.path)}: {self.old} → {self.new} ({self.reason})"


class Cached(str):
    """Where samples are kept, which makes no difference: each place is like any other, and unlike none."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cached)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def check_config(state: Mapping[str, Any], config: Mapping[str, Any], override: bool = False) -> None:
    """Log what differs between the config that a checkpoint carries and the one to go on with.

    Args:
        state: the checkpoint.
        config: what the run is to go on with.
        override: accept every difference.

    Raises:
        CheckpointError: if the run could not end exactly as one that was never stopped; lists up to 20 differences.
    """
    try:
        changes = config_changes(loads_json(state["config"]), config)
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError) as error:  # anyone may have written it
        raise CheckpointError(f"the checkpoint carries no config: {error}") from error
    if not changes:
        return
    lines = "\n  ".join(first(map(str, changes)))
    if any(change.breaking for change in changes) and not override:
        raise CheckpointError(
            f"this config is not the checkpoint's, of step {state.get('step')}, and the run would not end as one that "
            f"was never stopped:\n  {lines}\nTake the changes back, train anew without --resume, or accept them with "
            "--resume-override: weights, optimizer state and position are then the checkpoint's, all else the config's"
        )
    logger.info("the config is not the checkpoint's:\n  %s", lines)


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return each value that differs between two configs, those that break exactness first."""
    waits = any(spec.get("monitor") for config in (old, new) for spec in _listed(config.get("schedule")))
    found = [_judged(*difference, waits) for difference in _differing(_normal(old), _normal(new), ())]
    return sorted(found, key=lambda change: not change.breaking)


def _judged(path: ConfigPath, old: Any, new: Any, waits: bool) -> Change:
    keys = [*path]
    if path[:2] == ("train", "dataset"):  # however deep in it
        keys = [*path[:2], path[-1]]
    if path[0] == "hooks" and len(path) > 1:  # a second one of its type is as the first
        keys[1] = str(keys[1]).partition("#")[0]
    prefixes = [tuple(keys[:length]) for length in range(len(keys), 0, -1)]
    rule = next((prefix for prefix in prefixes if prefix in BREAKING or prefix in HARMLESS), ())
    breaking, reason = rule not in HARMLESS, {**BREAKING, **HARMLESS}.get(rule, "unknown")
    if waits and MEASURED & {*path[:2]}:
        breaking, reason = True, "the score that the schedule waits for"
    return Change(path, _short(old), _short(new), breaking, reason)


def _normal(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without what is there by default, its hooks by their type."""
    normal = {key: value for key, value in config.items() if value not in (None, (), [])}
    for name, kind in SECTIONS.items():
        if isinstance(normal.get(name), Mapping):
            defaults = {field.name: field.default for field in attrs.fields(kind)}
            normal[name] = {
                key: value for key, value in normal[name].items() if value != defaults.get(key, attrs.NOTHING)
            }
    if isinstance(normal.get("train"), Mapping) and "cache" in normal["train"]:
        normal["train"]["cache"] = Cached(normal["train"]["cache"])
    normal["schedule"] = _listed(normal.get("schedule"))
    listed = [*config.get("hooks", ())]
    types = {hook["type"] for hook in listed}
    listed += [hook for hook in config.get("default_hooks", DEFAULT_HOOKS) if hook["type"] not in types]
    hooks: dict[str, Any] = {}
    for hook in listed:
        count = sum(name.split("#")[0] == hook["type"] for name in hooks)
        hooks[f"{hook['type']}#{count + 1}" if count else hook["type"]] = hook
    normal["hooks"] = hooks
    normal.pop("default_hooks", None)
    return normal


def _listed(specs: Any) -> list[Any]:
    return [specs] if isinstance(specs, Mapping) else list(specs or ())


def _differing(old: Any, new: Any, path: ConfigPath) -> Iterator[tuple[ConfigPath, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differing(old.get(key, ABSENT), new.get(key, ABSENT), (*path, key))
        if path == ("hooks",):
            orders = [[name for name in hooks if ("hooks", name) not in HARMLESS] for hooks in (old, new)]
            if sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]:
                yield path, orders[0], orders[1]
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _differing(*pair, (*path, index))
    elif old != new:
        yield path, old, new


def _short(value: Any, limit: int = 60) -> str:
    text = value if value is ABSENT else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def environment(device: torch.device) -> dict[str, Any]:
    """Return what the last bits of a result depend on besides the config."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"torch": str(torch.__version__), "device": name, "threads": torch.get_num_threads()}


def restore_environment(saved: Mapping[str, Any], device: torch.device) -> None:
    """Take as many threads as the checkpoint's run had, and say what else of the machine is another.

    Sums on a CPU are rounded differently by another number of threads.
    """
    threads = saved.get("threads")
    if isinstance(threads, int) and 0 < threads <= MAX_THREADS and threads != torch.get_num_threads():
        logger.info("computing with %d threads, as before, and not %d", threads, torch.get_num_threads())
        torch.set_num_threads(threads)
    now = environment(device)
    lines = [f"{key} {saved[key]} → {now[key]}" for key in saved if key in now and saved[key] != now[key]]
    if lines:
        logger.warning("the last bits may differ from those of a run that was never stopped: %s", ", ".join(lines))
