"""Colours of classes: the same class always has the same one, and neighbours do not look alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

Colour = tuple[int, int, int]  # red, green and blue, 0..255

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
GREY: Colour = (128, 128, 128)
BACKGROUND = "background"  # the first class, if this is its name, is what is left bare
IGNORED = 255
TURN = 180 * (3 - math.sqrt(5))  # the golden angle in degrees: however many colours there are, they are spread out
LIGHTNESS = (0.7, 0.88, 0.55)
# Each the farthest from all before it, and from black, white and grey, in the OKLab space, among those that are neither
# too dark, too light nor too pale; found as Glasbey et al. 2007 do ("Colour displays for categorical images").
FIRST = bytes.fromhex("""
    f05a4b 0000ff 00f000 d200ff 870078 00d2ff ffc300 ff96ff 006900 0087ff
    4ba500 873c00 005a96 7800e1 78ffc3 ff00a5 e1a596 b478d2 c3004b 87c387
    b48700 c3ff2d 00a5c3 785ab4 c3c3ff b42da5 78a5ff 786900 b45a2d 008769
    ff78a5 ff8700 784b69 965aff 0f5ae1 e1e1a5 a5d200 ff4bf0 a5f0ff c35a87
""")


@cache
def colour_of(index: int) -> Colour:
    """Return the colour of a class: of the first 40 a listed one, to tell them apart by.

    Beyond those the hue turns by the golden angle, in the OKLCH space (Ottosson 2020).

    >>> colour_of(0), colour_of(1)
    ((240, 90, 75), (0, 0, 255))
    """
    if 0 <= 3 * index < len(FIRST):  # labels below 0 are drawn too, by `visreg browse`
        red, green, blue = FIRST[3 * index : 3 * index + 3]
        return red, green, blue
    hue, chroma = math.radians(25 + TURN * index), 0.17
    lightness, a, b = LIGHTNESS[index % 3], chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _encoded(4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short),
        _encoded(-1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short),
        _encoded(-0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short),
    )


def _encoded(light: float) -> int:
    """Return 0..255 for linear light, of which 1 is the most there is."""
    light = min(max(light, 0.0), 1.0)
    return round(255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055))


def ink_on(colour: Colour) -> Colour:
    """Return black or white: what can be read better on ``colour``, by the contrast of WCAG 2.

    >>> ink_on((255, 255, 0)), ink_on((0, 0, 160))
    ((0, 0, 0), (255, 255, 255))
    """
    parts = [(value / 255 + 0.055) / 1.055 for value in colour]
    red, green, blue = (part**2.4 for part in parts)
    return BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else WHITE


def mask_colour(names: Sequence[str], index: int) -> Colour:
    """Return the colour of a class of pixels: black if it is a background, grey if it is to be ignored.

    The classes behind a background have the colours of boxes, among whose classes there is none.
    """
    if index == IGNORED:
        return GREY
    if BACKGROUND in names[:1]:
        return colour_of(index - 1) if index else BLACK
    return colour_of(index)


def palette(names: Sequence[str]) -> bytes:
    """Return the 256 colours of a PNG of class indices, red, green and blue of each."""
    return bytes(value for index in range(256) for value in mask_colour(names, index))
