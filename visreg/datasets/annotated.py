"""What the datasets of images with annotated objects share: where files are, and what a box must be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import define, field

from visreg.data import DataInfo, Dataset, Sample
from visreg.datasets.files import DamagedError
from visreg.datasets.image import read_image
from visreg.datasets.stamps import stamp
from visreg.objects import NO_AREA, box_problem, show_box


@define(eq=False)
class Damages:
    """Notes every mistake in some annotations, where the first would end their reading.

    Attributes:
        mistakes: those that were noted.
    """

    mistakes: list[str] = field(factory=list)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is raised inside as damage, and go on behind."""
        try:
            yield
        except DamagedError as error:
            self.mistakes += error.mistakes

    def end(self) -> None:
        """Raise what was noted.

        Raises:
            DataError: if that is anything.
        """
        if self.mistakes:
            raise DamagedError(*self.mistakes)


@define(kw_only=True, eq=False)
class Annotated:
    """One image's objects, as read from a file.

    Attributes:
        image: its file. boxes: x1, y1, x2, y2 in pixels. labels: class indices. crowd: whether each is of many objects.
        area: of each in pixels, where the file says. segmentations: of each, as in the file.
        size: height and width of the image, where the file says.
        source: the file that they were read from.
    """

    image: Path
    source: Path
    boxes: Sequence[Sequence[float]]
    labels: Sequence[int]
    crowd: Sequence[bool] | None = None
    area: Sequence[float] | None = None
    segmentations: Sequence[Any] = ()
    size: tuple[int, int] | None = None

    def sample(self) -> Sample:
        """Return the image with its boxes and labels, as in the table of `visreg.data`.

        Raises:
            DataError: if the image cannot be read, or is of another size than the file says.
        """
        image = read_image(self.image)
        if self.size is not None and tuple(image.shape[1:]) == self.size[::-1] != self.size:
            image = read_image(self.image, upright=False)  # the annotations are of the pixels as they are stored
        if self.size is not None and tuple(image.shape[1:]) != self.size:
            found, wanted = "×".join(map(str, image.shape[1:])), "×".join(map(str, self.size))
            raise DamagedError(f"{self.image}: is {found}, but its annotation says {wanted} (height×width)")
        sample: Sample = {
            "image": image,
            "boxes": torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(self.labels, dtype=torch.int64),
        }
        if self.crowd is not None:
            sample["crowd"] = torch.tensor(self.crowd, dtype=torch.bool)
        if self.area is not None:
            sample["area"] = torch.tensor(self.area, dtype=torch.float32)
        return sample


@define(kw_only=True, eq=False)
class AnnotatedImages(Dataset):
    """Images with annotated objects; a subclass reads the annotations into ``held``."""

    held: list[Annotated] = field(factory=list, init=False, repr=False)
    found: tuple[str, ...] = field(default=(), init=False, repr=False)

    @property
    def name(self) -> str:
        """What scores on it are called."""
        return type(self).__name__

    @property
    def fixed(self) -> bool:
        return True

    @property
    def given(self) -> Sequence[str] | None:
        """The names of the classes that a config gives, if it does."""
        return getattr(self, "classes", None)

    @property
    def keys(self) -> tuple[str, ...]:
        """What a sample holds."""
        return ("image", "boxes", "labels")

    @property
    def info(self) -> DataInfo:
        return DataInfo(name=self.name, classes=self.found or tuple(self.given or ()), keys=self.keys)

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Sample:
        self.open()
        return self.held[index].sample()

    def classes_in(self, index: int) -> frozenset[int]:
        self.open()
        return frozenset(self.held[index].labels)

    def stamps(self) -> Sequence[str] | None:
        self.open()
        sources = {source: stamp(source) for source in {each.source for each in self.held}}
        held = enumerate(self.held)  # the numbers tell apart those that are of one image
        return [f"{number} {stamp(each.image)} {sources[each.source]}" for number, each in held]

    def where(self, index: int) -> str:
        return str(self.held[index].image) if index < len(self.held) else ""


def with_objects(held: Sequence[Annotated], source: Path) -> list[Annotated]:
    """Return what was read, in which there must be objects: without any, nothing can be learnt and nothing measured.

    Raises:
        DataError: if there are none.
    """
    if not any(each.labels for each in held):
        raise DamagedError(f"{source}: not one of its {len(held)} images has an object; look at the annotations")
    return list(held)


def missing_images(source: Path, folder: Path, names: Collection[str]) -> None:
    """Make sure that every image an annotation is of is there.

    Raises:
        DataError: naming each that is not.
    """
    there = {item.name for item in folder.iterdir()}
    lost = [name for name in names if name not in there and not (folder / name).is_file()]
    if lost:
        raise DamagedError(*(f"{source}: annotates an image that is not in {folder}: {name}" for name in lost))


def checked_box(box: Sequence[float], width: float, height: float, where: str) -> list[float] | None:
    """Return a box x1, y1, x2, y2 cut to its image, or None if it has no area.

    Raises:
        DataError: if it is not finite, or reaches out by more than what comes of rounding.
    """
    problem = box_problem(box, (height, width))
    if problem == NO_AREA:
        return None
    if problem is not None:
        raise DamagedError(f"{where}: its box {show_box(box)} (x1, y1, x2, y2) {problem}")
    x1, y1, x2, y2 = box
    return [max(0.0, x1), max(0.0, y1), min(width, x2), min(height, y2)]
