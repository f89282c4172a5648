"""Scenes of overlapping shapes, drawn by rule: labels, boxes, masks and semantic masks without any download."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from attrs import define, field, frozen
from attrs.validators import and_, deep_iterable, ge, in_, instance_of, le, min_len
from numpy.typing import NDArray
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample, blank_sample
from visreg.generators import mix

CLASSES = ("circle", "ring", "square", "cross", "star", "triangle up", "triangle down")
TARGETS = ("label", "boxes", "masks", "mask")
BACKGROUND = "background"
CLUTTER = ("bar", "half")  # what is drawn beside the classes and belongs to none
MOST_CLUTTER = 3
RADII = (0.10, 0.24)  # of a shape, in image sides
TILT = math.radians(15)  # at most, of a shape: a triangle still points up or down
VISIBLE = 0.4  # of a shape: where less of it is left by those in front, it is taken out of the scene
CELLS = 5  # of the background, in each direction
NOISE = 20  # grey levels, up and down
CONTRAST = 70  # grey levels by which a shape's colour differs from the background's mean, in some channel
TEMPLATE = 128  # pixels of a shape's outline, in each direction
REACH = 1.05  # what a template covers, in radii from its centre

Floats = NDArray[np.float32]


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


@frozen(eq=False)
class _Target:
    """What is known of a scene: ``boxes`` and ``classes`` of its M shapes, their ``masks``, and the whole ``mask``."""

    classes: Tensor
    masks: Tensor
    boxes: Tensor
    mask: Tensor

    def sample(self, targets: Sequence[str]) -> Sample:
        """Return what a sample with these targets holds beside its image."""
        found: Sample = {}
        if "label" in targets:
            found["label"] = self.classes[self.masks.sum(dim=(1, 2)).argmax()]
        if "boxes" in targets:
            found["boxes"] = self.boxes
        if "boxes" in targets or "masks" in targets:
            found["labels"] = self.classes
        if "masks" in targets:
            found["masks"] = self.masks
        if "mask" in targets:
            found["mask"] = self.mask
        return found


@frozen(eq=False)
class _Scene:
    """What a scene shows, from back to front; to move something is to change its place and draw again.

    Attributes:
        side: height and width of the image in pixels.
        kinds: of each thing, a class or, beyond those, a kind of clutter: int (K,).
        places: x and y of its centre, in pixels (K, 2).
        radii: its extent along its own axes, in pixels (K, 2).
        angles: by how much it is turned, in radians (K,).
        colours: in grey levels (K, 3).
        slopes: by how many grey levels it is brighter at one end than in the middle (K,).
        background: colours of a coarse grid, in grey levels (3, CELLS, CELLS).
        noise: int8 (3, side, side), added to all.
    """

    side: int
    kinds: NDArray[np.int64]
    places: Floats
    radii: Floats
    angles: Floats
    colours: Floats
    slopes: Floats
    background: Floats
    noise: NDArray[np.int8]

    def draw(self) -> tuple[Tensor, _Target]:
        """Return the picture, uint8 (3, side, side), and what is in it."""
        covers = [self._cover(thing) for thing in range(len(self.kinds))]
        owner, shade = self._paint(covers, range(len(covers)))
        full = np.array([inside.sum() for _, inside, _ in covers])
        seen = np.bincount(owner.ravel() + 1, minlength=len(covers) + 1)[1:]
        if (kept := seen >= VISIBLE * full).sum() < len(covers):
            owner, shade = self._paint(covers, np.flatnonzero(kept).tolist())
        colours = np.concatenate([self.colours, np.zeros((1, 3), np.float32)])  # the last is for owner -1
        painted = colours.T[:, owner] + shade
        blend = _blend(self.side)
        picture = np.where(owner < 0, blend @ self.background @ blend.T, painted) + self.noise
        image = torch.from_numpy(np.minimum(np.maximum(picture, 0), 255).astype(np.uint8))
        return image, self._target(owner, np.flatnonzero(kept & (self.kinds < len(CLASSES))))

    def _cover(self, thing: int) -> tuple[tuple[slice, slice], NDArray[np.bool_], Floats]:
        """Return a window of the image, which of its pixels a thing covers, and by how much each is brighter."""
        (x, y), (a, b) = self.places[thing], self.radii[thing]
        reach, cos, sin = max(a, b), math.cos(self.angles[thing]), math.sin(self.angles[thing])
        left, right = max(0, int(x - reach)), min(self.side, int(x + reach) + 2)
        top, bottom = max(0, int(y - reach)), min(self.side, int(y + reach) + 2)
        across = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - x)
        down = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y)
        u, v = (across * cos + down * sin) / a, (down * cos - across * sin) / b
        scale, middle = TEMPLATE / 2 / REACH, TEMPLATE / 2
        column, row = (u * scale + middle).astype(np.int16), (v * scale + middle).astype(np.int16)
        last = TEMPLATE - 1  # nothing is there
        row, column = (np.minimum(np.maximum(place, 0), last) for place in (row, column))  # which clip is slower at
        inside = _templates()[self.kinds[thing], row, column]
        return (slice(top, bottom), slice(left, right)), inside, u * self.slopes[thing]

    def _paint(self, covers: Sequence[Any], things: Sequence[int]) -> tuple[NDArray[np.int64], Floats]:
        """Return whose each pixel is, -1 for the background's, and by how much it is brighter."""
        owner = np.full((self.side, self.side), -1, dtype=np.int64)
        shade = np.zeros((self.side, self.side), dtype=np.float32)
        for thing in things:
            window, inside, brighter = covers[thing]
            owner[window][inside] = thing
            shade[window][inside] = brighter[inside]
        return owner, shade

    def _target(self, owner: NDArray[np.int64], shapes: NDArray[np.int64]) -> _Target:
        masks = owner == shapes[:, None, None]
        rows, columns = masks.any(axis=2), masks.any(axis=1)
        boxes = [
            columns.argmax(axis=1), rows.argmax(axis=1),
            self.side - columns[:, ::-1].argmax(axis=1), self.side - rows[:, ::-1].argmax(axis=1),
        ]  # fmt: skip
        values = np.where(self.kinds < len(CLASSES), self.kinds + 1, 0)
        return _Target(
            classes=torch.from_numpy(self.kinds[shapes]),
            masks=torch.from_numpy(masks),
            boxes=torch.from_numpy(np.stack(boxes, axis=1).astype(np.float32)),
            mask=torch.from_numpy(np.append(values, 0)[owner]),
        )


