"""Videos in folders that are named after their classes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import Attribute, define, field
from attrs.validators import and_, ge, gt, in_, instance_of, optional
from torch import Tensor

from visreg.data import DataInfo, Sample, printable
from visreg.datasets.files import DamagedError, located
from visreg.datasets.folder import SUFFIXES as OF_IMAGES
from visreg.datasets.folder import ClassFolders, walk
from visreg.datasets.image import read_image
from visreg.datasets.video import Choose, import_av, read_video, stacked
from visreg.errors import DataError, first

SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}
)
ROUNDING = 1e-6  # seconds


def _alone(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and instance.stride != 1:
        raise ValueError("'fps' and 'stride' both say which frames to take; give one of them")


@define(kw_only=True, eq=False)
class VideoFolder(ClassFolders):
    """Videos in ``root/class/`` or ``root/split/class/``, at any depth; the classes are numbered by name.

    A video is a file, decoded by PyAV, ``pip install "visreg[video]"``; or a folder that holds its frames as images, in
    the order of the numbers in their names. A sample has ``clip``, uint8 (frames, 3, H, W), a part of the video, and
    ``label``, int64 (). Where a video is shorter than a clip, its last frame is repeated.

    Kinetics has this layout; so have UCF101 and HMDB51 once unpacked, and ``listing`` takes UCF101's lists of splits.

    Args:
        root: the folder; where it is not found as it is, it is looked for under the data root.
        split: a folder in it, such as ``"train"``.
        classes: the names of the classes, by index, where they are to be checked before anything is read.
        frames: how many frames a clip has.
        stride: which of the frames, from where the clip begins: each, every second and so on.
        fps: frames of the clip for each second of the video, instead of ``stride``: at each of these moments the frame
            that is shown then, of whatever rate the video is, even of one that varies.
        start: where in the video the clip begins: ``"random"``, drawn anew for each epoch, which is for training; or so
            that it lies in the ``"center"``.
        listing: a text file that names the videos to take, a line ``class/name.avi`` for each, relative to ``root``; a
            number behind it is left aside, and a folder of frames goes by the name of its file. Where it is not found
            as it is, it is looked for under the data root.
    """

    frames: int = field(default=16, validator=[instance_of(int), ge(1)])
    stride: int = field(default=1, validator=[instance_of(int), ge(1)])
    fps: float | None = field(default=None, validator=optional(and_(instance_of((int, float)), gt(0), _alone)))
    start: Literal["random", "center"] = field(default="center", validator=in_(("random", "center")))
    listing: str | None = field(default=None, validator=optional(instance_of(str)))

    @property
    def info(self) -> DataInfo:
        classes = self.found or tuple(self.classes or ())
        return DataInfo(name=Path(self.root).name, classes=classes, keys=("clip", "label"), frames=self.frames)

    @property
    def fixed(self) -> bool:
        return self.start == "center"

    def open(self) -> None:
        if self.files:
            return
        ClassFolders.open(self)
        if self.listing is not None:
            self.files = _listed(located(self.listing, file=True), self.folder(), self.files)
        folders = [path for path, _ in self.files if path.is_dir()]
        if len(folders) < len(self.files):
            import_av()
        if folders and self.fps is not None:
            raise DataError(f"{printable(folders[0])}: frames have no times, so fps cannot be had; set stride instead")

    def within(self, folder: Path) -> list[Path]:
        found: list[Path] = []
        for place, names in walk(folder):
            suffixes = {Path(name).suffix.lower() for name in names}
            if not suffixes.isdisjoint(OF_IMAGES):
                if place == folder:
                    raise DataError(f"{printable(folder)}: images in it; put the frames of each video into a folder")
                found.append(place)
            found += [place / name for name in names if Path(name).suffix.lower() in SUFFIXES]
        if not found:
            expected = f"expected files ending in {', '.join(sorted(SUFFIXES))}, or folders of images"
            raise DataError(f"{printable(folder)}: no videos in it; {expected}")
        return sorted(found)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.files[index]
        place = float(torch.rand(())) if self.start == "random" else 0.5

        def choose(times: Sequence[float]) -> Sequence[int]:
            if self.fps is None:
                return strided(len(times), self.frames, self.stride, place)
            return timed(times, self.frames, self.fps, place)

        clip = read_frames(path, choose) if path.is_dir() else read_video(path, choose)
        return {"clip": clip, "label": torch.tensor(label)}


def strided(count: int, frames: int, stride: int, place: float) -> list[int]:
    """Return which of ``count`` frames make up a clip.

    Args:
        count: how many there are.
        frames: how many to take; the last is repeated where there are too few.
        stride: how far they are apart.
        place: where the clip begins, from 0, the earliest, to 1, the latest that leaves it whole.

    >>> strided(10, 3, 2, 0.0), strided(10, 3, 2, 0.5), strided(10, 3, 2, 1.0), strided(2, 3, 1, 0.5)
    ([0, 2, 4], [3, 5, 7], [5, 7, 9], [0, 1, 1])
    """
    room = max(0, count - 1 - (frames - 1) * stride)
    begin = min(room, int(place * (room + 1)))
    return [min(begin + number * stride, count - 1) for number in range(frames)]


def timed(times: Sequence[float], frames: int, fps: float, place: float) -> list[int]:
    """Return which frames are shown at ``frames`` moments, ``fps`` in a second.

    Args:
        times: when each is shown, in seconds from the first; the last is taken to stay.
        frames: how many moments.
        fps: how many of them in a second.
        place: where the clip begins, as for `strided`.

    >>> timed([0.0, 0.1, 0.2, 0.7], 4, 5.0, 0.0)
    [0, 2, 2, 2]
    """
    begin = place * max(0.0, times[-1] - (frames - 1) / fps)
    moments = [begin + number / fps for number in range(frames)]
    return [max(0, bisect_right(times, moment + ROUNDING) - 1) for moment in moments]


def read_frames(folder: Path, choose: Choose) -> Tensor:
    """Return the chosen frames of a folder, uint8 (T, 3, H, W).

    Args:
        folder: holds nothing else among its images.
        choose: as for `read_video`, but that nothing is known of the times, which are 0, 1 and so on.

    Raises:
        DataError: if a frame cannot be read, or they differ in size.
    """
    names = [item.name for item in folder.iterdir() if item.suffix.lower() in OF_IMAGES and item.name[0] != "."]
    if not names:
        raise DamagedError(f"{printable(folder)}: there are no frames in it")
    names.sort(key=_by_numbers)
    chosen = choose(range(len(names)))
    frames = {number: read_image(folder / names[number]) for number in sorted(set(chosen))}
    return stacked(folder, [frames[number] for number in chosen])


def _by_numbers(name: str) -> list[Any]:
    """Return what to sort names by, so that 10 comes after 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _listed(listing: Path, folder: Path, files: Sequence[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """Return those of ``files`` that a list names, in its order.

    Raises:
        DataError: naming the first that are not there.
    """
    lines = listing.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    wanted = [_stem(Path(re.sub(r"\s+\d+$", "", line.strip()))) for line in lines if line.strip()]
    there = {_stem(path.relative_to(folder)): (path, label) for path, label in files}
    if not wanted:
        raise DataError(f"{listing}: no videos in it")
    if lost := [printable(name) for name in wanted if name not in there]:
        raise DataError(f"{listing}: {len(lost)} videos that are not in {folder}: {', '.join(first(lost, 5))}")
    return [there[name] for name in wanted]


def _stem(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()
