"""Measures what a training loop costs beside the step itself: CPU time per step, over the same loop written by hand.

    python tools/benchmarks/loop.py [--only NAME ...] [--after STEPS | --million] [--rounds N] [--steps N] [--markdown]

The step is that of one ``Linear(8, 8)``: a batch of 8 by index from memory, forward, cross entropy, backward, SGD,
``zero_grad``. visreg and the other frameworks that are installed (``python -m pip install -e '.[bench]'``) run it with
what they do by default, and with all switched off that can be. Each contender is in a process of its own with one
thread, and they take turns of a few hundred steps, so that whatever else the machine does is the same for all. A line
has the CPU time of a step, and what it is more than the bare loop's of the same round, as median with least and most.

``--after 1000000`` lets every contender take so many steps first: a loop that keeps something of every step gets
slower. ``--million`` has visreg beside itself: one at its thousandth step, one at its millionth. ``--markdown`` writes
the README's table.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from peers import PEERS, Fit, Loader, installed
from results import command, machine, show, summary
from torch import Tensor, nn

T = TypeVar("T")

BATCH, STEPS_PER_EPOCH, EPOCHS = 8, 100_000, 100_000
YOUNG, OLD = 1000, 1_000_000  # steps
OFF = ", all off"


def main() -> None:
    """Measure and print, or be one of those that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=[], help="those, and the bare loop")
    parser.add_argument(
        "--after", type=int, default=YOUNG, help="steps to take before any is measured; 1000 by default"
    )
    parser.add_argument("--million", action="store_true", help="visreg at step one thousand and at step one million")
    parser.add_argument("--rounds", type=int, default=40, help="how many turns each has; 40 by default")
    parser.add_argument("--steps", type=int, default=500, help="steps of a turn; 500 by default")
    parser.add_argument("--markdown", action="store_true", help="write the README's table")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EOFError):
            os.chdir(folder)
            CONTENDERS[options.contender](Turns(options.after, options.steps))
        return
    print(machine(), flush=True)
    there = installed()
    for name in [name for name in PEERS if name not in there]:
        print(f"{name} is not installed")
    if options.million:
        compared = [("bare", YOUNG), *((name, after) for name in ("visreg", f"visreg{OFF}") for after in (YOUNG, OLD))]
    else:
        names = options.only or [name for name in CONTENDERS if name.split(",")[0] in ("visreg", *there)]
        compared = [(name, options.after) for name in dict.fromkeys(["bare", *names])]
    times = measure(compared, options)
    report(times)
    if options.markdown:
        table(times, there)


