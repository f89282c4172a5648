"""Measures `configs/speed_cifar10.py` beside the same recipe written by hand, on the same device.

    python tools/benchmarks/speed_cifar10.py [--device cuda] [--epochs N] [--runs N] [--data cifar10_jpeg]

The two take turns in one process, after a run of each that is not counted, in which everything is compiled. Measured is
the time, on a CPU its own, from the images in memory to the end of training and its evaluation, six views of each test
image included; a line has the median with the least and the most, and the accuracy, and the last one the ratio, round
by round. ``--data`` names a folder with ``train`` and ``test`` in the place of CIFAR-10's own files. On a CPU, try

    python tools/benchmarks/speed_cifar10.py --device cpu --images 2048 --widths 8 16 16 --compile '' --epochs 2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from results import machine, summary
from torch import Tensor, nn
from torch.nn import functional

from visreg import MODELS, Runner, build_runner, load_config
from visreg.config import Config

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "speed_cifar10.py"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
BATCH, LR, BIAS_LR, DECAY, MOMENTUM = 1024, 1.5, 64, 1.33e-3, 0.85
EVERY, ALPHA, POWER = 5, 0.23, 3
Batches = Iterable[tuple[Tensor, Tensor]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--epochs", type=int, default=12, help="12 by default")
    parser.add_argument("--runs", type=int, default=5, help="how often each has its turn; 5 by default")
    parser.add_argument("--data", help="a folder of images with train and test; CIFAR-10's files by default")
    parser.add_argument("--images", type=int, help="of training, so many of them; all by default")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 256], help="channels of the blocks")
    parser.add_argument("--compile", default="reduce-overhead", help="the mode, or '' for not")
    options = parser.parse_args()
    if options.images is not None and options.images < BATCH:
        parser.error(f"argument --images: a batch takes {BATCH}, got {options.images}")
    print(torch.cuda.get_device_name() if options.device.startswith("cuda") else "no GPU", machine(), sep=", ")
    with tempfile.TemporaryDirectory() as folder:
        ways = {"by hand": lambda: by_hand(folder, options), "visreg": lambda: visreg(folder, options)}
        measured: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(options.runs + 1):
            for way in ways if number % 2 else reversed(ways):
                torch.manual_seed(number)
                seconds, accuracy = ways[way]()
                if number:
                    measured[way].append((seconds, accuracy))
                else:
                    print(f"{way}, with all that is done once: {seconds:.2f} s", flush=True)
    for way, pairs in measured.items():
        times, accuracies = ([pair[place] for pair in pairs] for place in (0, 1))
        print(f"{way:8} {summary(times, '.3f')} s   accuracy {statistics.mean(accuracies):.4f}")
    both = zip(measured["visreg"], measured["by hand"], strict=True)
    print(f"visreg / by hand {summary([one / other for (one, _), (other, _) in both], '.3f')}")


def config(folder: str, options: argparse.Namespace) -> Config:
    """Return the config as the options would have it."""
    changes = [
        f"run.device={options.device!r}", f"run.epochs={options.epochs}", f"run.eval_every={options.epochs}",
        f"run.compile={options.compile or False!r}", f"run.work_dir={folder!r}", f"model.widths={options.widths}",
        f"run.seed={torch.initial_seed()}", "default_hooks=[dict(type='Console'), dict(type='MetricsLog')]",
    ]  # fmt: skip
    for section, split in (("train", "train"), ("val", "test")):
        if options.data:
            spec = {"type": "ImageFolder", "root": options.data, "split": split, "size": 32}
            changes.append(f"{section}.dataset={spec}")
    if options.images:
        inner = load_config(CONFIG, changes).values["train"]["dataset"]
        changes.append(f"train.dataset={dict(type='Subset', dataset=inner, count=options.images)}")
    return load_config(CONFIG, changes)


def spent(begun: float, device: str) -> float:
    """Return the seconds since ``begun``, once the device is done; on a CPU, of its time."""
    if not device.startswith("cuda"):
        return time.process_time() - begun
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def visreg(folder: str, options: argparse.Namespace) -> tuple[float, float]:
    """Train by the config; return seconds and accuracy."""
    runner = build_runner(config(folder, options))
    begun = spent(0, options.device)
    runner.train()
    return spent(begun, options.device), runner.scores["accuracy"]


def by_hand(folder: str, options: argparse.Namespace) -> tuple[float, float]:
    """Train by the loop below, on images that visreg has read; return seconds and accuracy."""
    runner = build_runner(config(folder, options))
    images, labels, test, truth = held(runner)
    begun = spent(0, options.device)
    images, test = normalised(images), normalised(test)
    model = network(options.widths).to(images.device).to(memory_format=torch.channels_last)
    whiten(model, images[:5000])
    batches = (augmented(images, labels) for _ in range(options.epochs))
    train(model, batches, options.epochs * (len(images) // BATCH), options.compile, torch.bfloat16)
    accuracy = float((predicted(model, test, torch.bfloat16) == truth).float().mean())
    return spent(begun, options.device), accuracy


def held(runner: Runner) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of training, and of the test."""
    tensors: list[Tensor] = []
    for loader in (runner.train_loader, runner.val_loader):
        split: dict[str, Tensor] = loader.tensors  # type: ignore[union-attr]  # it is held in memory
        tensors += [split["image"], split["label"]]
    return tensors[0], tensors[1], tensors[2], tensors[3]


