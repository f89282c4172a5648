"""What the benchmarks of this folder share: ratios as text, the machine, and the tables of the README."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TABLES = ("loop", "mnist", "augmentation")  # those that the README shows


def summary(values: Sequence[float], form: str) -> str:
    """Return the median, least and most of some values.

    >>> summary([1.0, 3.0, 2.0], ".1f")
    '2.0 (1.0 to 3.0)'
    """
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def machine() -> str:
    """Return on what something was measured, and with which versions."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    processor = model or platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def markers(name: str) -> tuple[str, str]:
    """Return what a table stands between in the README."""
    return f"<!-- benchmark: {name} -->", f"<!-- end of benchmark: {name} -->"


def show(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Put a table into the README in place of the one that is there, with notes below."""
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    begin, end = markers(name)
    before, _, rest = README.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    text = "\n\n".join([begin, table, " ".join(notes), end])
    README.write_text(f"{before}{text}{after}", encoding="utf-8")


def command(script: str) -> str:
    """Return how this benchmark was called, for a note."""
    arguments = " ".join(argument for argument in sys.argv[1:] if argument != "--markdown")
    return f"`python tools/benchmarks/{script} {arguments}".rstrip() + "`"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
