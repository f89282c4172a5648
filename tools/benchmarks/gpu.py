"""Measures what only a GPU can tell: images per second beside bare loops, and how long it waits for work.

    python tools/benchmarks/gpu.py [--device cuda] [--runs N] [--steps N]

``mnist``: an epoch of the ConvNet with its evaluation, beside PyTorch's tutorial script, which reads sample by sample.
``idle``: how long the device does nothing in a step of that training, by PyTorch's profiler; on a CPU there is none.
``resnet50``: training steps on uint8 images that are held on the device, in bf16, channels_last and compiled, beside a
bare loop of the same. Ways take turns in one process, after one turn that is not counted; a line has the median with
the least and the most. To try it on a CPU:

    python tools/benchmarks/gpu.py --device cpu --runs 1 --steps 2 --batch-size 2 --size 64 --compile ''
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from results import machine, summary
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from visreg import MODELS, OPTIMIZERS, Hook, Runner, build_runner, load_config
from visreg.batching import Batching
from visreg.data import DataInfo
from visreg.loader import TensorLoader
from visreg.registry import HOOKS
from visreg.schema import DEFAULT_HOOKS
from visreg.tasks.classification import Classification

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "cnn_mnist.py"
MEAN, STD = 0.1307, 0.3081
Ways = dict[str, Callable[[], float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("mnist", "idle", "resnet50"), help="some of the three")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=int, default=5, help="how often each way has its turn; 5 by default")
    parser.add_argument("--steps", type=int, default=50, help="of the ResNet-50, in a turn; 50 by default")
    parser.add_argument("--batch-size", type=int, default=256, help="of the ResNet-50; 256 by default")
    parser.add_argument("--size", type=int, default=224, help="height and width of its images; 224 by default")
    parser.add_argument("--compile", default="default", help="the mode to compile it in, or '' for not")
    options = parser.parse_args()
    print(torch.cuda.get_device_name() if options.device.startswith("cuda") else "no GPU", machine(), sep=", ")
    wanted = options.only or ["mnist", "idle", "resnet50"]
    with tempfile.TemporaryDirectory() as options.folder:
        if "mnist" in wanted:
            images = {"by hand": lambda: tutorial(options), "visreg": lambda: mnist(options)}
            compare("MNIST, images of training per second", turns(images, options.runs), "by hand")
        if "idle" in wanted:
            idle(options)
        if "resnet50" in wanted:
            ways = {"by hand": bare_resnet(options), "visreg": visreg_resnet(options)}
            compare("ResNet-50, images per second", turns(ways, options.runs), "by hand")


def turns(ways: Ways, runs: int) -> dict[str, list[float]]:
    """Return what each way gives in each of its turns, but the first."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(runs + 1):
        for way in ways if number % 2 else reversed(ways):
            found[way].append(ways[way]())
    return {way: values[1:] for way, values in found.items()}


def compare(title: str, found: dict[str, list[float]], base: str) -> None:
    """Print what was measured, and its ratio to one of the ways."""
    for way, values in found.items():
        ratios = [one / other for one, other in zip(values, found[base], strict=True)]
        print(f"{title}: {way:8} {summary(values, '.1f')}   x {summary(ratios, '.2f')}", flush=True)


def now(device: str) -> float:
    """Return the time, in seconds, once the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


# MNIST


def mnist_runner(options: argparse.Namespace, *settings: str) -> Runner:
    """Return what trains an epoch of the config."""
    changes = ["run.epochs=1", f"run.device={options.device!r}", f"run.work_dir={options.folder!r}", *settings]
    return build_runner(load_config(CONFIG, changes))


def mnist(options: argparse.Namespace) -> float:
    """Return images per second of an epoch by the config, evaluation included."""
    runner = mnist_runner(options)
    assert runner.train_loader is not None
    begun = now(options.device)
    runner.train()
    return runner.train_loader.samples / (now(options.device) - begun)


def tutorial(options: argparse.Namespace) -> float:
    """Return images per second of an epoch as PyTorch's basic MNIST example trains it."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    root = os.environ.get("VISREG_DATA", "data")
    train, test = (datasets.MNIST(root, train=train, transform=transform) for train in (True, False))
    spec = {"type": "ConvNet", "in_channels": 1, "image_size": 28, "num_classes": 10}
    model: nn.Module = MODELS.build(spec).to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    begun = now(options.device)
    for image, label in DataLoader(train, 64, shuffle=True, pin_memory=options.device.startswith("cuda")):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(image.to(options.device)), label.to(options.device))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for image, label in DataLoader(test, 1000):
            (model(image.to(options.device)).argmax(1) == label.to(options.device)).sum().item()
    return len(train) / (now(options.device) - begun)


