"""Measures what a checkpoint costs, beside PyTorch's own way of saving the same state.

    python tools/benchmarks/save.py [--folder DIR] [--rounds N] [--images N]

The state is that of a ResNet-50, 102 MB. All ways take turns in one run, so that whatever else the machine does is the
same for all. Each line is a median with the least and the most, in milliseconds, and the median of its ratio to plain
``torch.save`` in the same round. The stall is how long training waits for an asynchronous save; the last lines compare
it with a training step, and a step with a save beside it to one without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchvision.models import resnet50

from visreg.checkpoint import load, save
from visreg.snapshot import Writer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write; by default here; use a disk")
    parser.add_argument("--rounds", type=int, default=10, help="how often each way has its turn; 10 by default")
    parser.add_argument("--images", type=int, default=4, help="images of 224×224 in a training step; 4 by default")
    options = parser.parse_args()
    model = resnet50()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    state = {"visreg": "0", "task": model.state_dict(), "optimizer": optimizer.state_dict()}
    images = torch.randn(options.images, 3, 224, 224)
    writer = Writer()

    def step() -> None:
        model(images).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)

        def begin() -> None:
            writer.start(lambda copy: save(copy, folder / "copy.pt"), state, copied=True)

        ways: dict[str, Callable[[], Any]] = {
            "torch.save": lambda: plain(state, folder / "plain.pt"),
            "torch.save and fsync": lambda: plain(state, folder / "flushed.pt", flush=True),
            "save": lambda: save(state, folder / "whole.pt"),
            "save with a second name": lambda: save(state, folder / "best.pt", folder / "named.pt"),
            "load": lambda: load(folder / "whole.pt"),
            "step": step,
            "stall of an asynchronous save": begin,
            "step with that save beside it": step,
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):  # the first round warms up
            for way, function in ways.items():
                os.sync()
                before = time.perf_counter()
                function()
                if number:
                    times[way].append(1000 * (time.perf_counter() - before))
            if (error := writer.wait()) is not None:
                raise error
            for path in folder.iterdir():  # a run gives each of its checkpoints a new name, too
                path.unlink()
    report(times)


def plain(state: Any, path: Path, *, flush: bool = False) -> None:
    """Save as most programs do."""
    with path.open("wb") as file:
        torch.save(state, file)
        if flush:
            file.flush()
            os.fsync(file.fileno())


def report(times: dict[str, list[float]]) -> None:
    """Print what was measured."""
    for way, values in times.items():
        print(f"{way:30} {summary(values, '.0f')} ms   {ratio(times, way, 'torch.save')} x torch.save")
    print(f"an asynchronous save stalls training for {ratio(times, 'stall of an asynchronous save', 'step')} steps")
    print(f"a step beside a save takes {ratio(times, 'step with that save beside it', 'step')} steps")


def ratio(times: dict[str, list[float]], way: str, other: str) -> str:
    """Return the ratio of two ways, round by round."""
    return summary([one / two for one, two in zip(times[way], times[other], strict=True)], ".3f")


def summary(values: list[float], form: str) -> str:
    """Return the median, least and most of some values."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
