"""Options of a config that are right by themselves but not together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import attrs

from visreg.config import ConfigPath, show_path
from visreg.errors import nearest
from visreg.options import options_of
from visreg.registry import DATASETS, SCHEDULES
from visreg.schema import DEFAULT_HOOKS, Schema
from visreg.specs import Spec, all_specs, is_spec, items

Found = Iterator[tuple[ConfigPath, str]]
FOLDING = ("folds", "fold", "stratify", "seed")  # what must be the same for two parts to be of the same folds
MANIFOLD = frozenset({"ClassBalanced", "CopyPaste", "Mosaic", "Repeat"})  # a sample of theirs is not one of the whole
ONLY_ONE = frozenset({"Checkpoint", "Console", "EMA", "MetricsLog", "Profiler", "TensorBoard"})


def contradictions(values: Mapping[str, Any]) -> Found:
    """Yield options that are right by themselves but not together."""
    yield from _contradictions_of_run(values)
    if values.get("val") is None:
        if values.get("metrics") and values.get("test") is None and "val" not in meant(values):
            yield ("metrics",), "nothing to measure on: there is neither val nor test"
    elif not values.get("metrics") and "metrics" not in meant(values):
        yield ("val",), "nothing to measure: there are no metrics"
    for name in ("train", "val", "test"):
        section = values.get(name)
        if isinstance(section, Mapping) and section.get("sampler") is not None:
            yield from _contradictions_of_sampler(name, section)
        if isinstance(section, Mapping) and section.get("in_memory") is True and section.get("cache") == "ram":
            yield (name, "cache"), f"of no use, since {name}.in_memory=True holds the samples in memory; remove it"
    yield from _contradictions_of_splits(values)
    schedule = values.get("schedule")
    for index, spec in enumerate(schedule if isinstance(schedule, (list, tuple)) else [schedule]):
        if isinstance(spec, Mapping):
            path = ("schedule",) if spec is schedule else ("schedule", index)
            waits = spec.get("type") == "ReduceLROnPlateau"
            if waits and spec.get("every") is not None:
                yield (*path, "every"), "of no use, since ReduceLROnPlateau moves on after evaluations; remove it"
            if not waits and spec.get("type") in SCHEDULES and spec.get("monitor") is not None:
                yield (*path, "monitor"), "of no use, since only ReduceLROnPlateau waits for a score; remove it"
    for key in ("hooks", "default_hooks"):
        yield from _repeated_hooks(key, values.get(key))


def _contradictions_of_sampler(name: str, section: Mapping[str, Any]) -> Found:
    if name != "train":
        yield (name, "sampler"), "of no use, since an evaluation takes every sample once; remove it"
    elif section.get("shuffle") is not None:
        yield (name, "shuffle"), "contradicts train.sampler, which decides the order; remove one of them"


def _contradictions_of_splits(values: Mapping[str, Any]) -> Found:
    """Yield the mistakes by which some of what is trained on is also evaluated on."""
    sections = {name: values.get(name) for name in ("train", "val", "test")}
    datasets = {name: each.get("dataset") for name, each in sections.items() if isinstance(each, Mapping)}
    for path, fold in (each for name, spec in datasets.items() for each in _folds_in(spec, (name, "dataset"))):
        for name in MANIFOLD & {str(spec["type"]) for _, spec in all_specs(fold.get("dataset"))}:
            yield (*path, "dataset"), f"{name} makes samples that would be in several folds; put KFold inside of {name}"
    train = datasets.pop("train", None)
    for name, other in datasets.items():
        if is_spec(train) and is_spec(other):
            yield from _shared_samples(train, other, name)


def _shared_samples(train: Spec, other: Spec, name: str) -> Found:
    """Yield the mistakes by which samples of ``train.dataset`` are also in the dataset of another split."""
    from visreg.leakage import overlap  # here, since it imports torch

    shared, mistaken = overlap(train, other), False
    for first, one in _folds_in(train, ("train", "dataset")):
        for path, fold in _folds_in(other, (name, "dataset")):
            if one.get("dataset") == fold.get("dataset"):
                for mistake in _unlike_folds(show_path(first), one, path, fold, shared):
                    mistaken = True
                    yield mistake
    if shared and not mistaken:
        advice = "take others, by the same Subset with rest=True, or by the same KFold with part='val'"
        if not any(_folds_in(train, ())):  # which are to be different
            advice += "; to watch the score on what is trained on, take all of it, by the very same dataset"
        yield (name, "dataset"), f"shares samples with train.dataset, which are trained on; {advice}"


def _unlike_folds(first: str, train: Spec, path: ConfigPath, fold: Spec, shared: bool) -> Found:
    """Yield in what two KFolds of one dataset differ by which they share samples, if they do."""
    known = options_of(DATASETS.get("KFold"))
    options = [(name, *(spec.get(name, known[name].default) for spec in (fold, train))) for name in FOLDING]
    wrong = [(name, mine, theirs) for name, mine, theirs in options if mine != theirs]
    for name, mine, theirs in wrong if shared else ():
        advice = f"is {mine!r}, and {theirs!r} in {first}, so that they share samples; make them the same"
        yield (*path, *[name] * (name in fold)), advice if name in fold else f"{name} {advice}"
    if train.get("part") == fold.get("part") and "part" in fold and (shared or not wrong):
        yield (*path, "part"), f"is {fold['part']!r} in {first} too, so that they share samples; give each its own"


def _folds_in(value: Any, path: ConfigPath) -> Iterator[tuple[ConfigPath, Spec]]:
    """Yield the path and the spec of each KFold in a part of a config that is not inside of another."""
    if is_spec(value) and value["type"] == "KFold":
        yield path, value
    else:
        for step, item in items(value):
            yield from _folds_in(item, (*path, step))


def _contradictions_of_run(values: Mapping[str, Any]) -> Found:
    run = values.get("run")
    if not isinstance(run, Mapping):
        return
    meant = {near for name in run if isinstance(name, str) for near in nearest(name, ("epochs", "steps"))}
    if run.get("epochs") is not None and run.get("steps") is not None:
        yield ("run", "steps"), "contradicts run.epochs; give one of them"
    if run.get("epochs") is None and run.get("steps") is None and not meant - {*run}:
        yield ("run",), "neither epochs nor steps; say how long to train"
    train = values.get("train")
    sizes = (run.get("accumulate"), train.get("batch_size") if isinstance(train, Mapping) else None)
    parts, size = (value if isinstance(value, int) else 0 for value in sizes)
    if parts > size > 0:
        yield ("run", "accumulate"), f"cuts a batch of {size} into {parts} parts; lower it or raise train.batch_size"
    rollback = run.get("on_nan") == "rollback"
    if rollback and not _has_hook(values, "Checkpoint"):
        yield ("run", "on_nan"), "goes back to the latest checkpoint, and none is saved; add the hook Checkpoint"
    if run.get("max_rollbacks") is not None and run.get("on_nan") != "rollback":
        yield ("run", "max_rollbacks"), "of no use without run.on_nan='rollback'; remove it"


def _has_hook(values: Mapping[str, Any], name: str) -> bool:
    sections = (values.get("hooks"), values.get("default_hooks", DEFAULT_HOOKS))
    specs = (spec for section in sections if isinstance(section, (list, tuple)) for spec in section)
    return any(isinstance(spec, Mapping) and spec.get("type") == name for spec in specs)


def _repeated_hooks(key: str, specs: Any) -> Found:
    """Yield hooks of which there are two that would write the same files, or undo each other's work."""
    first: dict[str, int] = {}
    for index, spec in enumerate(specs if isinstance(specs, (list, tuple)) else ()):
        name = spec.get("type") if isinstance(spec, Mapping) else None
        if name in ONLY_ONE and first.setdefault(name, index) != index:
            yield (key, index), f"a second {name}, beside {key}[{first[name]}]; keep one of them"


def meant(values: Mapping[str, Any]) -> set[str]:
    """Return the sections that are absent, and that an unknown top-level name may be a misspelling of."""
    known = section_names()
    names = [name for name in values if isinstance(name, str) and name not in known]
    return {near for name in names for near in nearest(name, [other for other in known if other not in values])}


@cache
def section_names() -> tuple[str, ...]:
    """Return the top-level names that a config may have."""
    return tuple(attrs.fields_dict(Schema))
