"""Images beside masks that number their objects, as of the Penn-Fudan pedestrians."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import define, field
from attrs.validators import and_, deep_iterable, instance_of, max_len, min_len

from visreg.data import Dataset, Sample
from visreg.datasets.annotated import Annotated, AnnotatedImages, missing_images
from visreg.datasets.files import DamagedError, located
from visreg.datasets.folder import SUFFIXES
from visreg.datasets.image import read_mask
from visreg.errors import DataError
from visreg.objects import boxes_around


@define(kw_only=True, eq=False)
class PennFudan(AnnotatedImages):
    """The Penn-Fudan pedestrians (Wang et al. 2007), or any set in that format: objects of one class, and their masks.

    Beside each image there is a picture of whole numbers: 0 for background, and 1, 2, … for the pixels of each object.
    A sample has ``image``, ``boxes``, tight around the masks, ``labels``, which are all 0, and ``masks``.

    Args:
        root: the folder; where it is not found as it is, it is looked for under the data root.
        images: the folder of the images in it.
        masks: that of the masks; the one of ``a.png`` is ``a<suffix>.png``.
        suffix: what the name of a mask ends with.
        classes: the name of the one class.
    """

    root: str = field(default="PennFudanPed", validator=instance_of(str))
    images: str = field(default="PNGImages", validator=instance_of(str))
    masks: str = field(default="PedMasks", validator=instance_of(str))
    suffix: str = field(default="_mask", validator=instance_of(str))
    classes: Sequence[str] = field(
        default=("pedestrian",),
        validator=deep_iterable(instance_of(str), and_(instance_of((list, tuple)), min_len(1), max_len(1))),
    )

    @property
    def name(self) -> str:
        return Path(self.root).name

    @property
    def keys(self) -> tuple[str, ...]:
        return ("image", "boxes", "labels", "masks")

    def open(self) -> None:
        if self.held:
            return
        root = located(self.root)
        images, masks = located(str(root / self.images)), located(str(root / self.masks))
        files = sorted(file for file in images.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not files:
            raise DataError(f"{images}: no images in it; expected files ending in {', '.join(sorted(SUFFIXES))}")
        missing_images(images, masks, [self._mask_of(file) for file in files])
        self.found = tuple(self.classes)
        self.held = [Annotated(image=file, source=masks / self._mask_of(file), boxes=(), labels=()) for file in files]

    def classes_in(self, index: int) -> frozenset[int]:
        return Dataset.classes_in(self, index)  # only its mask tells whether there is anybody in it

    def _mask_of(self, image: Path) -> str:
        return f"{image.stem}{self.suffix}.png"

    def __getitem__(self, index: int) -> Sample:
        sample = AnnotatedImages.__getitem__(self, index)
        file = self.held[index].source
        numbers = read_mask(file)
        if numbers.shape != sample["image"].shape[1:]:
            sizes = ("×".join(map(str, shape)) for shape in (numbers.shape, sample["image"].shape[1:]))
            raise DamagedError("{}: is {}, but its image is {}".format(file, *sizes))
        present = numbers.unique()  # type: ignore[no-untyped-call]  # torch's
        masks = numbers == present[:, None, None]
        masks = masks[1:] if bool((numbers == 0).any()) else masks
        labels = torch.zeros(len(masks), dtype=torch.int64)
        return {**sample, "boxes": boxes_around(masks), "labels": labels, "masks": masks}
