"""Images with objects annotated as in COCO's JSON files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from attrs.validators import and_, deep_iterable, instance_of, min_len, optional
from torch import Tensor

from visreg.data import Sample
from visreg.datasets.annotated import (
    NAMED_AT_ONCE,
    Annotated,
    AnnotatedImages,
    checked_box,
    missing_images,
    with_objects,
)
from visreg.datasets.files import DamagedError, located
from visreg.errors import DataError, suggest

logger = logging.getLogger("visreg")

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
        return Path(self.annotations).stem

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
        if self.classes is not None and tuple(self.classes) != names:
            raise DataError(f"{file}: its categories are {', '.join(names)}; the config says {', '.join(self.classes)}")
        labels = {category["id"]: label for label, category in enumerate(categories)}
        missing_images(file, folder, [image["file_name"] for image in content["images"]])
        objects = _by_image(file, content, labels)
        held = [_annotated(file, folder, image, objects[image["id"]], labels) for image in content["images"]]
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
            logger.warning("%s: left out %d boxes without area, of annotation %s…", file, lost, ", ".join(ids))

    def __getitem__(self, index: int) -> Sample:
        sample = AnnotatedImages.__getitem__(self, index)
        if self.masks:
            sample["masks"] = _masks(self.held[index], *sample["image"].shape[1:])
        return sample


def _content(file: Path) -> dict[str, Any]:
    """Return what is in a file, which has every key that is needed.

    Raises:
        DataError: naming the file, and the key or the character, if it has not.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise DamagedError(f"{file}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        wanted = ", ".join(map(repr, NEEDED))
        raise DamagedError(f"{file}: expected a dict with {wanted}, found a {type(content).__name__}")
    for section, keys in NEEDED.items():
        entries = content.get(section)
        if not isinstance(entries, list):
            problem = f"no key {section!r}{suggest(section, content)}" if entries is None else f"{section!r} is no list"
            raise DamagedError(f"{file}: {problem}")
        for number, entry in enumerate(entries):
            lost = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lost:
                raise DamagedError(f"{file}: {section}[{number}] has no key {lost[0]!r}")
            for key, kinds in {**keys, **OPTIONAL}.items():
                if key in entry and not isinstance(entry[key], kinds):
                    wanted = " or ".join(kind.__name__ for kind in kinds)
                    found = f"must be {wanted}, found {entry[key]!r}"
                    raise DamagedError(f"{file}: {section}[{number}]: {key!r} {found}")
        ids = {entry["id"] for entry in entries}
        if len(ids) < len(entries):
            raise DamagedError(f"{file}: two of the {section} have the same id")
    return content


def _by_image(file: Path, content: Mapping[str, Any], labels: Mapping[Any, int]) -> dict[Any, list[Any]]:
    """Return the annotations of each image, by its id."""
    found: dict[Any, list[Any]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        where = f"{file}: annotation {annotation['id']}"
        if annotation["image_id"] not in found:
            raise DamagedError(f"{where} is of image {annotation['image_id']}, which is not among the images")
        if annotation["category_id"] not in labels:
            raise DamagedError(f"{where} is of category {annotation['category_id']}, which is not among the categories")
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
            raise DamagedError(f"{where}: 'bbox' must be four numbers (x, y, width, height), found {box!r}")
        found[annotation["image_id"]].append(annotation)
    return found


def _annotated(
    file: Path, folder: Path, image: Mapping[str, Any], objects: Sequence[Any], labels: Mapping[Any, int]
) -> Annotated:
    height, width = image["height"], image["width"]
    kept, boxes = [], []
    for each in objects:
        x, y, across, down = each["bbox"]
        where = f"{file}: annotation {each['id']}"
        box = checked_box([x, y, x + across, y + down], width, height, where)
        if box is not None:
            kept.append(each)
            boxes.append(box)
    return Annotated(
        image=folder / image["file_name"],
        boxes=boxes,
        labels=[labels[each["category_id"]] for each in kept],
        crowd=[bool(each.get("iscrowd")) for each in kept],
        area=[float(each.get("area", each["bbox"][2] * each["bbox"][3])) for each in kept],
        segmentations=[each.get("segmentation") for each in kept],
        size=(int(height), int(width)),
    )


def _masks(annotated: Annotated, height: int, width: int) -> Tensor:
    """Return the masks, bool (M, height, width), of polygons or run lengths.

    Raises:
        DataError: if one is missing or cannot be drawn, or faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import mask as tools
    except ImportError as error:
        message = f'CocoDetection draws masks by faster-coco-eval ({error}); pip install "visreg[det]"'
        raise DataError(message) from error
    masks = torch.zeros(len(annotated.labels), height, width, dtype=torch.bool)
    for place, segmentation in enumerate(annotated.segmentations):
        try:
            lengths = tools.segmToRle(segmentation, width, height)
            mask = torch.from_numpy(tools.decode(lengths)).bool()
        except Exception as error:  # whatever another library raises on what is no segmentation
            where = f"{annotated.image}: the segmentation of object {place}"
            raise DamagedError(f"{where} cannot be drawn: {type(error).__name__}: {error}") from error
        if mask.shape != masks.shape[1:]:
            found = "×".join(map(str, mask.shape))
            raise DamagedError(f"{annotated.image}: the mask of object {place} is {found}, the image {height}×{width}")
        masks[place] = mask
    return masks
