"""Measures one epoch of MNIST's ConvNet, with its evaluation, beside the same recipe written by hand and others' ways.

    VISREG_DATA=DIR python tools/benchmarks/mnist.py [--only NAME ...] [--rounds N] [--markdown]

The ways are: a loop by hand over tensors in memory (1.00), and in the settings of ``configs/cnn_mnist.py``; the loop of
PyTorch's tutorial over torchvision's dataset and a DataLoader; visreg with plain settings, as the config is shipped,
and with the fastest settings, which change nothing but rounding; and each of the other frameworks that is installed
(``python -m pip install -e '.[bench]'``), fed as in the tutorial. Each epoch is in a process of its own with one
thread, they take turns, and what is compared is the CPU time from the start of training to its end: the median of the
ratios, round by round, with the least and the most, and the accuracy. ``--markdown`` writes the README's table.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import PEERS, Fit, installed
from results import ROOT, command, machine, show, summary
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

CONFIG = ROOT / "configs" / "cnn_mnist.py"
MEAN, STD = 0.1307, 0.3081
PLAIN = ("run.channels_last=False", "run.precision='fp32'", "optimizer.fused=None")
BEST = ("run.channels_last=True", "run.precision='bf16'", "optimizer.fused=True")

Measured = tuple[float, float]  # CPU seconds, and accuracy 0..1


def main() -> None:
    """Measure and print, or be one of those that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=[], help="these ways, and the first")
    parser.add_argument("--rounds", type=int, default=5, help="how often each way has its turn; 5 by default")
    parser.add_argument("--markdown", action="store_true", help="write the README's table")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            seconds, accuracy = WAYS[options.way](folder)
        print("\nmeasured", seconds, accuracy)
        return
    there = installed()
    print(machine(), *(f"{name} {version}" for name, version in there.items()), sep=", ", flush=True)
    names = options.only or [way for way in WAYS if way not in PEERS or way in there]
    names = list(dict.fromkeys([FIRST, *names]))
    measured: dict[str, list[Measured]] = {way: [] for way in names}
    for number in range(options.rounds):
        for way in names if number % 2 else reversed(names):
            measured[way].append(run(way))
    report(measured, there, options.markdown)


def run(way: str) -> Measured:
    """Return the CPU seconds and the accuracy of one epoch in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).resolve()), f"--way={way}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("measured")]
    if not lines:
        raise SystemExit(f"{way} failed:\n{done.stderr}")
    return float(lines[0][1]), float(lines[0][2])


def report(measured: dict[str, list[Measured]], there: dict[str, str], markdown: bool) -> None:
    """Print what was measured, and write the README's table if asked for."""
    rows = []
    for way, pairs in measured.items():
        ratios = [seconds / other for (seconds, _), (other, _) in zip(pairs, measured[FIRST], strict=True)]
        seconds = statistics.median(seconds for seconds, _ in pairs)
        rows.append([f"{way} {there.get(way, '')}".strip(), summary(ratios, ".2f"), f"{pairs[-1][1]:.2%}"])
        print(f"{rows[-1][0]:34} {rows[-1][1]}   {seconds:6.2f} s   accuracy {rows[-1][2]}")
    if markdown:
        first = statistics.median(seconds for seconds, _ in measured[FIRST])
        notes = [f"The first took {first:.1f} s of CPU time;", f"{machine()}; {command('mnist.py')}."]
        show("mnist", ["one epoch of MNIST", "CPU time", "accuracy"], rows, notes)


def visreg(folder: str, *settings: str) -> Measured:
    """Train by the config, with ``settings``."""
    from visreg import build_runner, load_config

    runner = build_runner(load_config(CONFIG, ["run.epochs=1", f"run.work_dir={folder!r}", *settings]))
    before = time.process_time()
    runner.train()
    return time.process_time() - before, runner.scores["accuracy"]


def parts(*settings: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the config's model and optimizer, with ``settings``."""
    from visreg import MODELS, load_config

    config: dict[str, Any] = load_config(CONFIG, settings).values
    model: nn.Module = MODELS.build(config["model"])
    if config["run"].get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    options = {name: value for name, value in config["optimizer"].items() if name != "type"}
    return model, torch.optim.SGD(model.parameters(), **options)


def normalised(image: Tensor) -> Tensor:
    """Return uint8 images as the model takes them."""
    return (image.float() / 255 - MEAN) / STD


def by_hand(folder: str, *settings: str) -> Measured:
    """Train on tensors in memory, by index."""
    from visreg import DATASETS

    train, test = (DATASETS.build({"type": "MNIST", "train": train}) for train in (True, False))
    for dataset in (train, test):
        dataset.open()
    held, held_out = train.tensors(), test.tensors()
    assert held is not None
    assert held_out is not None
    image, label, image_test, label_test = held["image"], held["label"], held_out["image"], held_out["label"]
    model, optimizer = parts(*settings)
    before = time.process_time()
    model.train()
    for indices in torch.split(torch.randperm(len(label)), 64):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(normalised(image[indices])), label[indices])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    model.eval()
    right = 0
    with torch.no_grad():
        for some, wanted in zip(torch.split(image_test, 1000), torch.split(label_test, 1000), strict=True):
            right += int((model(normalised(some)).argmax(1) == wanted).sum())
    return time.process_time() - before, right / len(label_test)


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return those of PyTorch's basic MNIST example."""
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    root = os.environ.get("VISREG_DATA", "data")
    train, test = (datasets.MNIST(root, train=train, transform=transform) for train in (True, False))
    return DataLoader(train, 64, shuffle=True), DataLoader(test, 1000)


def tutorial(folder: str) -> Measured:
    """Train as PyTorch's basic MNIST example does."""
    train_loader, test_loader = loaders()
    model, optimizer = parts(*PLAIN)
    before = time.process_time()
    model.train()
    for image, label in train_loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(image), label)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    model.eval()
    right = size = 0
    with torch.no_grad():
        for image, label in test_loader:
            right, size = right + int((model(image).argmax(1) == label).sum()), size + len(label)
    return time.process_time() - before, right / size


def peer(name: str, folder: str) -> Measured:
    """Train by another framework, from its first step on."""
    module, _, fit = PEERS[name]
    importlib.import_module(module)
    model, optimizer = parts(*PLAIN)
    begun: list[float] = []

    def begin(module: nn.Module, inputs: Any) -> None:
        if not begun and module.training:
            begun.append(time.process_time())

    model.register_forward_pre_hook(begin)
    accuracy = fit(Fit(model, nn.CrossEntropyLoss(), optimizer, *loaders(), epochs=1, folder=folder))
    return time.process_time() - begun[0], accuracy


FIRST = "by hand, in memory"
WAYS: dict[str, Callable[[str], Measured]] = {
    FIRST: lambda folder: by_hand(folder, *PLAIN),
    "by hand, in the settings shipped": by_hand,
    "by hand, as in the tutorial": tutorial,
    "visreg, plain settings": lambda folder: visreg(folder, *PLAIN),
    "visreg, as shipped": visreg,
    "visreg, best settings": lambda folder: visreg(folder, *BEST),
    **{name: functools.partial(peer, name) for name in PEERS},
}

if __name__ == "__main__":
    main()