class Window(Hook):
    """Profiles the steps from one to another."""

    def __init__(self, profiler: Any, start: int, end: int) -> None:
        self.profiler, self.start, self.end = profiler, start, end
        self.seconds = 0.0

    def before_step(self, runner: Runner) -> None:
        if runner.step == self.start:
            self.seconds = -now(runner.device.type)
            self.profiler.start()

    def between_steps(self, runner: Runner) -> None:
        if runner.step == self.end:
            self.seconds += now(runner.device.type)
            self.profiler.stop()
            runner.should_stop = True


def idle(options: argparse.Namespace) -> None:
    """Print how much of a step the device works."""
    if not options.device.startswith("cuda"):
        print("idle: there is no GPU to be idle")
        return
    for compiled in ("False", "'reduce-overhead'"):
        profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        runner, window = mnist_runner(options, f"run.compile={compiled}"), Window(profiler, 300, 400)
        with_window(runner, window).train()
        events: Any = profiler.events()  # type: ignore[no-untyped-call]  # torch's
        kernels = [each for each in events if str(each.device_type).endswith("CUDA") and not each.is_user_annotation]
        spans = sorted((each.time_range.start, each.time_range.end) for each in kernels)
        step, busy = 1e6 * window.seconds / 100, united(spans) / 100
        print(f"MNIST, compile={compiled}: a step {step:.0f} µs, of which the GPU works {busy:.0f} µs", flush=True)


def with_window(runner: Runner, hook: Hook) -> Runner:
    """Return the same run with one more hook."""
    return Runner(
        task=runner.task, optimizer=runner.optimizer, train_loader=runner.train_loader, hooks=[*runner.hooks, hook],
        total_steps=runner.total_steps, device=runner.device, compile=runner.compile, work_dir=runner.work_dir,
    )  # fmt: skip


def united(spans: list[tuple[float, float]]) -> float:
    """Return how much of a line is covered by spans, sorted by where they begin.

    >>> united([(0, 2), (1, 3), (5, 6)])
    4
    """
    total, end = 0.0, float("-inf")
    for first, last in spans:
        total, end = total + max(0, last - max(first, end)), max(end, last)
    return total


# ResNet-50


def resnet(options: argparse.Namespace) -> tuple[nn.Module, torch.optim.Optimizer, Tensor, Tensor]:
    """Return the network, its optimizer, and as many images and labels as there are in two batches."""
    torch.manual_seed(0)
    model = MODELS.build({"type": "resnet50"}).to(options.device).to(memory_format=torch.channels_last)
    fused = {"fused": True} if options.device.startswith("cuda") else {}
    spec = {"type": "SGD", "lr": 1e-3, "momentum": 0.9, **fused}
    count = 2 * options.batch_size
    images = torch.randint(0, 256, (count, 3, options.size, options.size), dtype=torch.uint8, device=options.device)
    labels = torch.randint(0, 1000, (count,), device=options.device)
    return model, OPTIMIZERS.build(spec, params=model.parameters()), images, labels


def bare_resnet(options: argparse.Namespace) -> Callable[[], float]:
    """Return what takes a turn of training steps by hand."""
    model, optimizer, images, labels = resnet(options)
    mean, std = (torch.tensor([value] * 3, device=options.device).view(3, 1, 1) for value in (0.45, 0.23))

    def loss_of(image: Tensor, label: Tensor) -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16):
            logits = model((image.float() / 255 - mean) / std)
        return functional.cross_entropy(logits.float(), label)

    forward = torch.compile(loss_of, mode=options.compile) if options.compile else loss_of

    def turn() -> float:
        begun = now(options.device)
        for _ in range(options.steps):
            indices = torch.randperm(len(images), device=options.device)[: options.batch_size]
            loss = forward(images[indices], labels[indices])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            optimizer.zero_grad()
        return float(options.steps * options.batch_size / (now(options.device) - begun))

    return turn


def visreg_resnet(options: argparse.Namespace) -> Callable[[], float]:
    """Return what takes a turn of training steps by visreg's runner, with its default hooks but checkpoints."""
    model, optimizer, images, labels = resnet(options)
    batching = Batching(size=len(images), batch_size=options.batch_size, train=True, seed=0)
    loader = TensorLoader(info=DataInfo(name="noise"), tensors={"image": images, "label": labels}, batching=batching)
    task = Classification(model, nn.CrossEntropyLoss(), mean=[0.45] * 3, std=[0.23] * 3).to(options.device)
    hooks = [HOOKS.build(spec) for spec in DEFAULT_HOOKS if spec["type"] != "Checkpoint"]
    runner = Runner(
        task=task, optimizer=optimizer, train_loader=loader, hooks=hooks, precision="bf16",
        compile=options.compile or False, device=torch.device(options.device), work_dir=Path(options.folder),
    )  # fmt: skip

    def turn() -> float:
        runner.total_steps += options.steps
        begun = now(options.device)
        runner.train()
        return float(options.steps * options.batch_size / (now(options.device) - begun))

    return turn


if __name__ == "__main__":
    main()
