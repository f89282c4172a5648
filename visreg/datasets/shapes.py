"""Scenes of overlapping shapes, drawn by rule: labels, boxes, masks and semantic masks without any download."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from attrs import define, field
from attrs.validators import and_, deep_iterable, ge, in_, instance_of, le, min_len
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample, blank_sample
from visreg.datasets.scene import CLASSES, CLUTTER, Scene, paint
from visreg.generators import mix

TARGETS = ("label", "boxes", "masks", "mask")
BACKGROUND = "background"
MOST_CLUTTER = 3
RADII = (0.10, 0.24)  # of a shape, in image sides
TILT = math.radians(15)  # at most, of a shape: a triangle still points up or down


@define(kw_only=True, eq=False)
class ShapeScenes(Dataset):
    """Several coloured shapes of seven classes that hide one another, on a noisy background, with clutter between.

    Colours say nothing of the class, and two classes differ in nothing but where they point. A scene has 1 to
    ``max_objects`` shapes; later ones hide earlier ones, and what is mostly hidden is not in the scene. It depends on
    ``seed``, ``train`` and its index alone; more samples leave those before them as they are.

    A sample has ``image``, uint8 (3, image_size, image_size), and what ``targets`` names:

    - ``label``: ``label``, int64 (): the class of the shape of which most pixels are visible.
    - ``boxes``: ``boxes``, float32 (M, 4), tight around what is visible of each shape, and ``labels``, int64 (M,).
    - ``masks``: ``masks``, bool (M, H, W), what is visible of each shape, and ``labels``.
    - ``mask``: ``mask``, int64 (H, W): 0 for background and clutter, and 1 more than the label of a shape.

    M is 1 or more, and shapes are in the order they are drawn. The classes of ``info`` are the shapes'; where ``mask``
    is the only target they are those of its values, which begin with the background.

    Args:
        train: the scenes to train on, else as many others, to test on.
        size: how many scenes there are.
        image_size: height and width in pixels.
        targets: what is known of a scene.
        max_objects: how many shapes it has at most.
        seed: of all scenes; another seed gives others.
    """

    train: bool = field(default=True, validator=instance_of(bool))
    size: int = field(default=2000, validator=[instance_of(int), ge(1)])
    image_size: int = field(default=64, validator=[instance_of(int), ge(32), le(1024)])
    targets: Sequence[Literal["label", "boxes", "masks", "mask"]] = field(
        default=("boxes",), validator=and_(min_len(1), deep_iterable(in_(TARGETS)))
    )
    max_objects: int = field(default=6, validator=[instance_of(int), ge(1), le(100)])
    seed: int = field(default=0, validator=instance_of(int))
    held: dict[str, Tensor] = field(factory=dict, init=False, repr=False)  # the samples as one batch

    @property
    def info(self) -> DataInfo:
        of_objects = {"boxes", "masks"}.intersection(self.targets)
        blank = blank_sample(("image", *self.targets, *["labels"] * bool(of_objects)), self.image_size, self.image_size)
        of_mask = (BACKGROUND, *CLASSES)
        if tuple(self.targets) == ("mask",):
            return DataInfo(name="ShapeScenes", classes=of_mask, sample=blank)
        others = {"mask": of_mask} if "mask" in self.targets else {}
        return DataInfo(name="ShapeScenes", classes=CLASSES, others=others, sample=blank)

    def open(self) -> None:
        """There is nothing to open: scenes are drawn when they are asked for."""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(f"ShapeScenes has {self.size} scenes, so there is no number {index}")
        if self.held:
            return {name: tensor[index] for name, tensor in self.held.items()}
        image, target = _scene(mix(self.seed, self.train, index), self.image_size, self.max_objects).draw()
        return {"image": image, **target.sample(self.targets)}

    @property
    def fixed(self) -> bool:
        return True

    def tensors(self) -> Mapping[str, Tensor] | None:
        """Return all scenes at once, drawn at the first call, unless their targets differ in length."""
        if not {"label", "mask"}.issuperset(self.targets):
            return None
        if not self.held:
            samples = [self[index] for index in range(self.size)]
            self.held = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        return self.held

    def labels(self) -> Tensor | None:
        return (self.tensors() or {}).get("label")


def _scene(seed: int, side: int, max_objects: int) -> Scene:
    """Return the scene of a seed: clutter and shapes in random order, the last of them a shape."""
    random = np.random.Generator(np.random.PCG64(seed))
    shapes, clutter = int(random.integers(1, max_objects + 1)), int(random.integers(0, MOST_CLUTTER + 1))
    count = shapes + clutter
    kinds = np.concatenate(
        [random.integers(len(CLASSES), len(CLASSES) + len(CLUTTER), clutter), random.integers(0, len(CLASSES), shapes)]
    )
    kinds[:-1] = random.permutation(kinds[:-1])
    x, y, size, stretch, tilt, slope = random.random((6, count), dtype=np.float32)
    is_clutter, is_bar = kinds >= len(CLASSES), kinds == len(CLASSES) + CLUTTER.index("bar")
    radius = side * (RADII[0] + (RADII[1] - RADII[0]) * size)
    stretch = np.where(is_bar, 5 + 3 * stretch, 0.9 + 0.2 * stretch)
    inset = 0.6 * radius
    return Scene(
        side=side,
        kinds=kinds,
        places=np.stack([inset + (side - 2 * inset) * x, inset + (side - 2 * inset) * y], axis=1),
        radii=np.stack([radius, radius / stretch], axis=1).astype(np.float32),
        angles=np.where(is_clutter, math.pi, TILT) * (2 * tilt - 1),
        slopes=80 * slope - 40,
        **paint(random, count, side),
    )
