"""Pictures of images with what is in them: boxes, masks, classes and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import max_pool2d

from visreg.colours import BLACK, Colour, colour_of, mask_colour
from visreg.data import IGNORE, DataInfo, printable
from visreg.legend import PAPER, Entry, Tag, draw_tags, text_size, with_legend

LEAST = 384  # pixels that the longer side of a picture has at least
MOST_TIMES = 24  # that a pixel is enlarged
LETTERS = 20  # as many fit into the width of a picture at least
TINT = 0.5  # how much of a masked pixel is its class's colour
FRAMES = 8  # of a clip that are drawn
TOP = 5  # classes that are told of


def picture(image: Tensor, found: Mapping[str, Any], info: DataInfo) -> Image.Image:
    """Return an image with all that was found in it, or is known of it, drawn, and a legend below.

    Small images are enlarged by a whole number, so that each of their pixels is a square; beside narrow ones there is
    room for words.

    Args:
        image: uint8 (C, H, W) of 0..255, or floats of 0..1; of one channel or three, the first of which are taken where
            there are others; or a clip, (T, C, H, W), of which some frames are put side by side.
        found: of one image, with the keys of `visreg.data`; a nested dict is what one head of several found.
        info: has the names of the classes.
    """
    pixels = strip(image) if image.ndim == 4 else rgb(image)
    times = min(max(1, -(-LEAST // max(pixels.shape[1:]))), MOST_TIMES)
    pixels = _enlarged(pixels, times)
    tags: list[Tag] = []
    for each in heads_of(found).values():
        pixels = _masked(pixels, each, info, times)
        tags += _tags(each, info, times)
    drawn = _widened(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))
    _draw_boxes(drawn, tags)
    draw_tags(drawn, tags, text_size(max(drawn.size)))
    return with_legend(drawn, entries_of(found, info))


def _widened(drawn: Image.Image) -> Image.Image:
    """Return a picture with room for some words beside it, if it is too narrow for them."""
    width = max(drawn.width, LETTERS * text_size(max(drawn.size)))
    if width == drawn.width:
        return drawn
    whole = Image.new("RGB", (width, drawn.height), PAPER)
    whole.paste(drawn, (0, 0))
    return whole


def rgb(image: Tensor) -> Tensor:
    """Return an image as colours: uint8 (3, H, W) on the CPU."""
    image = image.detach().cpu()
    if image.dtype != torch.uint8:
        image = image.float().nan_to_num().clamp(0, 1).mul(255).round().to(torch.uint8)
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def strip(clip: Tensor) -> Tensor:
    """Return up to ``FRAMES`` frames of a clip (T, C, H, W), evenly spaced and the first among them, side by side."""
    count = min(len(clip), FRAMES)
    frames = [rgb(clip[number * len(clip) // count]) for number in range(count)]
    gap = torch.zeros(3, frames[0].shape[1], 2, dtype=torch.uint8)
    return torch.cat([part for frame in frames for part in (gap, frame)][1:], dim=2)


def entries_of(found: Mapping[str, Any], info: DataInfo) -> list[Entry]:
    """Return what the legend of a picture says."""
    entries: list[Entry] = []
    for head, each in heads_of(found).items():
        own = [*_class_entries(each, info), *_area_entries(each, info), *_object_entries(each, info)]
        entries += [Entry(f"{printable(head)}:", heading=True), *own] if head and own else own
    return entries


def heads_of(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what was found by the name of the head that found it; what is of no head, or of the only one, by ``""``.

    >>> heads_of({"digit": {"label": 3}, "index": 7}), heads_of({"label": 3})
    ({'': {'index': 7}, 'digit': {'label': 3}}, {'': {'label': 3}})
    """
    heads = {str(head): inner for head, inner in found.items() if isinstance(inner, Mapping)}
    return {"": {key: value for key, value in found.items() if key not in heads}, **heads}


def class_keys(found: Mapping[str, Any]) -> list[str]:
    """Return which keys are a class of the whole image."""
    return [
        key
        for key, value in found.items()
        if isinstance(value, Tensor) and value.ndim == 0 and not value.is_floating_point() and key != "index"
    ]


def class_name(names: Sequence[str], index: int) -> str:
    """Return what to call a class: its name, on one line, if it has one, else its number."""
    return printable(names[index]) if 0 <= index < len(names) else f"class {index}"


def best(scores: Tensor, names: Sequence[str], count: int = TOP) -> list[tuple[int, str, float]]:
    """Return the index, name and score of the ``count`` best classes, given scores (C,); the first of equal ones."""
    values, order = scores.detach().float().cpu().sort(descending=True, stable=True)
    pairs = zip(order[:count].tolist(), values[:count].tolist(), strict=True)
    return [(index, class_name(names, index), score) for index, score in pairs]


def _class_entries(found: Mapping[str, Any], info: DataInfo) -> Iterator[Entry]:
    """Yield what is said of the image as a whole."""
    keys, shares, label = class_keys(found), found.get("scores"), found.get("label")
    if isinstance(label, Tensor) and label.ndim == 1:  # of several classes, as mixup makes it
        shares = label
    if isinstance(shares, Tensor) and shares.ndim == 1 and "boxes" not in found:
        for _, name, share in best(shares, info.classes_of(keys[0] if keys else "label")):
            if share > 0:
                yield Entry(name, share=share)
        return
    for key in keys:
        text = class_name(info.classes_of(key), int(found[key]))
        yield Entry(text if key == "label" else f"{key}: {text}", heading=True)


