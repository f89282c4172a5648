"""Each family of torchvision's that visreg adopts is trained for a while, and must reach what no guesser can.

`TRAININGS` has the score it must reach, some way below what it was measured to; ``-s`` prints what it reaches, and the
CPU time that takes.
"""

from __future__ import annotations

import math
import resource

import pytest
import torch
from attrs import define, frozen
from torchvision.models.detection.fcos import FCOSRegressionHead

from visreg.build import build_runner
from visreg.config import config_from
from visreg.data import DataInfo, Dataset, blank_sample
from visreg.registry import DATASETS

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
SIDE = 64


@define(kw_only=True, eq=False)
class Discs(Dataset):
    """One disc of one of three colours on a noisy grey, so that little training shows much.

    Args:
        train: the pictures to train on, else others.
        size: how many there are.
        target: what a sample has beside its image: ``label``, ``mask``, or ``boxes`` and their ``labels``. With
            ``clip`` it has a clip in which the disc, red, goes right, left or down, and its label says where to.
        frames: of a clip.
    """

    train: bool = True
    size: int = 100
    target: str = "label"
    frames: int = 8

    @property
    def info(self) -> DataInfo:
        classes = ("background", *COLOURS) if self.target == "mask" else tuple(COLOURS)
        if self.target == "clip":
            sample = {"clip": torch.zeros(self.frames, 3, SIDE, SIDE, dtype=torch.uint8), "label": torch.tensor(0)}
            return DataInfo(name="moving discs", classes=("right", "left", "down"), sample=sample)
        keys = ("image", self.target, *["labels"] * (self.target == "boxes"))
        return DataInfo(name="discs", classes=classes, sample=blank_sample(keys, SIDE, SIDE))

    def open(self):
        """There is nothing to open."""

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(2 * index + self.train)
        kind = int(torch.randint(len(COLOURS), (), generator=generator))
        radius = 8 + 10 * float(torch.rand((), generator=generator))
        x, y = (radius + (SIDE - 2 * radius) * torch.rand(2, generator=generator)).tolist()
        if self.target == "clip":
            shifts = torch.linspace(-16, 16, self.frames).tolist()  # pixels from where it is on average
            steps = [(float(time * (kind == 0) - time * (kind == 1)), float(time * (kind == 2))) for time in shifts]
            frames = [self._drawn(0, x + right, y + down, radius, generator)[0] for right, down in steps]
            return {"clip": torch.stack(frames), "label": torch.tensor(kind)}
        image, inside = self._drawn(kind, x, y, radius, generator)
        if self.target == "label":
            return {"image": image, "label": torch.tensor(kind)}
        if self.target == "mask":
            return {"image": image, "mask": inside * (kind + 1)}
        box = [x - radius, y - radius, x + radius, y + radius]
        return {"image": image, "boxes": torch.tensor([box]), "labels": torch.tensor([kind])}

    @staticmethod
    def _drawn(kind, x, y, radius, generator):
        line = torch.arange(SIDE) + 0.5
        inside = (line - x) ** 2 + (line[:, None] - y) ** 2 < radius**2
        colour = torch.tensor([*COLOURS.values()][kind])[:, None, None]
        noise = torch.randint(-20, 21, (3, SIDE, SIDE), generator=generator)
        return (torch.where(inside, colour, 110) + noise).clamp(0, 255).to(torch.uint8), inside


@pytest.fixture(autouse=True)
def _registered():
    before = dict(DATASETS.files)
    DATASETS.register(Discs)
    yield
    DATASETS.files = before


