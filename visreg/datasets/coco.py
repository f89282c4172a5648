"""Images with objects annotated as in COCO's JSON files."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from attrs.validators import and_, deep_iterable, instance_of, min_len, optional

from visreg.data import Sample
from visreg.datasets.annotated import (
    Annotated,
    AnnotatedImages,
    Damages,
    checked_box,
    missing_images,
    with_objects,
)  # fmt: skip
from visreg.datasets.coco_masks import drawn, without_mask
from visreg.datasets.files import DamagedError, located
from visreg.errors import DataError, suggest
from visreg.objects import show_box

logger = logging.getLogger("visreg")

NAMED_AT_ONCE = 3  # of many boxes without area
ID, NUMBER = (int, str), (int, float)
NEEDED: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "images": {"id": ID, "file_name": (str,), "height": NUMBER, "width": NUMBER},
    "categories": {"id": ID, "name": ID},
    "annotations": {"id": ID, "image_id": ID, "category_id": ID, "bbox": (list,)},
}
OPTIONAL = {"area": NUMBER, "iscrowd": (int,)}


@define(kw_only=True, eq=False)
class CocoDetection(AnnotatedImages):
    """COCO (Lin et al. 2014), or any set in its format: a folder of images, and one JSON file of what is in them.

    A sample has ``image``, ``boxes`` (cut to the image), ``labels``, ``crowd`` and ``area``, that of the
    object as annotated, else of its box. A crowd is not learnt, and what is found in one is not wrong, as COCO has it.
    The categories' ids, which have gaps, become class indices in the order of the ids. Boxes without area, of which
    COCO has some, are left out, which is logged.

    Args:
        root: the folder of the images; where it is not found as it is, it is looked for under the data root.
        annotations: the JSON file, likewise.
        masks: also give ``masks``, drawn from the segmentations by ``faster-coco-eval``: pip install "visreg[det]".
        classes: the names of the classes, by index, where they are to be checked before anything is read.
        empty: keep images without objects.
    """

    root: str = field(validator=instance_of(str))
    annotations: str = field(validator=instance_of(str))
    masks: bool = field(default=False, validator=instance_of(bool))
    classes: Sequence[str] | None = field(
        default=None, validator=optional(deep_iterable(instance_of(str), and_(instance_of((list, tuple)), min_len(1))))
    )
    empty: bool = field(default=True, validator=instance_of(bool))

    @property
    def name(self) -> str:
        return f"COCO {Path(self.annotations).stem.removeprefix('instances_')}"

    @property
    def keys(self) -> tuple[str, ...]:
        return ("image", "boxes", "labels", "crowd", "area", *["masks"] * self.masks)

    def open(self) -> None:
        if self.held:
            return
        folder, file = located(self.root), located(self.annotations, file=True)
        content = _content(file)
        categories = sorted(content["categories"], key=lambda each: (str(type(each["id"])), each["id"]))
        names = tuple(str(category["name"]) for category in categories)
        damages = Damages(_alike(file, names))
        if self.classes is not None and tuple(self.classes) != names:
            raise DataError(f"{file}: its categories are {', '.join(names)}; the config says {', '.join(self.classes)}")
        labels = {category["id"]: label for label, category in enumerate(categories)}
        with damages.noted():
            missing_images(file, folder, [image["file_name"] for image in content["images"]])
        objects = _by_image(file, content, labels, damages)
        if self.masks:
            damages.mistakes += without_mask(file, content["annotations"])
        held = [_annotated(file, folder, image, objects[image["id"]], labels, damages) for image in content["images"]]
        damages.end()
        self._warn(file, objects, held)
        if not held:
            raise DataError(f"{file}: no images in it")
        self.held = [each for each in with_objects(held, file) if self.empty or each.labels]
        self.found = names

    def _warn(self, file: Path, objects: Mapping[Any, Sequence[Any]], held: Sequence[Annotated]) -> None:
        lost = sum(map(len, objects.values())) - sum(len(each.labels) for each in held)
        if lost:
            every = (each for group in objects.values() for each in group)
            ids = [str(each["id"]) for each in every if min(each["bbox"][2:]) <= 0][:NAMED_AT_ONCE]
            count, named = f"{lost} box{'es' * (lost > 1)}", ", ".join(ids) + "…" * (lost > len(ids))
            logger.warning("%s: left out %s without area, of annotation %s", file, count, named)

    def __getitem__(self, index: int) -> Sample:
        sample = AnnotatedImages.__getitem__(self, index)
        if self.masks:
            sample["masks"] = drawn(self.held[index], *sample["image"].shape[1:])
        return sample


def _content(file: Path) -> dict[str, Any]:
    """Return what is in a file, which has every key that is needed.

    Raises:
        DataError: naming the file, and each key or the character, if it has not.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise DamagedError(f"{file}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        wanted = ", ".join(map(repr, NEEDED))
        raise DamagedError(f"{file}: expected a dict with {wanted}, found a {type(content).__name__}")
    damages = Damages([f"{file}: {problem}" for section in NEEDED for problem in _section_problems(content, section)])
    damages.end()
    return content


def _section_problems(content: Mapping[str, Any], section: str) -> Iterator[str]:
    """Yield what is wrong with the form of a section."""
    entries = content.get(section)
    if not isinstance(entries, list):
        yield f"no key {section!r}{suggest(section, content)}" if entries is None else f"{section!r} is no list"
        return
    seen = set()
    for number, entry in enumerate(entries):
        problems = [*_entry_problems(entry, NEEDED[section])]
        yield from (f"{section}[{number}]{problem}" for problem in problems)
        if not problems and entry["id"] in seen:
            yield f"{section}[{number}]: another of the {section} has its id, {entry['id']}"
        seen |= set() if problems else {entry["id"]}


def _entry_problems(entry: Any, needed: Mapping[str, tuple[type, ...]]) -> Iterator[str]:
    """Yield what is wrong with the form of an image, a category or an annotation."""
    if not isinstance(entry, dict):
        yield f": expected a dict, found a {type(entry).__name__}"
        return
    for key, kinds in {**needed, **OPTIONAL}.items():
        if key in entry and not isinstance(entry[key], kinds):
            yield f": {key!r} must be {' or '.join(kind.__name__ for kind in kinds)}, found {entry[key]!r}"
        elif key in needed and key not in entry:
            yield f" has no key {key!r}"


def _by_image(
    file: Path, content: Mapping[str, Any], labels: Mapping[Any, int], damages: Damages
) -> dict[Any, list[Any]]:
    """Return the annotations of each image, by its id, and note those that are of none, or of no category."""
    found: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        where, box = f"{file}: annotation {annotation['id']}", annotation["bbox"]
        image, category = annotation["image_id"], annotation["category_id"]
        before = len(damages.mistakes)
        if image not in found:
            damages.mistakes.append(f"{where} is of image {image}, which is not among the images")
        if category not in labels:
            damages.mistakes.append(f"{where} is of category {category}, which is not among the categories")
        if len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
            damages.mistakes.append(f"{where}: 'bbox' must be four numbers (x, y, width, height), found {box!r}")
        elif min(box[2:]) < 0:
            problem = "has a negative side; COCO's are x, y, width, height"
            damages.mistakes.append(f"{where}: its 'bbox' {show_box(box)} {problem}")
        if len(damages.mistakes) == before:
            found[image].append(annotation)
    return found


def _alike(file: Path, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of the categories, which scores and pictures tell them apart by."""
    counts = Counter(names)
    advice = "rename them, or take out those that are of no annotation"
    return [
        f"{file}: {count} categories have the name {name!r}; {advice}" for name, count in counts.items() if count > 1
    ]


def _annotated(
    file: Path,
    folder: Path,
    image: Mapping[str, Any],
    objects: Sequence[Any],
    labels: Mapping[Any, int],
    damages: Damages,
) -> Annotated:
    height, width = image["height"], image["width"]
    kept, boxes = [], []
    for each in objects:
        x, y, across, down = each["bbox"]
        with damages.noted():
            box = checked_box([x, y, x + across, y + down], width, height, f"{file}: annotation {each['id']}")
            if box is not None:
                kept.append(each)
                boxes.append(box)
    return Annotated(
        image=folder / image["file_name"],
        source=file,
        boxes=boxes,
        labels=[labels[each["category_id"]] for each in kept],
        crowd=[bool(each.get("iscrowd")) for each in kept],
        area=[float(each.get("area", each["bbox"][2] * each["bbox"][3])) for each in kept],
        segmentations=[each.get("segmentation") for each in kept],
        size=(int(height), int(width)),
    )
