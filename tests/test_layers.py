"""Imports point down: a module may import what is on a lower floor, and nothing on its own or a higher one."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import visreg

ROOT = Path(visreg.__file__).parent
ZOOS = (
    "datasets", "hooks", "losses", "metrics", "models", "optimizers", "samplers", "schedules", "tasks", "transforms",
)  # fmt: skip
# From the ground up. A name stands for a module or a folder; a zoo's `__init__` holds a table of names only, which is
# why it is far below what the zoo's modules may import.
FLOORS = (
    {"errors", "faults", "specs"},
    {
        "dist",
        "annotations",
        "entry_points",
        "adopted",
        "archive",
        "generators",
        "run_lock",
        "snapshot",
        "whole_file",
        "colours",
        "phase",
    },
    {"options", "component", "signals", "sampler", "device", "random_draws", "picture", "slabs", "log", "legend"},
    {"registry", "data", "checkpoint", "config", "batching"},
    {"transform", "machine", "cache_file", "plugin_file", "slots"},
    {"tables", "schema", "worker", "misfit", "draw", "placement", "pages", "weights_file", "together", "cache"},
    {"task", "workers", "resume", "samples", "objects", "findings", "weights"},
    {"hook", "loader", "memory", "metric", "schedule", "finite", "state", "stream", "patterns"},
    {"step", "gradient_checkpointing", "callbacks"},
    {"rollback"},
    {"runner", *ZOOS},
    {"parts", "diagnosis", "leakage", "build_cache"},
    {"contradictions"},
    {"dry_run", "spec_check"},
    {"check"},
    {"build_data"},
    {"build"},
    {"bad_batch", "candidates", "data_check", "evaluate", "listing", "new_plugin", "image_files", "predictor"},
    {"contender"},
    {"benchmark", "predict", "view"},
    {"browse"},
    {"commands"},
    {"arguments"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def unit(path: Path) -> str:
    """Return what a file counts as: its module, its folder, or ``tables`` for the table of a zoo."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "tables" if first in ZOOS and path.name == "__init__.py" else first


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, unit) of every import of visreg's, in functions too, save those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_checkers = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inside in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("visreg."):
                yield node.lineno, named(name)


def named(name: str) -> str:
    """Return the unit that ``visreg.x.y`` is in; a zoo without a module of it is its table."""
    first, *rest = name.split(".")[1:]
    inside = rest and ((ROOT / first / f"{rest[0]}.py").exists())
    return "tables" if first in ZOOS and not inside else first


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = unit(path)
    assert here in HEIGHT, f"{path.name} is on no floor; add it to FLOORS"
    wrong = [
        f"{path}:{line}: {here} (floor {HEIGHT[here]}) imports {there} (floor {HEIGHT.get(there, '?')})"
        for line, there in imports(path)
        if there not in ("__version__", here) and HEIGHT.get(there, len(FLOORS)) >= HEIGHT[here]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("zoo", ZOOS)
def test_zoo_does_not_know_other_zoos_nor_the_run_nor_the_config(zoo):
    for path in (ROOT / zoo).rglob("*.py"):
        name = f"{zoo}/{path.name}"
        strangers = {there for _, there in imports(path)} & ({*ZOOS, "runner", "config", "schema", "check"} - {zoo})
        assert not strangers, f"{name} imports {strangers}"


@pytest.mark.parametrize("zoo", ZOOS)
def test_table_of_a_zoo_imports_the_registry_only(zoo):
    assert {there for _, there in imports(ROOT / zoo / "__init__.py")} <= {"registry", "adopted"}


def test_every_name_on_a_floor_exists():
    assert [name for name in HEIGHT if name != "tables" and not list(ROOT.glob(f"{name}*"))] == []


@pytest.mark.parametrize(
    ("what", "unwanted"),
    [
        (["-c", "import visreg"], ("torch", "torchvision", "rich")),
        (["-m", "visreg", "--help"], ("torch", "torchvision", "rich")),
        (["-m", "visreg", "train", "--help"], ("torch", "torchvision", "visreg.run_lock")),
        (["-m", "visreg", "predict", "--help"], ("torch", "torchvision", "PIL")),
        (["-m", "visreg", "list"], ("torch", "torchvision", "rich", "socket", "visreg.spec_check")),
        (["-m", "visreg", "check", str(ROOT.parent / "configs" / "cnn_mnist.py")], ("torchvision", "rich")),
        (["-c", "import visreg; [list(kind) for kind in visreg.registry.KINDS.values()]"], ("torch", "torchvision")),
        (["-c", "import visreg; visreg.OPTIMIZERS.get('SGD')"], ("torchvision",)),
    ],
    ids=["import visreg", "--help", "train --help", "predict --help", "list", "check", "listing names", "an optimizer"],
)
def test_nothing_is_imported_before_it_is_needed(what, unwanted):
    done = subprocess.run([sys.executable, "-X", "importtime", *what], capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "visreg.errors" in imported
    assert imported.isdisjoint(unwanted)
