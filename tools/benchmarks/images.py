"""Measures how fast images in files become normalised training crops, beside torchvision's usual pipeline.

    python tools/benchmarks/images.py [--root DIR | --made HEIGHT WIDTH] [--resize N] [--rounds N] [--workers N ...]

Each way makes epochs of batches of random crops, resized to 224×224, flipped half of the time, and normalised floats in
the end. The usual one is torchvision's ``ImageFolder`` with transforms (v1) of Pillow's images, and a ``DataLoader``
with persistent workers. visreg is its own loader: without a cache, every epoch decoding; and with a cache, in memory
and on the disk, in the first epoch, which fills it, and in later ones. In each round all have one turn, on one thread.
The CPU time of all processes and the wall clock are measured; a line has the time of an image, and how many times as
fast as the usual pipeline it is, as median with least and most over the rounds; and a last one has the second epoch
of a cache beside an epoch that decodes. ``--root`` has a folder for each class; without it, images of 500×375 are made,
or of another size. With ``--resize`` both pipelines resize images to that shorter side first, which a cache then keeps.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing import active_children
from pathlib import Path
from typing import Any, Literal

import PIL
import torch
import torchvision
from PIL import Image, features
from results import machine, summary
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms as v1

from visreg.batching import Batching
from visreg.build_cache import open_cache
from visreg.datasets.folder import ImageFolder
from visreg.loader import SampleLoader
from visreg.machine import keep_freed_memory
from visreg.registry import TRANSFORMS
from visreg.tasks.images import ImageTask

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MADE = 200  # images, where no folder is given
USUAL, DECODING = "torchvision v1, Pillow, DataLoader", "visreg, decoding every epoch"
Times = tuple[float, float]  # of the CPU and on the wall, in seconds
Epoch = Callable[[], Iterable[Tensor]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="a folder with a folder of images for each class")
    parser.add_argument("--made", type=int, nargs=2, default=[375, 500], help="height and width of the images made")
    parser.add_argument("--resize", type=int, help="shorter side that images are resized to before they are cropped")
    parser.add_argument("--rounds", type=int, default=5, help="how many turns each way has; 5 by default")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="0 and 2 by default")
    parser.add_argument("--size", type=int, default=224, help="of the crops; 224 by default")
    parser.add_argument("--batch-size", type=int, default=32, help="32 by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for all
    jpeg = f"libjpeg{'-turbo' if features.check('libjpeg_turbo') else ''} {features.version('libjpeg_turbo')}"
    print(f"{machine()}, torchvision {torchvision.__version__}, Pillow {PIL.__version__} ({jpeg})")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VISREG_CACHE"] = f"{folder}/cache"
        root = options.root or str(make_images(Path(folder) / "images", *options.made))
        for workers in options.workers:
            measure(root, workers, options)


def measure(root: str, workers: int, options: argparse.Namespace) -> None:
    """Measure all ways with some workers, and print."""
    dataset = ImageFolder(root=root)
    dataset.open()
    ways = {USUAL: usual(root, workers, options), DECODING: ours(dataset, workers, options)}
    spent: dict[str, list[Times]] = {}
    for number in range(options.rounds + 1):
        found = {name: epoch_time(way) for name, way in ways.items()}
        kinds: tuple[Literal["ram", "disk"], ...] = ("ram", "disk")
        for kind in kinds:
            fresh = ours(dataset, workers, options, kind, number)
            found[f"visreg, cache={kind!r}, first epoch"] = epoch_time(fresh)
            found[f"visreg, cache={kind!r}, second epoch"] = epoch_time(fresh)
            found[f"visreg, cache={kind!r}, third epoch"] = epoch_time(fresh)
        for name, pair in found.items() if number else ():  # in the first round everything is warmed up
            spent.setdefault(name, []).append(pair)
    print(f"\n{len(dataset)} images, {workers} workers: ms of CPU and of wall clock per image, and times as fast")
    for name, times in spent.items():
        each = [f"{summary([1e3 * pair[place] / len(dataset) for pair in times], '.2f')} ms" for place in (0, 1)]
        print(f"{name:38} CPU {each[0]}, x {ratios(spent[USUAL], times, 0)}", end="")
        print(f"   wall {each[1]}, x {ratios(spent[USUAL], times, 1)}", flush=True)
    for name, times in spent.items():
        if "second" in name or "third" in name:
            print(f"{name:38} beside {DECODING}: CPU x {ratios(spent[DECODING], times, 0)}", end="")
            print(f"   wall x {ratios(spent[DECODING], times, 1)}", flush=True)


def usual(root: str, workers: int, options: argparse.Namespace) -> Epoch:
    """Return what makes epochs as a tutorial does."""
    steps: list[Any] = [
        v1.RandomResizedCrop(options.size),
        v1.RandomHorizontalFlip(),
        v1.ToTensor(),
        v1.Normalize(MEAN, STD),
    ]
    steps = [v1.Resize(options.resize), *steps] if options.resize else steps
    folder = torchvision.datasets.ImageFolder(root, v1.Compose(steps))
    loader: DataLoader[Any] = DataLoader(
        folder, options.batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: (image for image, _ in loader)


def ours(
    dataset: ImageFolder,
    workers: int,
    options: argparse.Namespace,
    cache: Literal["ram", "disk"] | None = None,
    turn: int = 0,
) -> Epoch:
    """Return what makes epochs as visreg does; ``turn`` makes of a cache on the disk another one."""
    specs: list[dict[str, Any]] = [
        {"type": "RandomResizedCrop", "size": options.size},
        {"type": "RandomHorizontalFlip"},
    ]
    specs = [{"type": "Resize", "size": options.resize}, *specs] if options.resize else specs
    transforms = [TRANSFORMS.build(spec) for spec in specs]
    kept = open_cache(cache, dataset, transforms, [{"turn": (turn, workers)}, *specs], True, False) if cache else None
    task, epochs = Normalising(), iter(range(1 << 30))
    batching = Batching(size=len(dataset), batch_size=options.batch_size, train=True, seed=0)
    loader = SampleLoader(
        dataset=dataset,
        transforms=transforms,
        batching=batching,
        device=torch.device("cpu"),
        workers=workers,
        cache=kept[0] if kept else None,
    )
    return lambda: (task.preprocess(batch["image"]) for batch in loader.epoch(next(epochs)))


class Normalising(ImageTask):
    """A task that only makes images ready."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), MEAN, STD)

    def forward(self, batch: Any) -> Any: ...

    def predict(self, batch: Any) -> Any: ...