@frozen
class Training:
    """What a model is trained on, for how long, and what it must reach.

    Attributes:
        guess: about the score of one who knows how frequent and how large things are, but does not look.
        least: the score that it must reach; some way below what it was measured to.
    """

    task: str
    score: str
    dataset: dict
    guess: float
    model: dict
    steps: int
    least: float
    batch_size: int = 16
    lr: float = 1e-3
    transforms: tuple = ()

    def values(self, work_dir):
        """Return the config."""
        metric = {"accuracy": "Accuracy", "mean_iou": "MeanIoU", "mAP_50": "MeanAveragePrecision"}[self.score]
        shared = {"batch_size": self.batch_size, "transforms": list(self.transforms)}
        values = {
            "task": {"type": self.task, "mean": [0.5], "std": [0.25]},
            "model": self.model,
            "loss": {"type": "CrossEntropyLoss"},
            "metrics": [{"type": metric}],
            "optimizer": {"type": "AdamW", "lr": self.lr},
            "schedule": {"type": "Cosine", "warmup_steps": self.steps // 10},
            "default_hooks": [],
            "train": {"dataset": {**self.dataset, "train": True}, **shared},
            "val": {"dataset": {**self.dataset, "train": False}, **shared},
            "run": {"steps": self.steps, "device": "cpu", "work_dir": str(work_dir)},
        }
        if self.task == "Detection":  # its models normalise images, and compute losses, themselves
            values = {key: value for key, value in values.items() if key != "loss"} | {"task": {"type": self.task}}
        return values


def digits(name, size, steps, least, *, batch_size=32, lr=1e-3, **options):
    model = {"type": name, "num_classes": 10, **options}
    dataset = {"type": "Digits", "size": size}
    return Training("Classification", "accuracy", dataset, 0.1, model, steps, least, batch_size, lr, ({"type": "RGB"},))


def colours(name, size, steps, least, *, batch_size, **options):
    model = {"type": name, "num_classes": len(COLOURS), **options}
    larger = {"type": "Resize", "size": [size, size]}
    dataset = {"type": "Discs", "size": 40}
    return Training("Classification", "accuracy", dataset, 0.34, model, steps, least, batch_size, transforms=(larger,))


def clips(name, steps, least, *, batch_size=8, side=32, frames=8, **options):
    model = {"type": name, "num_classes": 3, **options}
    smaller = {"type": "Resize", "size": [side, side]}
    dataset = {"type": "Discs", "target": "clip", "frames": frames}
    return Training("Classification", "accuracy", dataset, 0.34, model, steps, least, batch_size, transforms=(smaller,))


def masks(name, steps, least, **options):
    model = {"type": name, "num_classes": len(COLOURS) + 1, **options}
    return Training("SemanticSegmentation", "mean_iou", {"type": "Discs", "target": "mask"}, 0.4, model, steps, least)


def boxes(name, steps, least, background=0, *, batch_size=4, lr=1e-3, **options):
    model = {"type": name, "num_classes": len(COLOURS) + background, **options}
    dataset = {"type": "Discs", "target": "boxes"}
    return Training("Detection", "mAP_50", dataset, 0.1, model, steps, least, batch_size, lr)


SMALL = {"min_size": SIDE, "max_size": SIDE}
TRAININGS = {
    "alexnet": digits("alexnet", 64, 100, 0.4, batch_size=16, lr=3e-4),
    "vgg11_bn": digits("vgg11_bn", 32, 30, 0.5, lr=3e-4),
    "resnet18": digits("resnet18", 32, 60, 0.8),
    "googlenet": digits("googlenet", 64, 40, 0.6, init_weights=False),
    "inception_v3": colours("inception_v3", 299, 30, 0.7, batch_size=6, init_weights=False),
    "r3d_18": clips("r3d_18", 40, 0.7),
    "r2plus1d_18": clips("r2plus1d_18", 40, 0.7),
    "s3d": clips("s3d", 30, 0.7, side=224, frames=16, batch_size=4),
    "fcn_resnet50": masks("fcn_resnet50", 30, 0.5, aux_loss=True),
    "deeplabv3_mobilenet_v3_large": masks("deeplabv3_mobilenet_v3_large", 100, 0.5, aux_loss=True),
    "lraspp_mobilenet_v3_large": masks("lraspp_mobilenet_v3_large", 60, 0.5),
    "retinanet_resnet50_fpn_v2": boxes("retinanet_resnet50_fpn_v2", 150, 0.3, **SMALL),
    "fcos_resnet50_fpn": boxes("fcos_resnet50_fpn", 150, 0.3, lr=2e-4, **SMALL),
    "ssdlite320_mobilenet_v3_large": boxes("ssdlite320_mobilenet_v3_large", 80, 0.5, 1, batch_size=8),
}


def quicken(task):
    """Spare a model what it would need thousands of steps, or pretrained weights, to get over.

    Batch norm forgets its first statistics in tens of steps: MobileNetV3's keeps 99 % of them at each. FCOS's distances
    begin above zero: they go through a ReLU, which from scratch soon is dead (a box loss of 1 that stays).
    """
    for module in task.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.momentum = 0.2
        if isinstance(module, FCOSRegressionHead):
            torch.nn.init.ones_(module.bbox_reg.bias)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRAININGS))
def test_it_learns(name, tmp_path):
    training = TRAININGS[name]
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    runner = build_runner(config_from(training.values(tmp_path)))
    quicken(runner.task)
    runner.train()
    seconds = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before
    score = runner.scores[training.score]
    print(f"\n{name:38s} {training.score} {score:.3f} in {seconds:.0f} CPU seconds; {runner.losses}")
    assert all(math.isfinite(loss) for loss in runner.losses.values())
    assert training.guess < training.least <= score
