"""The masks of objects annotated as in COCO's JSON files: what they are drawn from, and drawing them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visreg.datasets.annotated import Annotated
from visreg.datasets.files import DamagedError
from visreg.errors import DataError


def without_mask(file: Path, annotations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which annotations have nothing that a mask can be drawn from."""
    for annotation in annotations:
        segmentation, problem = annotation.get("segmentation"), None
        if not segmentation:
            problem = "has no segmentation; masks=True needs one for each object"
        elif isinstance(segmentation, list):
            wrong = [repr(each) for each in segmentation if not _is_polygon(each)]
            wanted = "where each polygon of its segmentation must be a list of x and y of 3 corners or more"
            problem = f"has {wrong[0]:.60}, {wanted}" if wrong else None
        elif not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
            problem = f"has a segmentation that is neither polygons nor run lengths, {segmentation!r:.60}"
        if problem is not None:
            yield f"{file}: annotation {annotation['id']} {problem}"


def _is_polygon(corners: Any) -> bool:
    return (
        isinstance(corners, list)
        and len(corners) >= 6
        and len(corners) % 2 == 0
        and all(isinstance(number, (int, float)) and math.isfinite(number) for number in corners)
    )


def drawn(annotated: Annotated, height: int, width: int) -> Tensor:
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
