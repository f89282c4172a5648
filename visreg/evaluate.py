"""Evaluating a checkpoint: its scores, as a table and as a file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Column, Table

from visreg.build import build_evaluator
from visreg.checkpoint import given, run_folder
from visreg.config import Config, apply_overrides, config_from, loads_json
from visreg.errors import ResourceError
from visreg.metric import Columns, known
from visreg.misfit import TO_USE, check_classes, check_form
from visreg.whole_file import write_whole

MAX_ROWS, MAX_COLUMNS = 100, 20  # of a table on a screen


@frozen
class PerClass:
    """What a metric found of each class.

    Attributes:
        classes: the name of each class, by index; empty where they are unknown.
        columns: one value for each class, by name.
    """

    classes: tuple[str, ...]
    columns: Columns

    def class_name(self, index: int) -> str:
        """Return what to call a class: its name if it has one, else its number."""
        return self.classes[index] if index < len(self.classes) else str(index)


@frozen
class Result:
    """What an evaluation found.

    Attributes:
        data: the name of the dataset; a split of it was scored.
        scores: every metric's scores, by name.
        per_class: what those metrics found of each class that say so.
    """

    checkpoint: Path
    step: int
    data: str
    split: str
    scores: dict[str, float]
    per_class: tuple[PerClass, ...]


def evaluate_checkpoint(
    path: Path,
    config: Config | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
    plugin_files: Collection[Path] = (),
) -> Result:
    """Return the scores of a checkpoint on ``split``, by default on test if the config has it, else on val.

    Args:
        path: the checkpoint, or a run's folder, of which it is the newest.
        config: by default the one that the checkpoint carries, with ``overrides``.
        split: ``"val"`` or ``"test"``.
        overrides: changes to the checkpoint's own config; a given config has had them.
        plugin_files: files that register components.

    Raises:
        CheckpointError: if it is damaged or does not fit the config.
    """
    state = given(path)
    check_form(state, TO_USE, "evaluated")
    if config is None:
        config = apply_overrides(config_from(loads_json(state["config"]), str(path)), overrides)
    split = split or ("test" if config.values.get("test") else "val")
    runner = build_evaluator(config, split, plugin_files)
    assert runner.val_loader is not None, "an evaluator has one"
    info = runner.val_loader.info
    check_classes(state, info)
    runner.load_task(state)
    runner.load_hooks(state)
    scores = runner.evaluate()
    tables = (table for metric in runner.metrics for table in metric.tables())
    per_class = tuple(PerClass(info.classes_of(key), columns) for key, columns in tables if columns)
    return Result(path, state["step"], info.name, split, scores, per_class)


def print_scores(result: Result) -> None:
    """Print the scores as a table, and what is known of each class as others, where they fit a screen."""
    console = Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 160)
    print(f"{result.checkpoint} (step {result.step}), {result.split} on {result.data}")
    table = Table("score", Column("value", justify="right"))
    for name, value in known(result.scores).items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    for found in result.per_class:
        columns = found.columns
        rows = max(map(len, columns.values()))
        if rows > MAX_ROWS or len(columns) > MAX_COLUMNS:
            print(f"{rows} classes × {len(columns)} columns ({', '.join([*columns][:3])}…): see test.json")
        elif columns:
            console.print(_class_table(found))


def _class_table(found: PerClass) -> Table:
    table = Table("class", *(Column(name, justify="right", no_wrap=True) for name in found.columns))
    texts = [_texts(values) for values in found.columns.values()]
    for index, row in enumerate(zip(*texts, strict=True)):
        table.add_row(found.class_name(index), *row)
    return table


def _texts(values: Sequence[float]) -> list[str]:
    """Return numbers as text: counts as whole numbers, shares with four decimals."""
    counts = all(float(value).is_integer() for value in values) and any(abs(value) > 1 for value in values)
    return [f"{value:.0f}" if counts else f"{value:.4f}" for value in values]


def write_scores(result: Result, path: Path | None = None) -> None:
    """Write the scores as JSON, by default to ``test.json`` in the folder of the checkpoint's run.

    Raises:
        ResourceError: if it cannot be written.
    """
    path = path or run_folder(result.checkpoint) / "test.json"
    content: dict[str, Any] = {
        "checkpoint": str(result.checkpoint),
        "step": result.step,
        "data": result.data,
        "split": result.split,
        "scores": {name: _json(value) for name, value in result.scores.items()},
        "per_class": {
            name: {found.class_name(index): _json(value) for index, value in enumerate(values)}
            for found in result.per_class
            for name, values in found.columns.items()
        },
    }
    try:
        write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ResourceError(f"{path}: cannot write the scores: {error.strerror}; give --out FILE") from None


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
