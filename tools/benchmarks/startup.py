"""Measures what comes before the first step: imports, the command line, reading a config, building a component.

    python tools/benchmarks/startup.py [--rounds N]

Processes take turns, and each line has the CPU seconds of one as median with least and most, and how much more than
``python -c pass`` that is. A config that inherits is read as a run reads it, mmengine's way beside it if it is there.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import ROOT, machine, summary

PROCESSES = {
    "python -c pass": ["-c", "pass"],
    "import visreg": ["-c", "import visreg"],
    "visreg --help": ["-m", "visreg", "--help"],
    "visreg list": ["-m", "visreg", "list"],
    "import torch": ["-c", "import torch"],
    "visreg check": ["-m", "visreg", "check", str(ROOT / "configs" / "cnn_mnist.py")],
}
DERIVED = '_base_ = "{}"\noptimizer = dict(lr=0.02)\nrun = dict(epochs=3)\n'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often each has its turn; 10 by default")
    rounds = parser.parse_args().rounds
    print(machine())
    times: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for _ in range(rounds):
        for name, arguments in PROCESSES.items():
            times[name].append(process(arguments))
    for name, values in times.items():
        more = [one - other for one, other in zip(values, times["python -c pass"], strict=True)]
        print(f"{name:16} {summary(values, '.3f')} s   {summary(more, '+.3f')} s")
    within(rounds)


def process(arguments: list[str]) -> float:
    """Return the CPU seconds that a Python process takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def within(rounds: int) -> None:
    """Measure what one process does often."""
    sys.path.insert(0, str(ROOT))
    from visreg import HOOKS, load_config

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "derived.py"
        file.write_text(DERIVED.format(ROOT / "configs" / "cnn_mnist.py"))
        ways: dict[str, Callable[[], Any]] = {"a config that inherits": lambda: load_config(file)}
        if importlib.util.find_spec("mmengine"):
            config = importlib.import_module("mmengine.config").Config
            ways["the same in mmengine"] = lambda: config.fromfile(file)
        spec, kind = {"type": "EarlyStopping", "monitor": "accuracy"}, HOOKS.get("EarlyStopping")
        ways["a hook by its class"] = lambda: kind(monitor="accuracy")
        ways["a hook from a spec"] = lambda: HOOKS.build(spec)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(10 * rounds + 1):  # the first warms up
            for way, function in ways.items():
                before = time.process_time()
                for _ in range(10):
                    function()
                if number:
                    times[way].append(1e5 * (time.process_time() - before))
        for way, values in times.items():
            print(f"{way:24} {summary(values, '.1f')} µs")


if __name__ == "__main__":
    main()
