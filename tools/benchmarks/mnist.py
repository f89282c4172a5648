"""Measures one epoch of MNIST's ConvNet, with its evaluation, beside the same recipe written by hand.

    VISREG_DATA=DIR python tools/benchmarks/mnist.py [--rounds N]

The ways are: a loop by hand over tensors in memory (1.00), the loop of PyTorch's tutorial over torchvision's dataset
and a DataLoader, visreg with ``configs/cnn_mnist.py`` in the same settings as the first, and visreg with settings that
change nothing but the last bits, or the precision. Each epoch is in a process of its own with one thread, they take
turns, and what is compared is the CPU time from the start of training to its end: the median of the ratios, round by
round, with the least and the most, and the accuracy.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "cnn_mnist.py"
MEAN, STD = 0.1307, 0.3081


def main() -> None:
    """Measure and print, or be one of those that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way has its turn; 5 by default")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            seconds, accuracy = WAYS[options.way](folder)
        print("measured", seconds, accuracy)
        return
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}", flush=True)
    measured: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS if number % 2 else reversed(WAYS):
            measured[way].append(run(way))
    for way, pairs in measured.items():
        ratios = [seconds / other for (seconds, _), (other, _) in zip(pairs, measured[FIRST], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        median = statistics.median(seconds for seconds, _ in pairs)
        print(f"{way:34} {spread}   {median:6.2f} s   accuracy {pairs[-1][1]:.4f}")


def run(way: str) -> tuple[float, float]:
    """Return the CPU seconds and the accuracy of one epoch in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).resolve()), f"--way={way}"]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    _, seconds, accuracy = next(line for line in printed.splitlines() if line.startswith("measured")).split()
    return float(seconds), float(accuracy)


def visreg(folder: str, *settings: str) -> tuple[float, float]:
    """Train by the config, with ``settings``."""
    from visreg import build_runner, load_config

    runner = build_runner(load_config(CONFIG, ["run.epochs=1", f"run.work_dir={folder!r}", *settings]))
    before = time.process_time()
    runner.train()
    return time.process_time() - before, runner.scores["accuracy"]


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the config's model and optimizer."""
    from visreg import MODELS

    model: nn.Module = MODELS.build({"type": "ConvNet", "in_channels": 1, "image_size": 28, "num_classes": 10})
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)


def normalised(image: Tensor) -> Tensor:
    """Return uint8 images as the model takes them."""
    return (image.float() / 255 - MEAN) / STD


def by_hand(folder: str) -> tuple[float, float]:
    """Train on tensors in memory, by index."""
    from visreg import DATASETS

    train, test = (DATASETS.build({"type": "MNIST", "train": train}) for train in (True, False))
    for dataset in (train, test):
        dataset.open()
    held, held_out = train.tensors(), test.tensors()
    assert held is not None
    assert held_out is not None
    image, label, image_test, label_test = held["image"], held["label"], held_out["image"], held_out["label"]
    model, optimizer = parts()
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


def tutorial(folder: str) -> tuple[float, float]:
    """Train as PyTorch's basic MNIST example does."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    root = os.environ.get("VISREG_DATA", "data")
    train, test = (datasets.MNIST(root, train=train, transform=transform) for train in (True, False))
    train_loader, test_loader = DataLoader(train, 64, shuffle=True), DataLoader(test, 1000)
    model, optimizer = parts()
    before = time.process_time()
    model.train()
    for image, label in train_loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(image), label)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    model.eval()
    right = 0
    with torch.no_grad():
        for image, label in test_loader:
            right += int((model(image).argmax(1) == label).sum())
    return time.process_time() - before, right / len(test)


FIRST = "by hand, in memory"
WAYS: dict[str, Callable[[str], tuple[float, float]]] = {
    FIRST: by_hand,
    "by hand, as in the tutorial": tutorial,
    "visreg": lambda folder: visreg(folder, "run.channels_last=False"),
    "visreg, channels_last": lambda folder: visreg(folder, "run.channels_last=True"),
    "visreg, channels_last, bf16": lambda folder: visreg(folder, "run.channels_last=True", "run.precision=bf16"),
}

if __name__ == "__main__":
    main()
