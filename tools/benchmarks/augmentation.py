"""Measures random transforms computed for whole batches, beside the same sample by sample in a DataLoader.

    python tools/benchmarks/augmentation.py [--only NAME ...] [--rounds N] [--images N] [--batch-size N] [--markdown]

Both make one epoch of batches of 32×32 colour images, bytes in memory, shuffled: torchvision's v2, or a few lines of
torch for what it lacks, out of a dataset that indexes a tensor, by a ``DataLoader`` with 0 workers; visreg by its own
loader. They take turns, on one thread, and CPU time is measured. A line has the time of an image in µs, and how many
times as many images visreg makes, as median with least and most over the rounds. ``--markdown`` writes the README's
table.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from results import command, machine, show, summary
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from visreg.batching import Batching
from visreg.data import DataInfo
from visreg.loader import TensorLoader
from visreg.machine import keep_freed_memory
from visreg.registry import TRANSFORMS

Mix = Callable[[Tensor, Tensor], tuple[Tensor, float]]

CROP: Mapping[str, Any] = {"type": "RandomCrop", "size": 32, "padding": 4}
FLIP: Mapping[str, Any] = {"type": "RandomHorizontalFlip"}
COLOUR: Mapping[str, Any] = {"type": "ColorJitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
ERASE: Mapping[str, Any] = {"type": "RandomErasing"}
SHIFT: Mapping[str, Any] = {"type": "RandomAffine", "degrees": 15, "translate": [0.1, 0.1]}
CLASSES = 10
LISTS: Mapping[str, list[Mapping[str, Any]]] = {
    "nothing": [],
    "crop": [CROP],
    "flip": [FLIP],
    "affine": [SHIFT],
    "affine, bilinear": [{**SHIFT, "interpolation": "bilinear"}],
    "rotation": [{"type": "RandomRotation", "degrees": 15}],
    "resized crop": [{"type": "RandomResizedCrop", "size": 32}],
    "colour": [COLOUR],
    "colour and hue": [{**COLOUR, "hue": 0.1}],
    "grey": [{"type": "RandomGrayscale", "p": 0.5}],
    "erasing": [ERASE],
    "CIFAR: crop, flip": [CROP, FLIP],
    "crop, flip, erasing": [CROP, FLIP, ERASE],
    "cutout": [{"type": "Cutout", "length": 16}],
    "mixup": [{"type": "MixUp", "num_classes": CLASSES}],
    "CutMix": [{"type": "CutMix", "num_classes": CLASSES}],
    "crop, flip, colour, erasing": [CROP, FLIP, COLOUR, ERASE],
}


class Images(TorchDataset[tuple[Tensor, Tensor]]):
    """Images out of a tensor, as a tutorial would have them; ``mix`` makes one of two."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor], mix: Mix | None) -> None:
        self.images, self.labels, self.transform, self.mix = images, labels, transform, mix

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.transform(self.images[index]), self.labels[index]
        if self.mix is None:
            return image, label
        other = random.randrange(len(self))
        image, share = self.mix(image, self.images[other])
        labels = (one_hot(each, CLASSES) for each in (label, self.labels[other]))
        return image, next(labels) * share + next(labels) * (1 - share)


def mixup(image: Tensor, other: Tensor) -> tuple[Tensor, float]:
    """Return the mean of two images, weighted at random, and the weight of the first."""
    share = random.betavariate(1, 1)
    return (image * share + other * (1 - share)).round().to(torch.uint8), share


def cutmix(image: Tensor, other: Tensor) -> tuple[Tensor, float]:
    """Return an image with a random rectangle of another one, and the share of the first."""
    top, bottom, left, right = square(image, math.sqrt(1 - random.betavariate(1, 1)) / 2)
    mixed = image.clone()
    mixed[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / image[0].numel()


def cutout(image: Tensor) -> Tensor:
    """Return an image with a square of 16 pixels covered."""
    top, bottom, left, right = square(image, 0.25)
    covered = image.clone()
    covered[:, top:bottom, left:right] = 0
    return covered


def square(image: Tensor, half: float) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of a part anywhere in an image, of twice ``half`` its height and width."""
    ends = []
    for side in image.shape[-2:]:
        middle, reach = random.randrange(side), int(side * half)
        ends += [max(0, middle - reach), min(side, middle + reach)]
    return ends[0], ends[1], ends[2], ends[3]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=LISTS, default=list(LISTS), metavar="NAME", help="some of the lists"
    )
    parser.add_argument("--rounds", type=int, default=7, help="how many turns each has; 7 by default")
    parser.add_argument("--images", type=int, default=5000, help="images of an epoch; 5000 by default")
    parser.add_argument("--batch-size", type=int, default=128, help="128 by default")
    parser.add_argument("--markdown", action="store_true", help="write the README's table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for both
    print(f"{machine()}, torchvision {torchvision.__version__}; batches of {options.batch_size}")
    rows = []
    for name in options.only:
        ours, theirs = epochs(LISTS[name], options)
        times = [(spent(ours), spent(theirs)) for _ in range(options.rounds + 1)][1:]
        pairs = [(1e6 * one / options.images, 1e6 * other / options.images) for one, other in times]
        one, other = (summary([pair[place] for pair in pairs], ".1f") for place in (0, 1))
        ratios = summary([other / one for one, other in pairs], ".1f")
        print(f"{name:28} visreg {one} µs   per sample {other} µs   x {ratios}", flush=True)
        rows.append([name, one, other, ratios])
    if options.markdown:
        notes = [f"{machine()}, torchvision {torchvision.__version__};", f"{command('augmentation.py')}."]
        show("augmentation", ["µs for an image", "visreg", "sample by sample", "times as many images"], rows, notes)


def epochs(specs: list[Mapping[str, Any]], options: argparse.Namespace) -> tuple[Callable[[], object], ...]:
    """Return what makes an epoch by visreg, and by torchvision."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (options.images,), generator=generator)
    batching = Batching(size=options.images, batch_size=options.batch_size, train=True, seed=0)
    mixes = {"MixUp": mixup, "CutMix": cutmix}
    loader = TensorLoader(
        info=DataInfo(name="noise"),
        tensors={"image": images, "label": labels},
        transforms=[TRANSFORMS.build(spec) for spec in specs if spec["type"] not in mixes],
        batch_transforms=[TRANSFORMS.build(spec) for spec in specs if spec["type"] in mixes],
        batching=batching,
    )
    made = [theirs(spec) for spec in specs if spec["type"] not in mixes] or [v2.Identity()]
    mix = next((mixes[spec["type"]] for spec in specs if spec["type"] in mixes), None)
    batches = DataLoader(Images(images, labels, v2.Compose(made), mix), options.batch_size, shuffle=True, num_workers=0)
    return lambda: [None for _ in loader.epoch(0)], lambda: [None for _ in batches]


def theirs(spec: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return torchvision's transform of a spec, or one like it."""
    if spec["type"] == "Cutout":
        return cutout
    words = {"interpolation": v2.InterpolationMode}
    arguments = {key: words.get(key, lambda value: value)(value) for key, value in spec.items() if key != "type"}
    made: Callable[[Tensor], Tensor] = getattr(v2, spec["type"])(**arguments)
    return made


def spent(make: Callable[[], object]) -> float:
    """Return the CPU time that something takes, in seconds."""
    begun = time.process_time()
    make()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
