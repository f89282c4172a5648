"""Short clips of moving shapes, drawn by rule, whose class is the motion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from attrs import define, field
from attrs.validators import ge, instance_of, le
from numpy.typing import NDArray
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample, blank_sample
from visreg.datasets.scene import CLASSES, CLUTTER, Floats, Scene, noise, paint
from visreg.generators import mix

# Of each motion: what it changes, 0 for x, 1 for y, 2 for the angle and 3 for the size, and in which direction.
MOTIONS = {
    "left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1),
    "counterclockwise": (2, -1), "clockwise": (2, 1), "shrinking": (3, -1), "growing": (3, 1),
}  # fmt: skip
KINDS = [CLASSES.index(name) for name in ("square", "cross", "star", "triangle up")]  # seen to turn, as no circle is
SPEEDS = (0.04, 0.09)  # of the whole way, in a frame; the way around is that of a star that turns by half a point
RADII = (0.12, 0.30)  # of a shape, in image sides
MOST_CLUTTER = 2


@define(kw_only=True, eq=False)
class ShapeClips(Dataset):
    """Clips of coloured shapes on a noisy background that all move in one of eight ways, which is the class.

    They go left, right, up or down, turn clockwise or counterclockwise, grow or shrink, each at a speed of its own. A
    single frame tells nothing of the class: place, angle and size are drawn alike for all, and go around: what leaves
    on one side comes in on the other, and what has grown to its full size begins anew as the smallest. Clutter does
    not move. A clip depends on ``seed``, ``train`` and its index alone; more clips, or more frames, leave those before
    as they are.

    A sample has ``clip``, uint8 (frames, 3, image_size, image_size), and ``label``, int64 ().

    Args:
        train: the clips to train on, else as many others, to test on.
        size: how many clips there are.
        frames: how many frames a clip has.
        image_size: height and width in pixels.
        max_objects: how many shapes a clip has at most.
        seed: of all clips; another seed gives others.
    """

    train: bool = field(default=True, validator=instance_of(bool))
    size: int = field(default=2000, validator=[instance_of(int), ge(1)])
    frames: int = field(default=8, validator=[instance_of(int), ge(1), le(1000)])
    image_size: int = field(default=32, validator=[instance_of(int), ge(32), le(1024)])
    max_objects: int = field(default=2, validator=[instance_of(int), ge(1), le(100)])
    seed: int = field(default=0, validator=instance_of(int))
    held: dict[str, Tensor] = field(factory=dict, init=False, repr=False)  # the samples as one batch

    @property
    def info(self) -> DataInfo:
        blank = blank_sample(("clip", "label"), self.image_size, self.image_size, frames=self.frames)
        return DataInfo(name="ShapeClips", classes=tuple(MOTIONS), sample=blank)

    def open(self) -> None:
        """There is nothing to open: clips are drawn when they are asked for."""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(f"ShapeClips has {self.size} clips, so there is no number {index}")
        if self.held:
            return {name: tensor[index] for name, tensor in self.held.items()}
        label = self._label(index)
        frames = _frames(mix(self.seed, self.train, index), list(MOTIONS)[label], self)
        return {"clip": torch.stack([scene.picture() for scene in frames]), "label": torch.tensor(label)}

    def _label(self, index: int) -> int:
        return mix(self.seed, self.train, index, 1) % len(MOTIONS)

    def tensors(self) -> Mapping[str, Tensor]:
        """Return all clips at once, drawn at the first call."""
        if not self.held:
            samples = [self[index] for index in range(self.size)]
            self.held = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        return self.held

    def labels(self) -> Tensor:
        return torch.tensor([self._label(index) for index in range(self.size)])


def _frames(seed: int, motion: str, clips: ShapeClips) -> Iterator[Scene]:
    """Yield the scenes of a clip, of which the first does not depend on the motion."""
    random = np.random.Generator(np.random.PCG64(seed))
    shapes, clutter = int(random.integers(1, clips.max_objects + 1)), int(random.integers(0, MOST_CLUTTER + 1))
    kinds = np.concatenate(
        [random.integers(len(CLASSES), len(CLASSES) + len(CLUTTER), clutter), random.choice(KINDS, shapes)]
    )
    phases = random.random((clutter + shapes, 4), dtype=np.float32)
    speeds = random.uniform(*SPEEDS, clutter + shapes).astype(np.float32)
    speeds[:clutter] = 0
    slopes = random.uniform(-40, 40, clutter + shapes).astype(np.float32)
    painted = paint(random, clutter + shapes, clips.image_size)
    axis, direction = MOTIONS[motion]
    for number in range(clips.frames):
        now = phases.copy()
        now[:, axis] = (now[:, axis] + direction * speeds * number) % 1
        yield _scene(clips.image_size, kinds, now, slopes=slopes, **painted)
        painted["noise"] = noise(random, clips.image_size)


def _scene(
    side: int, kinds: NDArray[np.int64], phases: Floats, colours: Floats, slopes: Floats, **painted: NDArray[Any]
) -> Scene:
    """Return a scene of things that are so far on their ways around, 0 to 1: ``phases`` (K, 4).

    Where a thing reaches over the edge of the picture, so much of it is on the other side.
    """
    radii = side * RADII[0] * (RADII[1] / RADII[0]) ** phases[:, 3]
    around = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], np.float32)
    places = side * (phases[:, None, :2] + around)  # (K, 9, 2)
    seen = ((places > -radii[:, None, None]) & (places < side + radii[:, None, None])).all(axis=2)
    thing = np.nonzero(seen)[0]
    stretch = np.where(kinds == len(CLASSES) + CLUTTER.index("bar"), 5, 1)
    return Scene(
        side=side,
        kinds=kinds[thing],
        places=places[seen],
        radii=np.stack([radii, radii / stretch], axis=1)[thing].astype(np.float32),
        angles=(2 * math.pi * phases[:, 2])[thing],
        colours=colours[thing],
        slopes=slopes[thing],
        **painted,
    )
