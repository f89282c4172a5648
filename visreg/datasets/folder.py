"""What is in folders that are named after their classes, and images there."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import Attribute, define, field
from attrs.validators import and_, deep_iterable, in_, instance_of, min_len, optional
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample, printable
from visreg.datasets.files import DamagedError, located
from visreg.datasets.image import ImageFile
from visreg.datasets.stamps import stamp
from visreg.errors import DataError
from visreg.picture import with_whole_image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def _is_size(_: object, attribute: Attribute[Any], value: Any) -> None:
    sides = value if isinstance(value, (list, tuple)) else (value, value)
    if value is not None and (len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides)):
        raise ValueError(f"{attribute.name!r} must be a positive number of pixels or (height, width)")


@define(kw_only=True, eq=False)
class ClassFolders(Dataset):
    """What lies in ``root/class/`` or ``root/split/class/``; the classes are numbered by name.

    Args:
        root: the folder; where it is not found as it is, it is looked for under the data root.
        split: a folder in it, such as ``"train"``.
        classes: the names of the classes, by index, where they are to be checked before anything is read.
    """

    root: str = field(validator=instance_of(str))
    split: str | None = field(default=None, validator=optional(instance_of(str)))
    classes: Sequence[str] | None = field(
        default=None, validator=optional(deep_iterable(instance_of(str), and_(instance_of((list, tuple)), min_len(1))))
    )
    found: tuple[str, ...] = field(default=(), init=False, repr=False)
    files: list[tuple[Path, int]] = field(factory=list, init=False, repr=False)

    @abstractmethod
    def within(self, folder: Path) -> list[Path]:
        """Return the samples of a class, in the same order on every machine.

        Raises:
            DataError: if there are none.
        """

    def open(self) -> None:
        if self.files:
            return
        folder = self.folder()
        folders = sorted(item for item in folder.iterdir() if item.is_dir() and item.name[0] not in "._")
        names = tuple(printable(item.name) for item in folders)
        if not names:
            raise DataError(f"{printable(folder)}: no folders in it; expected one for each class, with its samples")
        wanted = tuple(self.classes or names)
        if sorted(wanted) != sorted(names):
            found = ", ".join(names)
            raise DataError(f"{printable(folder)}: expected the classes {', '.join(sorted(wanted))}, found {found}")
        place = dict(zip(names, folders, strict=True))
        files = [(path, label) for label, name in enumerate(wanted) for path in self.within(place[name])]
        self.found, self.files = wanted, files

    def folder(self) -> Path:
        """Return where the class folders are.

        Raises:
            DataError: if there is no such folder; offers near names.
        """
        root = located(self.root)
        return located(str(root / self.split)) if self.split else root

    def __len__(self) -> int:
        return len(self.files)

    def where(self, index: int) -> str:
        return str(self.files[index][0]) if index < len(self.files) else ""

    def stamps(self) -> Sequence[str] | None:
        self.open()
        return [f"{stamp(path)} {label}" for path, label in self.files]

    def labels(self) -> Tensor | None:
        self.open()
        return torch.tensor([label for _, label in self.files])


@define(kw_only=True, eq=False)
class ImageFolder(ClassFolders):
    """Images in ``root/class/`` or ``root/split/class/``, at any depth; the classes are numbered by name.

    A sample has ``image``, uint8 (channels, H, W), and ``label``, int64 ().

    Args:
        root: the folder; where it is not found as it is, it is looked for under the data root.
        split: a folder in it, such as ``"train"``.
        classes: the names of the classes, by index, where they are to be checked before anything is read.
        size: height and width that every image is known to have: shapes can then be checked before anything is read.
        channels: 3 for colour, 1 for grey; images are converted.
    """

    size: int | tuple[int, int] | None = field(default=None, validator=_is_size)
    channels: int = field(default=3, validator=in_((1, 3)))

    @property
    def info(self) -> DataInfo:
        sample: Sample = {}
        if self.size is not None:
            image = torch.zeros(self.channels, *_sides(self.size), dtype=torch.uint8)
            sample = {"image": image, "label": torch.zeros((), dtype=torch.int64)}
        return DataInfo(name=Path(self.root).name, classes=self.found or tuple(self.classes or ()), sample=sample)

    def within(self, folder: Path) -> list[Path]:
        places = walk(folder)
        found = [place / name for place, names in places for name in names if Path(name).suffix.lower() in SUFFIXES]
        if not found:
            expected = f"expected files ending in {', '.join(sorted(SUFFIXES))}"
            raise DataError(f"{printable(folder)}: no images in it; {expected}")
        return sorted(found)

    def __getitem__(self, index: int) -> Sample:
        return with_whole_image(self.unread(index, 0))

    def unread(self, index: int, epoch: int) -> Sample:
        path, label = self.files[index]
        image = ImageFile.open(path, "RGB" if self.channels == 3 else "L")
        if self.size is not None and tuple(image.shape[1:]) != _sides(self.size):
            height, width = image.shape[1:]
            raise DamagedError(
                f"{printable(path)}: is {height}×{width}, but size says {self.size}; correct it or leave it out"
            )
        return {"image": image, "label": torch.tensor(label)}

    @property
    def fixed(self) -> bool:
        return True


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder inside, itself too, with the names of its files that are not hidden, whatever the depth.

    Raises:
        DataError: if a folder cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=_unlisted, followlinks=True):
        known = Path(place).stat()
        if (known.st_dev, known.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((known.st_dev, known.st_ino))
        yield Path(place), [name for name in names if name[0] != "."]


def _unlisted(error: OSError) -> None:
    raise DataError(f"{printable(error.filename)}: its files cannot be listed: {error.strerror}") from error
