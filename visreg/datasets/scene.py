"""Drawing pictures of shapes: what a scene shows, and what of each shape is visible in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from visreg.data import Sample

CLASSES = ("circle", "ring", "square", "cross", "star", "triangle up", "triangle down")
CLUTTER = ("bar", "half")  # what is drawn beside the classes and belongs to none
VISIBLE = 0.4  # of a shape: where less of it is left by those in front, it is taken out of the scene
CELLS = 5  # of the background, in each direction
NOISE = 20  # grey levels, up and down
CONTRAST = 70  # grey levels by which a shape's colour differs from the background's mean, in some channel
TEMPLATE = 128  # pixels of a shape's outline, in each direction
REACH = 1.05  # what a template covers, in radii from its centre

Floats = NDArray[np.float32]


@frozen(eq=False)
class Target:
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
class Scene:
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

    def draw(self) -> tuple[Tensor, Target]:
        """Return the picture, uint8 (3, side, side), and what is in it."""
        covers = [self._cover(thing) for thing in range(len(self.kinds))]
        owner, shade = self._paint(covers, range(len(covers)))
        full = np.array([inside.sum() for _, inside, _ in covers])
        seen = np.bincount(owner.ravel() + 1, minlength=len(covers) + 1)[1:]
        if (kept := seen >= VISIBLE * full).sum() < len(covers):
            owner, shade = self._paint(covers, np.flatnonzero(kept).tolist())
        return self._picture(owner, shade), self._target(owner, np.flatnonzero(kept & (self.kinds < len(CLASSES))))

    def picture(self) -> Tensor:
        """Return the picture, uint8 (3, side, side), from which nothing is taken out."""
        covers = [self._cover(thing) for thing in range(len(self.kinds))]
        return self._picture(*self._paint(covers, range(len(covers))))

    def _picture(self, owner: NDArray[np.int64], shade: Floats) -> Tensor:
        colours = np.concatenate([self.colours, np.zeros((1, 3), np.float32)])  # the last is for owner -1
        painted = colours.T[:, owner] + shade
        blend = _blend(self.side)
        picture = np.where(owner < 0, blend @ self.background @ blend.T, painted) + self.noise
        return torch.from_numpy(np.minimum(np.maximum(picture, 0), 255).astype(np.uint8))

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

    def _target(self, owner: NDArray[np.int64], shapes: NDArray[np.int64]) -> Target:
        masks = owner == shapes[:, None, None]
        rows, columns = masks.any(axis=2), masks.any(axis=1)
        boxes = [
            columns.argmax(axis=1), rows.argmax(axis=1),
            self.side - columns[:, ::-1].argmax(axis=1), self.side - rows[:, ::-1].argmax(axis=1),
        ]  # fmt: skip
        values = np.where(self.kinds < len(CLASSES), self.kinds + 1, 0)
        return Target(
            classes=torch.from_numpy(self.kinds[shapes]),
            masks=torch.from_numpy(masks),
            boxes=torch.from_numpy(np.stack(boxes, axis=1).astype(np.float32)),
            mask=torch.from_numpy(np.append(values, 0)[owner]),
        )


def paint(random: np.random.Generator, count: int, side: int) -> dict[str, Any]:
    """Return colours of ``count`` things that differ from their background's, that background, and noise."""
    base = random.integers(0, 256, (3, 1, 1)).astype(np.float32)
    colours = random.integers(0, 256, (count, 3)).astype(np.float32)
    alike = np.abs(colours - base[:, 0, 0]).max(axis=1, keepdims=True) < CONTRAST
    return {
        "colours": np.where(alike, (colours + 128) % 256, colours),
        "background": (base + random.integers(-60, 61, (3, CELLS, CELLS))).astype(np.float32),
        "noise": noise(random, side),
    }


def noise(random: np.random.Generator, side: int) -> NDArray[np.int8]:
    """Return what is added to the pixels of a picture, in grey levels (3, side, side)."""
    return random.integers(-NOISE, NOISE + 1, (3, side, side), dtype=np.int8)


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