def _area_entries(found: Mapping[str, Any], info: DataInfo) -> Iterator[Entry]:
    mask = found.get("mask")
    if isinstance(mask, Tensor):
        names, total = info.classes_of("mask"), max(mask.numel(), 1)
        for value, count in counted(mask).most_common():
            text = "ignored" if value == IGNORE else class_name(names, value)
            share = 100 * count / total
            yield Entry(f"{text} {share:.0f} %" if share >= 0.5 else f"{text} < 1 %", mask_colour(names, value))


def _object_entries(found: Mapping[str, Any], info: DataInfo) -> Iterator[Entry]:
    labels = found.get("labels")
    if isinstance(labels, Tensor):
        for value, count in sorted(counted(labels).items()):
            name = class_name(info.classes_of("labels"), value)
            yield Entry(f"{name} × {count}", colour_of(value))
        if not len(labels):
            yield Entry("no objects", heading=True)


def counted(classes: Tensor) -> Counter[int]:
    """Return how often each class is there."""
    values, counts = torch.unique(classes, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _masked(pixels: Tensor, found: Mapping[str, Any], info: DataInfo, times: int) -> Tensor:
    """Return pixels (3, H, W) tinted where something is."""
    mask, masks, labels = found.get("mask"), found.get("masks"), found.get("labels")
    size = (pixels.shape[1] // times, pixels.shape[2] // times)
    if isinstance(mask, Tensor) and mask.shape == size:
        names = info.classes_of("mask")
        for value in counted(mask):
            colour = mask_colour(names, value)
            if colour != BLACK:
                inside = _enlarged((mask == value)[None].cpu(), times)[0]
                pixels = _tinted(pixels, inside, colour, hatched=value == IGNORE)
    if isinstance(masks, Tensor) and masks.shape[1:] == size:
        for place in range(len(masks) - 1, -1, -1):
            index = int(labels[place]) if isinstance(labels, Tensor) and place < len(labels) else place
            pixels = _tinted(pixels, _enlarged(masks[place][None].cpu().bool(), times)[0], colour_of(index))
    return pixels


def _tinted(pixels: Tensor, inside: Tensor, colour: Colour, hatched: bool = False) -> Tensor:
    """Return pixels (3, H, W) with those ``inside``, bool (H, W), tinted, and an outline; or hatched, without one."""
    paint = torch.tensor(colour, dtype=torch.float32).view(3, 1, 1)
    height, width = inside.shape
    reach = _line(max(height, width))
    if hatched:
        stripes = (torch.arange(height)[:, None] + torch.arange(width)) // (3 * reach) % 2 == 0
        inside, edge = inside & stripes, torch.zeros_like(inside)
    else:
        outside = max_pool2d((~inside).float()[None], 2 * reach + 1, stride=1, padding=reach)[0] > 0
        edge = inside & outside
    mixed = pixels * (1 - TINT) + paint * TINT
    tinted = torch.where(edge, paint, torch.where(inside, mixed, pixels.float()))
    return tinted.round().to(torch.uint8)


def _enlarged(image: Tensor, times: int) -> Tensor:
    return image if times == 1 else image.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)


def _line(side: int) -> int:
    """Return how wide a line must be, in pixels, to be seen in a picture whose longer side is ``side``."""
    return max(2, round(side / 400))


def _tags(found: Mapping[str, Any], info: DataInfo, times: int) -> list[Tag]:
    """Return a tag for each box, the surest first."""
    boxes, labels, scores, crowd = (found.get(key) for key in ("boxes", "labels", "scores", "crowd"))
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4:
        return []
    tags = []
    for place, box in enumerate(boxes.detach().float().cpu()):
        index = int(labels[place]) if isinstance(labels, Tensor) and place < len(labels) else -1
        text = class_name(info.classes_of("labels"), index) if index >= 0 else "object"
        if isinstance(scores, Tensor) and place < len(scores):
            text += f" {float(scores[place]):.2f}"
        if isinstance(crowd, Tensor) and place < len(crowd) and bool(crowd[place]):
            text += " (crowd)"
        if bool(box.isfinite().all()):
            x1, y1, x2, y2 = (box * times).tolist()
            tags.append(Tag(text, colour_of(max(index, 0)), (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))))
    return tags


def _draw_boxes(drawn: Image.Image, tags: Sequence[Tag]) -> None:
    """Draw each tag's box, the surest last; the line is inside of it, between two thin dark ones."""
    draw, width = ImageDraw.Draw(drawn), _line(max(drawn.size))
    most = (drawn.width + 9, drawn.height + 9)
    for tag in reversed(tags):
        x1, y1, x2, y2 = (round(min(max(side, -9), most[place % 2])) for place, side in enumerate(tag.box))
        x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=BLACK, width=width + 2)
        draw.rectangle((x1, y1, x2, y2), outline=tag.colour, width=width)
