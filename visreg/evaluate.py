"""Evaluating a checkpoint: its scores, as a table and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table

from visreg.build import build_evaluator
from visreg.checkpoint import load
from visreg.config import Config, apply_overrides, config_from, loads_json
from visreg.errors import CheckpointError, ResourceError


@frozen
class Result:
    """What an evaluation found.

    Attributes:
        data: the name of the dataset; a split of it was scored.
        scores: every metric's scores, by name.
        per_class: columns of one value for each class, by name.
    """

    checkpoint: Path
    step: int
    data: str
    split: str
    classes: tuple[str, ...]
    scores: dict[str, float]
    per_class: dict[str, list[float]]


def evaluate_checkpoint(
    path: Path,
    config: Config | None = None,
    split: str | None = None,
    overrides: Sequence[str] = (),
    plugin_files: Collection[Path] = (),
) -> Result:
    """Return the scores of a checkpoint on ``split``, by default on test if the config has it, else on val.

    Args:
        path: the checkpoint.
        config: by default the one that the checkpoint carries, with ``overrides``.
        split: ``"val"`` or ``"test"``.
        overrides: changes to the checkpoint's own config; a given config has had them.
        plugin_files: files that register components.

    Raises:
        CheckpointError: if it is damaged or does not fit the config.
    """
    state = load(path)
    if config is None:
        config = apply_overrides(config_from(loads_json(state["config"]), str(path)), overrides)
    split = split or ("test" if config.values.get("test") else "val")
    runner = build_evaluator(config, split, plugin_files)
    assert runner.val_loader is not None, "an evaluator has one"
    classes = runner.val_loader.info.classes
    if classes and state["classes"] and list(classes) != list(state["classes"]):
        raise CheckpointError(
            f"{path}: trained on the classes {_few(state['classes'])}, but {split} has {_few(classes)}; evaluate on the same"
        )
    runner.load_task(state)
    runner.load_hooks(state)
    scores = runner.evaluate()
    per_class = {name: column for metric in runner.metrics for name, column in metric.per_class().items()}
    return Result(path, state["step"], runner.val_loader.info.name, split, classes, scores, per_class)


def print_scores(result: Result) -> None:
    """Print the scores as a table, and another of what is known of each class."""
    console = Console()
    table = Table(
        title=f"{result.checkpoint.name} (step {result.step}), {result.split} on {result.data}", title_justify="left"
    )
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in result.scores.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    if result.per_class:
        _print_per_class(console, result)


def _print_per_class(console: Console, result: Result) -> None:
    table = Table("class", title="per class", title_justify="left")
    for column in result.per_class:
        table.add_column(column, justify="right")
    for index, row in enumerate(zip(*result.per_class.values(), strict=True)):
        table.add_row(_class_name(result, index), *(_number(value) for value in row))
    console.print(table)


def write_scores(result: Result, path: Path | None = None) -> None:
    """Write the scores as JSON, by default to ``test.json`` in the folder of the checkpoint's run.

    Raises:
        ResourceError: if it cannot be written.
    """
    folder = result.checkpoint.parent
    path = path or (folder.parent if folder.name == "checkpoints" else folder) / "test.json"
    names = [_class_name(result, index) for index in range(max(map(len, result.per_class.values()), default=0))]
    content: dict[str, Any] = {
        "checkpoint": str(result.checkpoint),
        "step": result.step,
        "data": result.data,
        "split": result.split,
        "scores": {name: _json(value) for name, value in result.scores.items()},
        "per_class": {
            column: dict(zip(names, map(_json, values), strict=True)) for column, values in result.per_class.items()
        },
    }
    try:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{path}: cannot write the scores: {error.strerror}; give --out FILE") from None


def _class_name(result: Result, index: int) -> str:
    return result.classes[index] if index < len(result.classes) else str(index)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}"


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
