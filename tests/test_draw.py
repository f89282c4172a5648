"""Pictures: the right pixels have the right colour, and whatever a sample holds can be drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from visreg.colours import BLACK, GREY, WHITE, colour_of, ink_on, mask_colour, palette
from visreg.data import DataInfo
from visreg.draw import LEAST, entries_of, heads_of, picture
from visreg.legend import Entry, Tag, draw_tags, shortened, text_size, width_of, with_legend

INFO = DataInfo(name="pets", classes=("cat", "dog"), others={"mask": ("background", "cat", "dog")})


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def black(height=64, width=64):
    return torch.zeros(3, height, width, dtype=torch.uint8)


def paint(colour):
    return torch.tensor(colour, dtype=torch.uint8)


def test_a_small_image_is_enlarged_by_a_whole_number_so_that_its_pixels_are_squares():
    image = torch.randint(0, 256, (3, 28, 20), dtype=torch.uint8)
    drawn = pixels(picture(image, {}, INFO))
    times = drawn.shape[1] // 28
    assert drawn.shape == (3, 28 * times, 20 * times)
    assert LEAST <= 28 * times < LEAST + 28
    assert torch.equal(drawn[:, ::times, ::times], image)
    assert torch.equal(drawn, image.repeat_interleave(times, 1).repeat_interleave(times, 2))


def test_a_large_image_keeps_its_pixels():
    image = torch.randint(0, 256, (3, 40, 500), dtype=torch.uint8)
    assert torch.equal(pixels(picture(image, {}, INFO)), image)


def test_a_box_is_where_its_coordinates_are():
    found = {"boxes": torch.tensor([[100.0, 150, 300, 350]]), "labels": torch.tensor([1])}
    drawn = pixels(picture(black(500, 500), found, INFO))
    colour = paint(colour_of(1))
    for x, y in ((100, 250), (299, 250), (200, 150), (200, 349)):  # the first and the last pixel that are in it
        assert torch.equal(drawn[:, y, x], colour), (x, y)
    for x, y in ((98, 250), (301, 250), (200, 352), (110, 250), (290, 250), (200, 160), (200, 340)):
        assert not drawn[:, y, x].any(), (x, y)


def test_a_box_of_a_small_image_is_enlarged_with_it():
    found = {"boxes": torch.tensor([[8.0, 16, 40, 48]]), "labels": torch.tensor([0])}
    drawn = pixels(picture(black(), found, INFO))
    times = drawn.shape[2] // 64
    assert torch.equal(drawn[:, 32 * times, 8 * times], paint(colour_of(0)))
    assert torch.equal(drawn[:, 32 * times, 40 * times - 1], paint(colour_of(0)))
    assert not drawn[:, 32 * times, 24 * times].any()


def test_a_mask_is_tinted_where_it_is_and_nowhere_else():
    masks = torch.zeros(1, 400, 400, dtype=torch.bool)
    masks[0, 100:200, 50:300] = True
    drawn = pixels(picture(black(400, 400), {"masks": masks, "labels": torch.tensor([1])}, INFO))[:, :400]
    assert torch.equal(drawn.any(dim=0), masks[0])
    assert torch.equal(drawn[:, 100, 170], paint(colour_of(1)))  # its outline
    assert torch.allclose(drawn[:, 150, 170].float(), paint(colour_of(1)) / 2, atol=1)


def test_a_background_is_left_bare_and_what_is_to_be_ignored_hatched():
    mask = torch.zeros(400, 400, dtype=torch.int64)
    mask[100:200, 100:200], mask[300:] = 2, 255
    drawn = pixels(picture(black(400, 400), {"mask": mask}, INFO))[:, :400]
    assert not drawn[:, :100].any()
    assert torch.equal(drawn[:, 100, 150], paint(colour_of(1)))  # dog, as in a box
    hatched = drawn[:, 300:].any(dim=0).float().mean()
    assert 0.3 < hatched < 0.7


def test_masks_have_the_colours_of_boxes_of_the_same_class():
    names = INFO.classes_of("mask")
    assert [mask_colour(names, index) for index in (0, 1, 2, 255)] == [BLACK, colour_of(0), colour_of(1), GREY]
    assert mask_colour(("road", "car"), 0) == colour_of(0)
    flat = palette(names)
    assert len(flat) == 768
    assert tuple(flat[:9]) == (*BLACK, *colour_of(0), *colour_of(1))


def test_colours_of_the_first_classes_are_far_apart_and_can_be_written_on():
    colours = [colour_of(index) for index in range(20)]
    for one, other in itertools.combinations(colours, 2):
        assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 60**2
    assert {ink_on(WHITE), ink_on(BLACK)} == {BLACK, WHITE}


@pytest.mark.parametrize(
    ("found", "texts"),
    [
        ({"label": torch.tensor(1)}, ["dog"]),
        ({"label": torch.tensor(7)}, ["class 7"]),
        ({"label": torch.tensor(0), "scores": torch.tensor([0.75, 0.25])}, ["cat", "dog"]),
        ({"label": torch.tensor([0.0, 1.0])}, ["dog"]),  # as mixup leaves it
        ({"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}, ["no objects"]),
        ({"boxes": torch.ones(2, 4), "labels": torch.tensor([1, 1])}, ["dog × 2"]),
        ({"mask": torch.tensor([[0, 0], [255, 2]])}, ["background 50 %", "dog 25 %", "ignored 25 %"]),
        (
            {"kind": {"label": torch.tensor(0)}, "size": {"large": torch.tensor(1)}},
            ["kind:", "cat", "size:", "large: yes"],
        ),
        ({"index": 3, "other": "text"}, []),
    ],
)
def test_what_the_legend_says(found, texts):
    info = DataInfo(name="pets", classes=("cat", "dog"), others={**INFO.others, "large": ("no", "yes")})
    assert sorted(entry.text for entry in entries_of(found, info)) == sorted(texts)


def test_predictions_of_heads_are_apart():
    heads = heads_of({"index": 1, "digit": {"label": 2}, "parity": {"label": 0}})
    assert heads == {"": {"index": 1}, "digit": {"label": 2}, "parity": {"label": 0}}


@pytest.mark.parametrize("image", [
    torch.zeros(1, 5, 7, dtype=torch.uint8), torch.rand(1, 5, 7), torch.rand(4, 5, 7), torch.rand(2, 5, 7),
    torch.full((3, 5, 7), float("nan")), torch.zeros(3, 1, 1), torch.zeros(16, 3, 8, 8, dtype=torch.uint8),
    torch.zeros(2, 1, 8, 8), torch.zeros(3, 3, 900),
])  # fmt: skip
def test_any_image_or_clip_can_be_drawn(image):
    drawn = picture(image, {"label": torch.tensor(1)}, INFO)
    assert drawn.mode == "RGB"


@pytest.mark.parametrize("box", [
    [5, 5, 2, 2], [0, 0, 0, 0], [-1e9, -5, 1e9, 5], [float("nan")] * 4, [3, float("inf"), 4, 5], [63, 63, 64, 64],
    [-10, -10, -5, -5],
])  # fmt: skip
def test_any_box_can_be_drawn(box):
    found = {
        "boxes": torch.tensor([box], dtype=torch.float32),
        "labels": torch.tensor([-3]),
        "crowd": torch.tensor([True]),
    }
    picture(black(), found, INFO)


def test_masks_of_another_size_than_the_image_are_left_out():
    assert not pixels(picture(black(), {"masks": torch.ones(1, 9, 9, dtype=torch.bool)}, INFO)).any()


def test_tags_stay_inside_of_the_picture_and_off_one_another():
    image = Image.new("RGB", (300, 200))
    boxes = [(x, y, x + 40, y + 30) for x in (-5, 100, 280) for y in (-5, 90, 190)]
    draw_tags(image, [Tag("a long name", colour_of(number), box) for number, box in enumerate(boxes)], 13)
    drawn = pixels(image)
    areas = [int((drawn == paint(colour_of(number)).view(3, 1, 1)).all(dim=0).sum()) for number in range(9)]
    whole = (width_of("a long name", 13) + 6) * (13 + 5)
    assert all(area > 0.5 * whole for area in areas)  # the rest of each is its text


def test_text_that_is_too_long_is_cut():
    text = shortened("w" * 500, 13, 100)
    assert text.endswith("…")
    assert width_of(text, 13) <= 100
    tall = with_legend(
        Image.new("RGB", (60, 10)), [Entry("w" * 500), Entry("w" * 500, share=2.0), Entry("", share=-1.0)]
    )
    assert tall.width == 60


@pytest.mark.parametrize("size", [(1, 1), (1000, 20), (3000, 60), (20, 1000), (4000, 3000)])
def test_words_have_room_beside_images_of_any_form(size):
    info = DataInfo(name="shapes", classes=("rectangle", "triangle"))
    height, width = size
    box = torch.tensor([[width * 0.1, height * 0.1, width * 0.9, height * 0.9]])
    found = {"boxes": box, "labels": torch.tensor([0]), "scores": torch.tensor([0.9])}
    drawn = picture(torch.full((3, height, width), 90, dtype=torch.uint8), found, info)
    letters = text_size(max(size))
    assert letters >= max(size) / 75
    assert drawn.width >= width_of("rectangle × 1 and more", letters)
    assert drawn.height > height
