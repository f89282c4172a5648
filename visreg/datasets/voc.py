"""Images with objects annotated as in PASCAL VOC's XML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from attrs import define, field
from attrs.validators import and_, deep_iterable, in_, instance_of, min_len, optional

from visreg.data import data_root
from visreg.datasets.annotated import Annotated, AnnotatedImages, Damages, checked_box, missing_images, with_objects
from visreg.datasets.files import DamagedError, located
from visreg.errors import DataError, suggest

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@define(kw_only=True, eq=False)
class VOCDetection(AnnotatedImages):
    """PASCAL VOC (Everingham et al. 2010), or any set in its format: one XML file for each image.

    A sample has ``image``, ``boxes``, ``labels`` and ``crowd``. VOC counts pixels from 1 and means the last one to be
    inside; here a box of one pixel is one wide. Nothing is downloaded.

    Args:
        root: the folder that holds ``VOCdevkit/VOC<year>``, or ``VOC<year>``, or is that folder; where it is not found
            as it is, it is looked for under the data root, which it is by default.
        year: of the challenge.
        image_set: which images: a file ``ImageSets/Main/<image_set>.txt``.
        difficult: ``"crowd"`` marks what VOC calls difficult as a crowd, which is neither learnt nor counted, as VOC
            has it; ``"keep"`` takes it like any other object.
        classes: the names of the classes, by index; those of VOC by default.
    """

    root: str | None = field(default=None, validator=optional(instance_of(str)))
    year: str | int = field(default="2012", converter=str)
    image_set: str = field(default="train", validator=and_(instance_of(str), min_len(1)))
    difficult: Literal["crowd", "keep"] = field(default="crowd", validator=in_(("crowd", "keep")))
    classes: Sequence[str] = field(
        default=CLASSES, validator=deep_iterable(instance_of(str), and_(instance_of((list, tuple)), min_len(1)))
    )

    @property
    def name(self) -> str:
        return f"VOC{self.year} {self.image_set}"

    @property
    def keys(self) -> tuple[str, ...]:
        return ("image", "boxes", "labels", "crowd")

    def open(self) -> None:
        if self.held:
            return
        folder = self._folder()
        listing = located(str(folder / "ImageSets" / "Main" / f"{self.image_set}.txt"), file=True)
        names = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not names:
            raise DataError(f"{listing}: no images in it")
        damages, held = Damages(), []
        with damages.noted():
            missing_images(listing, folder / "JPEGImages", [f"{name}.jpg" for name in names])
        for name in names:
            with damages.noted():
                held.append(self._read(folder, name))
        damages.end()
        self.held = with_objects(held, listing)
        self.found = tuple(self.classes)

    def _folder(self) -> Path:
        root = located(self.root) if self.root else data_root()
        year = f"VOC{self.year}"
        places = (root / "VOCdevkit" / year, root / year, root)
        found = next((place for place in places if (place / "ImageSets").is_dir()), None)
        if found is None:
            wanted = f"VOCdevkit/{year} in it, with Annotations, ImageSets and JPEGImages"
            raise DataError(f"{root.absolute()}: no {wanted}; put it there, or set root or VISREG_DATA")
        return found

    def _read(self, folder: Path, name: str) -> Annotated:
        file = folder / "Annotations" / f"{name}.xml"
        try:
            tree = ElementTree.parse(file).getroot()
        except FileNotFoundError as error:
            raise DamagedError(f"{file}: no such file, and the image set {self.image_set!r} lists it") from error
        except (OSError, ElementTree.ParseError) as error:
            raise DamagedError(f"{file}: cannot be read as XML: {error}") from error
        width, height = (_number(file, tree, f"size/{key}") for key in ("width", "height"))
        damages, boxes, labels, crowd = Damages(), [], [], []
        for number, each in enumerate(tree.iter("object")):
            where = f"{file}: object {number}"
            with damages.noted():
                labels.append(self._label(each, where))
            with damages.noted():
                boxes.append(_box(each, width, height, where))
            crowd.append(self.difficult == "crowd" and each.findtext("difficult", "0").strip() == "1")
        damages.end()
        return Annotated(
            image=folder / "JPEGImages" / f"{name}.jpg", source=file, boxes=boxes, labels=labels, crowd=crowd,
            size=(int(height), int(width)),
        )  # fmt: skip

    def _label(self, tree: ElementTree.Element, where: str) -> int:
        kind = tree.findtext("name", "")
        if kind not in self.classes:
            raise DamagedError(f"{where} is a {kind!r}, no class{suggest(kind, self.classes)}")
        return self.classes.index(kind)


def _box(tree: ElementTree.Element, width: float, height: float, where: str) -> list[float]:
    x1, y1, x2, y2 = (_number(where, tree, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax"))
    box = checked_box([x1 - 1, y1 - 1, x2, y2], width, height, where)
    if box is None:
        raise DamagedError(f"{where}: its box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] has no area")
    return box


def _number(where: str | Path, tree: ElementTree.Element, key: str) -> float:
    """Return the number at ``key`` of an XML tree.

    Raises:
        DataError: naming ``where`` and the key, if there is none.
    """
    text = tree.findtext(key)
    try:
        return float(text or "")
    except ValueError as error:
        found = "no" if text is None else f"{text!r}, which is no number, as"
        raise DamagedError(f"{where}: found {found} {key!r}") from error
