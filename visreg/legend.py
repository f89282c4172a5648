"""Text in pictures: fonts, tags beside boxes, and the panel under a picture that says what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from attrs import frozen
from PIL import Image, ImageDraw, ImageFont

from visreg.colours import Colour, ink_on

FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
PAPER: Colour = (24, 25, 28)
TEXT: Colour = (236, 236, 236)
BAR: Colour = (58, 60, 66)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Place = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside


@cache
def font_of(size: int) -> Font:
    """Return a font of ``size`` pixels: one that knows most letters if there is one, else Pillow's own."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def text_size(side: int) -> int:
    """Return how large letters must be, in pixels, to be read in a picture whose longer side is ``side``."""
    return max(13, round(side / 60))


def width_of(text: str, size: int) -> int:
    """Return how wide ``text`` is, in pixels."""
    return round(font_of(size).getlength(text))


def shortened(text: str, size: int, room: int) -> str:
    """Return ``text``, cut so that it is at most ``room`` pixels wide."""
    if width_of(text, size) <= room:
        return text
    length = len(text)
    while length > 1 and width_of(text[:length] + "…", size) > room:
        length -= 1
    return text[:length] + "…"


@frozen
class Tag:
    """Text on a coloured ground, beside a box.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture.
    """

    text: str
    colour: Colour
    box: tuple[float, float, float, float]


def draw_tags(picture: Image.Image, tags: Iterable[Tag], size: int) -> None:
    """Draw tags, the most important first, inside of the picture and, where there is room, none over another."""
    draw, taken = ImageDraw.Draw(picture), list[Place]()
    for tag in tags:
        text = shortened(tag.text, size, picture.width - 6)
        place = _free(tag.box, (width_of(text, size) + 6, size + 5), picture.size, taken)
        if place is None:
            continue
        taken.append(place)
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=tag.colour)
        middle = (place[1] + place[3]) / 2
        draw.text((place[0] + 3, middle), text, fill=ink_on(tag.colour), font=font_of(size), anchor="lm")


def _free(
    box: tuple[float, float, float, float], size: tuple[int, int], room: tuple[int, int], taken: Sequence[Place]
) -> Place | None:
    """Return where a tag goes: above its box, in it, below it, at its left end or its right one; None if nowhere."""
    left, top, right, bottom = (round(side) for side in box)
    tops = (top - size[1], top, bottom, bottom - size[1], top + size[1], top - 2 * size[1])
    for x in (left, right - size[0]):
        for y in tops:
            x1, y1 = min(max(x, 0), room[0] - size[0]), min(max(y, 0), room[1] - size[1])
            place = (x1, y1, x1 + size[0], y1 + size[1])
            if not any(_overlap(place, other) for other in taken):
                return place
    return None


def _overlap(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@frozen
class Entry:
    """A line of a legend, or a word in one.

    Attributes:
        colour: of the square before the text, if there is one.
        share: 0..1, drawn as a bar over the width of the picture, if there is one.
        heading: whether it begins a line.
    """

    text: str
    colour: Colour | None = None
    share: float | None = None
    heading: bool = False


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """Return a picture with a panel below that holds ``entries``; nothing in it reaches beyond its edges."""
    if not entries:
        return picture
    size = text_size(max(picture.size))
    line, gap = size + size // 2, size // 2 + 2
    placed = list(_flow(entries, size, picture.width - 2 * gap))
    height = gap + line * (placed[-1][1] + 1) + gap // 2
    whole = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for (x, row), entry in zip(placed, entries, strict=True):
        _draw_entry(draw, entry, (gap + x, picture.height + gap + line * row), size, picture.width - 2 * gap - x)
    return whole


def _flow(entries: Sequence[Entry], size: int, room: int) -> Iterable[tuple[int, int]]:
    """Yield where each entry goes: how many pixels from the left, and in which line; bars have a line of their own."""
    x, row = 0, -1
    full = True
    for entry in entries:
        width = width_of(entry.text, size) + (size + 5 if entry.colour is not None else 0)
        if full or entry.heading or entry.share is not None or x + width > room:
            x, row = 0, row + 1
        yield x, row
        x += width + size
        full = entry.share is not None


def _draw_entry(draw: ImageDraw.ImageDraw, entry: Entry, place: tuple[int, int], size: int, room: int) -> None:
    x, y = place
    middle, font = y + size / 2, font_of(size)
    if entry.colour is not None:
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=entry.colour)
        x, room = x + size + 5, room - size - 5
    if entry.share is None:
        draw.text((x, middle), shortened(entry.text, size, room), fill=TEXT, font=font, anchor="lm")
        return
    number = f"{100 * entry.share:.1f} %"
    end = max(x + room - width_of("100.0 %", size) - 6, x)
    draw.rectangle((x, y - 2, end, y + size + 2), fill=BAR)
    filled = x + round((end - x) * min(max(entry.share, 0.0), 1.0))
    if filled > x:
        draw.rectangle((x, y - 2, filled, y + size + 2), fill=(62, 108, 168))
    draw.text((x + 5, middle), shortened(entry.text, size, end - x - 8), fill=TEXT, font=font, anchor="lm")
    draw.text((x + room, middle), number, fill=TEXT, font=font, anchor="rm")