def measure(compared: list[tuple[str, int]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the CPU time of a step, in µs, of each contender and number of steps before, in each round."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    several = len({after for _, after in compared}) > 1
    processes: dict[str, subprocess.Popen[str]] = {}
    for name, after in compared:
        shown = f"{name}, after {after:,}" if several and name != "bare" else name
        arguments = [f"--contender={name}", f"--after={after}", f"--steps={options.steps}"]
        processes[shown] = subprocess.Popen(
            [sys.executable, Path(__file__).resolve(), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(options.rounds + 1):  # the first is of those steps that are not measured
        for name in [*processes] if number % 2 else reversed(processes):
            seconds = turn(name, processes[name])
            if number:
                times[name].append(1e6 * seconds / options.steps)
    for process in processes.values():
        process.kill()
        process.wait()
    return times


def turn(name: str, process: subprocess.Popen[str]) -> float:
    """Let a contender take its turn, and return how much CPU time that took, in seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("go\n")
        process.stdin.flush()
    for line in process.stdout:  # frameworks print
        if "turn " in line:  # some leave their line unfinished
            return float(line.partition("turn ")[2])
    raise SystemExit(f"{name} ended: run with --contender={name!r} to see why")


class Turns:
    """Hands on batches, and after each turn's last step says how long it took and waits to be told to go on."""

    def __init__(self, after: int, steps: int) -> None:
        self.steps, self.left = steps, after
        self.begun = -1.0

    def __call__(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield ``batches``."""
        for batch in batches:
            if self.left == 0 or self.begun < 0:
                self._next()
            self.left -= 1
            yield batch

    def _next(self) -> None:
        ended = time.process_time()
        if self.begun >= 0:
            print("turn", ended - self.begun, file=sys.__stdout__, flush=True)
            self.left = self.steps
        if not sys.stdin.readline():
            raise EOFError
        self.begun = time.process_time()


def report(times: dict[str, list[float]]) -> None:
    """Print what was measured."""
    for name, values in times.items():
        more = [one - other for one, other in zip(values, times["bare"], strict=True)]
        ratios = [one / other for one, other in zip(values, times["bare"], strict=True)]
        print(f"{name:32} {summary(values, '.1f')} µs   {summary(more, '+.1f')} µs   x {summary(ratios, '.2f')}")


def table(times: dict[str, list[float]], there: dict[str, str]) -> None:
    """Write the README's table."""
    from visreg import __version__

    def cell(name: str) -> str:
        if name not in times:
            return ""
        more = [one - other for one, other in zip(times[name], times["bare"], strict=True)]
        return summary(more, ".0f")

    names = [name for name in times if name != "bare" and not name.endswith(OFF)]
    versions = {"visreg": __version__, **there}
    rows = [[f"{name} {versions[name]}", cell(name), cell(f"{name}{OFF}")] for name in names]
    bare = f"The bare step took {statistics.median(times['bare']):.0f} µs;"
    show("loop", ["", "as shipped, µs", "all switched off, µs"], rows, [bare, f"{machine()}; {command('loop.py')}."])


# What all contenders train, and on what


def data() -> tuple[Tensor, Tensor]:
    """Return images (N, 8), float32, and labels (N,), int64, of one epoch."""
    generator = torch.Generator().manual_seed(0)
    size = BATCH * STEPS_PER_EPOCH
    return torch.randn(size, 8, generator=generator), torch.randint(8, (size,), generator=generator)


def parts() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """Return the model, the loss and the optimizer."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    return model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.01)


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch, by index from memory."""
    for indices in torch.split(torch.randperm(len(images)), BATCH):
        yield images.index_select(0, indices), labels.index_select(0, indices)


def bare(turns: Turns) -> None:
    """Run the loop as one writes it by hand."""
    images, labels = data()
    model, criterion, optimizer = parts()
    while True:
        for image, label in turns(batches(images, labels)):
            loss = criterion(model(image), label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def visreg(turns: Turns, default_hooks: bool = True) -> None:
    """Run visreg's loop, as it is by default, or with no hooks and no look for numbers that are not finite."""
    from visreg import HOOKS, Runner, Task
    from visreg.batching import Batching
    from visreg.data import Batch, DataInfo, Predictions
    from visreg.loader import TensorLoader
    from visreg.schema import DEFAULT_HOOKS
    from visreg.signals import Signals

    class Linear(Task):
        def __init__(self, model: nn.Module, loss: nn.Module) -> None:
            super().__init__()
            self.model, self.loss = model, loss

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": self.loss(self.model(batch["image"]), batch["label"])}

        def predict(self, batch: Batch) -> Predictions:
            return {"label": self.model(batch["image"]).argmax(1)}

    class InTurns(TensorLoader):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            return turns(super().epoch(epoch, start))

    images, labels = data()
    model, criterion, optimizer = parts()
    batching = Batching(size=len(images), batch_size=BATCH, train=True, seed=0)
    tensors = {"image": images, "label": labels}
    with Signals() as signals:
        runner = Runner(
            task=Linear(model, criterion),
            optimizer=optimizer,
            train_loader=InTurns(info=DataInfo(name="random"), tensors=tensors, batching=batching),
            hooks=[HOOKS.build(dict(spec)) for spec in DEFAULT_HOOKS] if default_hooks else [],
            total_steps=10**9,
            on_nan="stop" if default_hooks else "ignore",
        )
        runner.signals = signals
        runner.train()


def peer(name: str, bare: bool, turns: Turns) -> None:
    """Run another framework's loop."""
    images, labels = data()
    fit = PEERS[name][2]
    train = Loader(lambda: turns(batches(images, labels)), STEPS_PER_EPOCH)
    fit(Fit(*parts(), train=train, test=None, epochs=EPOCHS, folder=".", bare=bare))


CONTENDERS: dict[str, Callable[[Turns], Any]] = {
    "bare": bare,
    "visreg": visreg,
    f"visreg{OFF}": functools.partial(visreg, default_hooks=False),
}
for each in PEERS:
    CONTENDERS[each] = functools.partial(peer, each, False)
    if each != "Accelerate":  # which does nothing that could be switched off
        CONTENDERS[f"{each}{OFF}"] = functools.partial(peer, each, True)

if __name__ == "__main__":
    main()