def network(widths: list[int]) -> nn.Module:
    """Return the network."""
    model: nn.Module = MODELS.build({"type": "AirbenchNet", "in_channels": 3, "num_classes": 10, "widths": widths})
    return model


# The recipe by hand


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images as the network takes them."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def whiten(model: Any, images: Tensor) -> None:
    """Set the first layer so that what it makes of patches is uncorrelated."""
    patches = functional.unfold(images, 2).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh((patches.T @ patches).double().cpu() / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).view(-1, 3, 2, 2)
    model.whiten.weight.copy_(torch.cat([filters, -filters]))


def augmented(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch, mirrored and shifted by up to 2 pixels at random."""
    count, device = len(images), images.device
    images = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, images.flip(-1), images)
    framed = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    places = torch.randint(5, (2, count, 1), device=device) + torch.arange(32, device=device)
    order = torch.randperm(count, device=device)
    for indices in torch.split(order, BATCH)[: count // BATCH]:
        rows, columns = places[:, indices]
        image = framed[indices[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        yield image, labels[indices]


def train(model: Any, epochs: Iterable[Batches], steps: int, mode: str, dtype: torch.dtype) -> list[Tensor]:
    """Train on the batches of each epoch, and return the losses."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name != "whiten.weight" and not ("norm" in name and name.endswith("weight")))
    model.train()
    optimizer = optimizer_of(model)
    slow = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}

    def loss_of(image: Tensor, label: Tensor) -> Tensor:
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(image)
        return functional.cross_entropy(logits.float(), label, label_smoothing=0.2)

    forward = torch.compile(loss_of, mode=mode) if mode else loss_of
    losses: list[Tensor] = []
    for epoch, batches in enumerate(epochs):
        model.whiten.bias.requires_grad_(epoch < 3)
        for image, label in batches:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(len(losses), steps)
            loss = forward(image, label)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach().clone())
            if len(losses) % EVERY == 0:
                look_ahead(model, slow, 1 - (1 - ALPHA) * (len(losses) / steps) ** POWER)
    model.load_state_dict(slow, strict=False)
    return losses


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Return Nesterov's SGD, with a much higher rate for the biases of normalisations."""
    norms = [value for name, value in model.named_parameters() if "norm" in name and name.endswith("bias")]
    others = [value for name, value in model.named_parameters() if name == "whiten.bias"]
    small = {id(value) for value in (*norms, *others)}
    groups: list[dict[str, Any]] = [
        {"params": [value for value in model.parameters() if id(value) not in small], "weight_decay": DECAY},
        {"params": others},
        {"params": norms, "lr": LR * BIAS_LR},
    ]
    fused = next(model.parameters()).is_cuda
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM, nesterov=True, fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def rate(step: int, steps: int) -> float:
    """Return what the learning rate of a step is multiplied by."""
    rise = int(0.23 * steps)
    if step < rise:
        return 0.2 + 0.8 * (step + 1) / (rise + 1)
    return 0.07 + 0.93 * (1 - (step - rise) / (steps - rise))


@torch.no_grad()
def look_ahead(model: nn.Module, slow: dict[str, Tensor], alpha: float) -> None:
    """Let slow weights follow the trained ones, and these take their place."""
    state = model.state_dict()
    weights = [state[name] for name in slow]
    torch._foreach_lerp_(list(slow.values()), weights, alpha)
    torch._foreach_copy_(weights, list(slow.values()))


@torch.no_grad()
def predicted(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the class of each image, by six views of it."""
    model.eval()
    found = []
    for image in torch.split(images, 2000):
        framed = functional.pad(image, (1, 1, 1, 1), mode="reflect")
        views = ((image, 0.25), (framed[..., 2:, 2:], 0.125), (framed[..., :-2, :-2], 0.125))
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            logits = sum(weight * (model(view) + model(view.flip(-1))).float() for view, weight in views)
        found.append(torch.as_tensor(logits).argmax(1))
    return torch.cat(found)


if __name__ == "__main__":
    main()