def _scene(seed: int, side: int, max_objects: int) -> _Scene:
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
    base = random.integers(0, 256, (3, 1, 1)).astype(np.float32)
    colours = random.integers(0, 256, (count, 3)).astype(np.float32)
    alike = np.abs(colours - base[:, 0, 0]).max(axis=1, keepdims=True) < CONTRAST
    return _Scene(
        side=side,
        kinds=kinds,
        places=np.stack([inset + (side - 2 * inset) * x, inset + (side - 2 * inset) * y], axis=1),
        radii=np.stack([radius, radius / stretch], axis=1).astype(np.float32),
        angles=np.where(is_clutter, math.pi, TILT) * (2 * tilt - 1),
        colours=np.where(alike, (colours + 128) % 256, colours),
        slopes=80 * slope - 40,
        background=(base + random.integers(-60, 61, (3, CELLS, CELLS))).astype(np.float32),
        noise=random.integers(-NOISE, NOISE + 1, (3, side, side), dtype=np.int8),
    )


@cache
def _blend(side: int) -> Floats:
    """Return the matrix (side, CELLS) that draws a line of pixels through the colours of a line of cells."""
    place = np.linspace(0, CELLS - 1, side, dtype=np.float32)[:, None]
    weight: Floats = np.maximum(0, 1 - np.abs(place - np.arange(CELLS, dtype=np.float32)))
    return weight


@cache
def _templates() -> NDArray[np.bool_]:
    """Return what each class, and each kind of clutter, covers of a square around it: (kinds, TEMPLATE, TEMPLATE)."""
    line = ((np.arange(TEMPLATE) + 0.5) * 2 / TEMPLATE - 1) * REACH
    x, y = line[None, :], line[:, None]
    distance, angle = np.hypot(x, y), np.arctan2(x, -y)  # from the centre; from straight up, clockwise
    up = (y < 0.5) & (np.abs(x) * math.sqrt(3) < y + 1)
    fifth = np.abs((angle + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)  # from the nearest of a star's five points
    inner = 0.45  # a star's radius between its points
    edge = inner * math.sin(math.pi / 5) / (inner * np.sin(math.pi / 5 - fifth) + np.sin(fifth))
    wide, narrow = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    outlines = {
        "circle": distance < 0.9,
        "ring": (distance < 0.95) & (distance > 0.55),
        "square": wide < 0.72,
        "cross": (wide < 0.92) & (narrow < 0.3),
        "star": distance < edge,
        "triangle up": up,
        "triangle down": up[::-1],
        "bar": np.broadcast_to(wide < 0.95, distance.shape),
        "half": (distance < 0.9) & (y < 0),
    }
    return np.stack([outlines[name] for name in (*CLASSES, *CLUTTER)])
