"""Images with objects in text files beside them, as YOLO's tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import define, field
from attrs.validators import and_, deep_iterable, instance_of, min_len, optional

from visreg.data import Sample
from visreg.datasets.annotated import Annotated, AnnotatedImages, Damages, with_objects
from visreg.datasets.files import DamagedError, located
from visreg.datasets.folder import SUFFIXES
from visreg.errors import DataError

ROUNDING = 0.01  # of the image that a box may reach out of it
FIELDS = "class x y width height"


@define(kw_only=True, eq=False)
class YOLOFolder(AnnotatedImages):
    """Images in ``images/``, and for each a text file in ``labels/``: a line ``class x y width height`` per object.

    ``x`` and ``y`` are of a box's centre, and all four are shares of the image, 0 to 1. An image without a file has no
    objects. A sample has ``image``, ``boxes`` and ``labels``. Polygons are refused. Where each split has its own
    ``images/`` and ``labels/``, as in ``train/images``, that folder is the ``root``, and there is no ``split``.

    Args:
        root: the folder; where it is not found as it is, it is looked for under the data root.
        split: a folder in both ``images/`` and ``labels/``, such as ``"train"``.
        classes: the names of the classes, by index; where not given they are the lines of ``classes.txt`` in ``root``.
    """

    root: str = field(validator=instance_of(str))
    split: str | None = field(default=None, validator=optional(instance_of(str)))
    classes: Sequence[str] | None = field(
        default=None, validator=optional(deep_iterable(instance_of(str), and_(instance_of((list, tuple)), min_len(1))))
    )

    @property
    def name(self) -> str:
        return Path(self.root).name

    def open(self) -> None:
        if self.held:
            return
        root = located(self.root)
        images, labels = (root / name / (self.split or "") for name in ("images", "labels"))
        for folder in (images, labels):
            try:
                located(str(folder))
            except DataError as error:
                raise DataError(f"{error}; {self._arranged(root)}") from error
        classes = self._classes(root)
        files = sorted(file for file in images.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not files:
            splits = sorted(folder.name for folder in images.iterdir() if folder.is_dir())
            advice = f"; set split to one of its folders: {', '.join(splits)}" if splits else ""
            wanted = f"expected files ending in {', '.join(sorted(SUFFIXES))}"
            raise DataError(f"{images}: no images in it; {wanted}{advice}")
        alone = sorted({file.stem for file in labels.glob("*.txt")} - {file.stem for file in files} - {"classes"})
        damages = Damages([f"{labels / stem}.txt: there is no such image in {images}" for stem in alone])
        held = [_read(file, labels / f"{file.stem}.txt", len(classes), damages) for file in files]
        damages.end()
        self.held = with_objects(held, labels)
        self.found = classes

    def _arranged(self, root: Path) -> str:
        """Return where the images and labels are to be, or how to name where they seem to be."""
        inside = sorted(folder.parent.name for folder in root.glob("*/images"))
        if inside:
            name = self.split if self.split in inside else inside[0]
            return f"there is {root / name / 'images'}, for which set root={str(Path(self.root, name))!r} and no split"
        split = f"/{self.split}" if self.split else ""
        return f"root must hold images{split} and labels{split}"

    def _classes(self, root: Path) -> tuple[str, ...]:
        if self.classes is not None:
            return tuple(self.classes)
        file = root / "classes.txt"
        if not file.is_file():
            raise DataError(f"{file}: no such file; put the names of the classes there, one a line, or set classes")
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())

    def __getitem__(self, index: int) -> Sample:
        sample = AnnotatedImages.__getitem__(self, index)
        height, width = sample["image"].shape[1:]
        sample["boxes"] = sample["boxes"] * sample["boxes"].new_tensor([width, height, width, height])
        return sample


def _read(image: Path, file: Path, num_classes: int, damages: Damages) -> Annotated:
    """Return the objects of an image, their boxes in shares of it."""
    boxes, labels = [], []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        with damages.noted():
            if line.strip():
                label, box = _object(f"{file}:{number}", line, num_classes)
                labels.append(label)
                boxes.append(box)
    return Annotated(image=image, source=file, boxes=boxes, labels=labels)


def _object(where: str, line: str, num_classes: int) -> tuple[int, list[float]]:
    """Return the class and the box, x1, y1, x2, y2 in shares of the image, of one line.

    Raises:
        DataError: if they cannot be.
    """
    words = line.split()
    if len(words) != 5:
        polygon = "; polygons are not read, boxes only" if len(words) > 6 and len(words) % 2 else ""
        raise DamagedError(f"{where}: expected five numbers, {FIELDS!r}, found {len(words)}{polygon}")
    try:
        label, (x, y, width, height) = int(words[0]), map(float, words[1:])
    except ValueError as error:
        raise DamagedError(f"{where}: expected numbers, {FIELDS!r}: {error}") from error
    if not 0 <= label < num_classes:
        raise DamagedError(f"{where}: is of class {label}, but the {num_classes} classes are 0 to {num_classes - 1}")
    if not (width > 0 and height > 0):  # NaN is not either
        raise DamagedError(f"{where}: its box, {width:g} by {height:g}, has no area")
    box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if not all(-ROUNDING <= side <= 1 + ROUNDING for side in box):
        raise DamagedError(f"{where}: its box reaches out of the image; {FIELDS.partition(' ')[2]} are shares, 0 to 1")
    return label, [min(max(side, 0.0), 1.0) for side in box]
