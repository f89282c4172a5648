"""Where what a model saw lies in the image that it was made of: transforms are traced by what they do to boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import grid_sample

from visreg.data import IGNORE, Sample

LINES = 4, 64  # at least and at most, that an image is cut along, each way
TOLERANCE = 0.02  # pixels that a line may be off
AT_ONCE = 1 << 24  # values that are sampled at once


@frozen
class Axis:
    """One axis of an image: ``seen = scale * original + shift``, in pixels counted from an edge.

    Attributes:
        scale: below 0 where the image was mirrored.
        length: of the original. seen: of what was made of it.
    """

    length: int
    seen: int
    scale: float = 1.0
    shift: float = 0.0

    @property
    def span(self) -> tuple[float, float]:
        """Which part of the original is to be seen, in its pixels."""
        ends = sorted((end - self.shift) / self.scale for end in (0.0, float(self.seen)))
        return max(ends[0], 0.0), min(ends[1], float(self.length))

    def back(self, places: Tensor) -> Tensor:
        """Return where ``places`` are in the original, and not beyond its edges."""
        return ((places - self.shift) / self.scale).clamp(0, self.length)

    def sources(self) -> Tensor:
        """Return where the middle of each pixel of the original is seen, -1..1 from edge to edge; float32 (length,)."""
        middles = torch.arange(self.length, dtype=torch.float64) + 0.5
        return ((self.scale * middles + self.shift) * 2 / self.seen - 1).float()


@frozen
class Placement:
    """How an image was cut, enlarged, padded or mirrored before a model saw it."""

    x: Axis
    y: Axis

    @property
    def is_identity(self) -> bool:
        """Whether nothing was moved."""
        return all(axis == Axis(axis.length, axis.length) for axis in (self.x, self.y))

    @property
    def part(self) -> tuple[float, float, float, float] | None:
        """What of the original was seen, as x1, y1, x2, y2 in its pixels, or None if that is all of it."""
        (x1, x2), (y1, y2) = self.x.span, self.y.span
        whole = max(x1, y1, self.x.length - x2, self.y.length - y2) < 0.5
        return None if whole else (x1, y1, x2, y2)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Return boxes (K, 4) in pixels of the original; what lies outside of it has no area."""
        sides = torch.stack(
            [self.x.back(boxes[:, 0]), self.y.back(boxes[:, 1]), self.x.back(boxes[:, 2]), self.y.back(boxes[:, 3])], 1
        )
        return torch.cat([torch.minimum(sides[:, :2], sides[:, 2:]), torch.maximum(sides[:, :2], sides[:, 2:])], dim=1)

    def mask(self, scores: Tensor) -> Tensor:
        """Return the best class of each pixel of the original, int64 (H, W), or 255 where it was not seen.

        Args:
            scores: of each class and pixel that was seen, float (C, h, w); interpolated bilinearly.
        """
        rows = [part.argmax(dim=0).masked_fill(~seen, IGNORE) for part, seen in self._sampled(scores)]
        return torch.cat(rows)

    def masks(self, masks: Tensor) -> Tensor:
        """Return masks, bool (K, h, w), in the original: bool (K, H, W)."""
        rows = [(part > 0.5) & seen for part, seen in self._sampled(masks.float())]
        return torch.cat(rows, dim=1)

    def _sampled(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for a few rows of the original at a time, values (C, rows, W), and which of them were seen."""
        values = values.detach().float().cpu()
        across, down = self.x.sources(), self.y.sources()
        for rows in torch.split(down, max(1, AT_ONCE // max(1, len(values) * len(across)))):
            grid = torch.stack([across.expand(len(rows), -1), rows[:, None].expand(-1, len(across))], dim=-1)
            part = grid_sample(values[None], grid[None], padding_mode="border", align_corners=False)[0]
            yield part, (grid.abs() <= 1).all(dim=-1)


def probes(height: int, width: int) -> Sample:
    """Return ``boxes``, columns and rows of an image, with a number of each as ``labels``, to be traced."""
    across, down = _lines(width), _lines(height)
    columns = [[across[start], 0.0, across[end], height] for start, end in _parts(across)]
    rows = [[0.0, down[start], width, down[end]] for start, end in _parts(down)]
    return {"boxes": torch.tensor([*columns, *rows]), "labels": torch.arange(len(columns) + len(rows))}


def traced(sample: Sample, height: int, width: int) -> Placement | None:
    """Return what transforms have done to an image of ``height`` and ``width``, by what became of its `probes`.

    None where it is none of what can be undone: they turned or bent it, show hardly any of it, or mind no boxes.
    """
    boxes, labels = sample.get("boxes"), sample.get("labels")
    if not isinstance(boxes, Tensor) or not isinstance(labels, Tensor) or len(boxes) != len(labels):
        return None
    seen = sample["image"].shape[-2:]
    columns = len(_parts(_lines(width)))
    of_column = labels < columns
    x = _axis(_lines(width), labels[of_column], boxes[of_column][:, [0, 2]], width, seen[1])
    y = _axis(_lines(height), labels[~of_column] - columns, boxes[~of_column][:, [1, 3]], height, seen[0])
    return None if x is None or y is None else Placement(x, y)


def _lines(length: int) -> list[float]:
    count = min(max(length, LINES[0]), LINES[1])
    return [length * number / count for number in range(count + 1)]


def _parts(lines: Sequence[float]) -> list[tuple[int, int]]:
    """Return the first and the last line of each part, which is a quarter of the image, and none too small to last."""
    last = len(lines) - 1
    wide = max(1, last // 4)
    return [(start, start + wide) for start in range(last - wide + 1)]


def _axis(lines: Sequence[float], numbers: Tensor, found: Tensor, length: int, seen: int) -> Axis | None:
    """Return the axis on which parts, of ``numbers``, between ``lines`` became ``found`` (K, 2), if there is one."""
    places = torch.tensor(lines, dtype=torch.float64)
    ends = places[torch.tensor(_parts(lines))][numbers]
    now = found.double().flatten()
    for was in (ends.flatten(), ends.flip(1).flatten()):  # as it was; mirrored
        inside = (now > TOLERANCE) & (now < seen - TOLERANCE)  # others may have been cut off there
        axis = _fitted(was[inside], now[inside], length, seen)
        if axis is not None:
            return axis
    unmoved = length == seen and len(now) > 0 and torch.allclose(now, ends.flatten())  # of too few pixels to fit a line
    return Axis(length, seen) if unmoved else None


def _fitted(was: Tensor, now: Tensor, length: int, seen: int) -> Axis | None:
    if len(was) < 2 or was.max() == was.min():
        return None
    low, high = int(was.argmin()), int(was.argmax())
    scale = float((now[high] - now[low]) / (was[high] - was[low]))
    shift = float(now[low] - scale * was[low])
    if scale == 0 or bool(((scale * was + shift - now).abs() > TOLERANCE * max(1.0, abs(scale))).any()):
        return None
    if seen == length and abs(scale - 1) * length < TOLERANCE and abs(shift) < TOLERANCE:
        scale, shift = 1.0, 0.0  # and not nearly so
    return Axis(length, seen, scale, shift)
