"""What was predicted for one image: in the image's own pixels, as plain data, and in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot

from visreg.colours import palette
from visreg.data import IGNORE, DataInfo
from visreg.draw import best, class_keys, class_name, counted, heads_of
from visreg.placement import Placement

MOVED = ("mask", "masks", "boxes")
OF_OBJECTS = ("boxes", "labels", "scores", "masks")


def of_image(predictions: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return the predictions for one image of a batch, on the CPU; those of several heads stay nested."""
    found: dict[str, Any] = {}
    for key, value in predictions.items():
        if isinstance(value, Mapping):
            found[key] = of_image(value, place)
        else:
            item = value[place]
            found[key] = item.detach().cpu() if isinstance(item, Tensor) else item
    return found


def has_places(found: Mapping[str, Any]) -> bool:
    """Return whether anything was found that has a place in the image."""
    return any(has_places(value) if isinstance(value, Mapping) else key in MOVED for key, value in found.items())


def in_original(found: Mapping[str, Any], placement: Placement, threshold: float) -> dict[str, Any]:
    """Return what was found in an image, in pixels of the original, without objects that are too unsure or outside."""
    moved: dict[str, Any] = {}
    for key, value in found.items():
        moved[key] = in_original(value, placement, threshold) if isinstance(value, Mapping) else value
    if "boxes" in moved:
        moved |= _objects(moved, placement, threshold)
    if "mask" in moved:
        of_pixels = isinstance(moved.get("scores"), Tensor) and moved["scores"].ndim == 3
        scores = moved.pop("scores") if of_pixels else None
        if not placement.is_identity:
            moved["mask"] = placement.mask(one_hot(moved["mask"]).permute(2, 0, 1) if scores is None else scores)
    return moved


def _objects(found: Mapping[str, Any], placement: Placement, threshold: float) -> dict[str, Any]:
    scores, boxes = found.get("scores"), found["boxes"]
    kept = torch.ones(len(boxes), dtype=torch.bool) if scores is None else scores >= threshold
    if not placement.is_identity:
        boxes = placement.boxes(boxes)
        kept = kept & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    objects = {key: value[kept] for key, value in {**found, "boxes": boxes}.items() if key in OF_OBJECTS}
    if "masks" in objects and not placement.is_identity:
        objects["masks"] = placement.masks(objects["masks"])
    return objects


def as_data(found: Mapping[str, Any], info: DataInfo, top: int, mask_files: Mapping[str, str]) -> dict[str, Any]:
    """Return what was found in one image as plain data; see `visreg.predict` for its keys.

    Args:
        found: by `in_original`.
        info: has the names of the classes.
        top: of how many classes of the whole image the scores are told.
        mask_files: by head, ``""`` where there is only one, the name of the file of its ``mask``.
    """
    heads = {}
    for head, each in heads_of(found).items():
        heads[head] = {**_classes(each, info, top), **_areas(each, info), **_listed(each, info)}
        if "mask" in each:
            heads[head]["mask"] = mask_files[head]
    own = heads.pop("")
    return {**own, "heads": heads} if heads else own


def _classes(found: Mapping[str, Any], info: DataInfo, top: int) -> dict[str, Any]:
    keys, scores = class_keys(found), found.get("scores")
    data: dict[str, Any] = {}
    for key in keys:
        data[key] = {"label": int(found[key]), "name": class_name(info.classes_of(key), int(found[key]))}
    if keys and isinstance(scores, Tensor) and scores.ndim == 1:
        rows = best(scores, info.classes_of(keys[0]), top)
        data["classes"] = [{"label": index, "name": name, "score": round(score, 6)} for index, name, score in rows]
    return data


def _areas(found: Mapping[str, Any], info: DataInfo) -> dict[str, Any]:
    if "mask" not in found:
        return {}
    names = info.classes_of("mask")
    rows = [pair for pair in counted(found["mask"]).most_common() if pair[0] != IGNORE]
    return {"areas": [{"label": index, "name": class_name(names, index), "pixels": count} for index, count in rows]}


def _listed(found: Mapping[str, Any], info: DataInfo) -> dict[str, Any]:
    if "boxes" not in found:
        return {}
    objects = []
    for place, box in enumerate(found["boxes"].tolist()):
        one: dict[str, Any] = {}
        if "labels" in found:
            index = int(found["labels"][place])
            one = {"label": index, "name": class_name(info.classes_of("labels"), index)}
        if "scores" in found:
            one["score"] = round(float(found["scores"][place]), 6)
        one["box"] = [round(side, 3) for side in box]
        if "masks" in found:
            one["mask"] = run_lengths(found["masks"][place])
        objects.append(one)
    return {"objects": objects}


def run_lengths(mask: Tensor) -> dict[str, list[int]]:
    """Return a mask, bool (H, W), as COCO's run lengths: of 0s and 1s in turn, down each column, beginning with 0s.

    >>> run_lengths(torch.tensor([[True, False], [True, True]]))
    {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = mask.T.flatten().to(torch.int8)
    ends = (flat.diff().nonzero().flatten() + 1).tolist()
    starts = [0, *ends]
    counts = [end - start for start, end in zip(starts, [*ends, len(flat)], strict=True)]
    return {"size": list(mask.shape), "counts": [0, *counts] if len(flat) and flat[0] else counts}


def mask_image(mask: Tensor, names: Sequence[str]) -> Image.Image:
    """Return a mask, int64 (H, W), as an image whose values are the classes, coloured as in pictures.

    It has a palette, or is 16-bit grey where there are classes beyond those that a palette has room for.
    """
    if len(names) > IGNORE or int(mask.max()) > IGNORE:
        return Image.fromarray(mask.to(torch.int32).numpy().astype("uint16"))
    image = Image.frombytes("P", (mask.shape[1], mask.shape[0]), mask.to(torch.uint8).contiguous().numpy().tobytes())
    image.putpalette(palette(names))
    return image