def epoch_time(way: Epoch) -> Times:
    """Return the time of an epoch, of all processes together and on the wall."""
    before, begun = cpu(), time.perf_counter()
    for image in way():
        assert image.dtype == torch.float32
    return cpu() - before, time.perf_counter() - begun


def cpu() -> float:
    """Return the CPU time of this process and of its workers so far, in seconds."""
    mine = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(each.ru_utime + each.ru_stime for each in mine)
    for child in active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def ratios(one: list[Times], other: list[Times], place: int) -> str:
    """Return how many times as long the one took as the other, round by round."""
    return summary([first[place] / second[place] for first, second in zip(one, other, strict=True)], ".2f")


def make_images(folder: Path, height: int, width: int) -> Path:
    """Write JPEGs that are about as detailed as photographs, and return their folder."""
    generator = torch.Generator().manual_seed(0)
    for number in range(max(16, MADE * 375 * 500 // (height * width))):
        coarse = [torch.rand(1, 3, side, side * 4 // 3, generator=generator) for side in (6, 24, 96)]
        whole = sum(
            nn.functional.interpolate(noise, (height, width), mode="bicubic") * weight
            for noise, weight in zip(coarse, (0.6, 0.25, 0.15), strict=True)
        )
        assert isinstance(whole, Tensor)
        pixels = whole[0].mul(255).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image = Image.frombytes("RGB", (width, height), bytes(pixels.flatten().tolist()))
        image.save(place / f"{number}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
