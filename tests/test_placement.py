"""What was found in a transformed image is put back to where it is in the original."""

from __future__ import annotations

import pytest
import torch

from visreg.data import IGNORE
from visreg.placement import Axis, Placement, probes, traced
from visreg.registry import TRANSFORMS

BOXES = torch.tensor([[60.0, 45, 80, 60], [62, 41, 90, 66]])


def made(specs, height=100, width=150, **more):
    """Return what transforms make of an image with some boxes in it, and how they were traced."""
    results = []
    for values in (probes(height, width), {"boxes": BOXES.clone(), "labels": torch.arange(len(BOXES)), **more}):
        sample = {"image": torch.zeros(3, height, width, dtype=torch.uint8), **values}
        torch.manual_seed(3)
        for spec in specs:
            sample = TRANSFORMS.build(spec)(sample)
        results.append(sample)
    return results[1], traced(results[0], height, width)


CAN_BE_UNDONE = {
    "nothing": [],
    "resized": [{"type": "Resize", "size": [64, 48]}],
    "enlarged": [{"type": "Resize", "size": [700, 300]}],
    "cut": [{"type": "CenterCrop", "size": [40, 60]}],
    "resized and cut": [{"type": "Resize", "size": 50}, {"type": "CenterCrop", "size": 32}],
    "padded": [{"type": "Pad", "padding": [3, 9, 0, 21]}],
    "cut and padded": [{"type": "CenterCrop", "size": [200, 70]}],
    "mirrored": [{"type": "RandomHorizontalFlip", "p": 1.0}],
    "upside down": [{"type": "RandomVerticalFlip", "p": 1.0}, {"type": "Resize", "size": 33}],
    "at random": [{"type": "RandomResizedCrop", "size": 64, "scale": [0.8, 1.0]}],
    "sanitized": [{"type": "Resize", "size": 50}, {"type": "SanitizeBoundingBoxes"}],
    "recoloured": [{"type": "ColorJitter", "brightness": 0.5}, {"type": "ToDtype", "dtype": "float32", "scale": True}],
}  # fmt: skip


@pytest.mark.parametrize("name", CAN_BE_UNDONE)
def test_boxes_come_back_to_where_they_were(name):
    sample, placement = made(CAN_BE_UNDONE[name])
    assert torch.allclose(placement.boxes(sample["boxes"]), BOXES, atol=0.05)


@pytest.mark.parametrize("name", CAN_BE_UNDONE)
def test_masks_come_back_to_where_they_were(name):
    masks = torch.zeros(2, 100, 150, dtype=torch.bool)
    masks[0, 45:60, 60:80], masks[1, 41:66, 62:90] = True, True
    mask = masks[0].long()
    sample, placement = made(CAN_BE_UNDONE[name], masks=masks, mask=mask)
    back = placement.masks(sample["masks"])
    assert back.shape == masks.shape
    middle = back[0].nonzero().double().mean(dim=0)
    coarse = 0.5 + 1 / min(abs(placement.x.scale), abs(placement.y.scale))  # as torchvision takes one pixel of each
    assert torch.allclose(middle, torch.tensor([52.0, 69.5], dtype=torch.float64), atol=coarse)
    scores = torch.stack([sample["mask"] != 1, sample["mask"] == 1]).float()
    found = placement.mask(scores)
    assert found.shape == (100, 150)
    x1, y1, x2, y2 = placement.part or (0, 0, 150, 100)
    seen = torch.zeros(100, 150, dtype=torch.bool)
    seen[round(y1) : round(y2), round(x1) : round(x2)] = True
    assert ((found != IGNORE) == seen).float().mean() > 0.97
    assert torch.equal(found == 1, back[0])


@pytest.mark.parametrize("name", CAN_BE_UNDONE)
def test_the_border_between_two_classes_is_put_back_to_the_pixel(name):
    """Scores that grow evenly in the original are 0 on a line of it, however coarsely they were seen."""
    _, placement = made(CAN_BE_UNDONE[name])
    across = (torch.arange(placement.x.seen) + 0.5 - placement.x.shift) / placement.x.scale - 75
    down = (torch.arange(placement.y.seen) + 0.5 - placement.y.shift) / placement.y.scale - 50
    for scores, dim, line in ((across.expand(len(down), -1), 1, 75), (down[:, None].expand(-1, len(across)), 0, 50)):
        found = placement.mask(torch.stack([-scores, scores]))
        place = torch.arange(found.shape[dim]).expand_as(found) if dim else torch.arange(100)[:, None].expand_as(found)
        assert torch.equal((found == 1)[found != IGNORE], (place >= line)[found != IGNORE])
        assert (found != IGNORE).any()


def test_nothing_done_is_known_for_that():
    assert made([])[1].is_identity
    assert made([{"type": "Resize", "size": [100, 150]}])[1].is_identity
    assert not made([{"type": "RandomHorizontalFlip", "p": 1.0}])[1].is_identity


def test_what_was_cut_off_is_known():
    assert made([{"type": "CenterCrop", "size": [40, 60]}])[1].part == pytest.approx((45, 30, 105, 70))
    assert made([{"type": "Pad", "padding": 5}])[1].part is None
    assert made([{"type": "Resize", "size": 20}])[1].part is None


@pytest.mark.parametrize("specs", [
    [{"type": "RandomRotation", "degrees": [90, 90], "expand": True}],
    [{"type": "RandomRotation", "degrees": [10, 10]}],
    [{"type": "RandomPerspective", "p": 1.0}],
    [{"type": "CenterCrop", "size": 2}],
])  # fmt: skip
def test_what_cannot_be_undone_is_known_for_that(specs):
    assert made(specs)[1] is None


def test_transforms_that_lose_the_boxes_cannot_be_traced():
    image = torch.zeros(3, 10, 10)
    assert traced({"image": image}, 10, 10) is None
    assert traced({"image": image, "boxes": torch.zeros(3, 4), "labels": torch.zeros(2)}, 10, 10) is None
    assert (
        traced({"image": image, "boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}, 10, 10)
        is None
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (64, 1)])
def test_images_of_few_pixels_are_no_trouble(size):
    assert made([], *size)[1].is_identity
    placement = made([{"type": "Resize", "size": [96, 80]}], *size)[1]
    wanted = Placement(Axis(size[1], 80, 80 / size[1]), Axis(size[0], 96, 96 / size[0]))
    probe = torch.tensor([[8.0, 24, 40, 96]])
    assert torch.allclose(placement.boxes(probe), wanted.boxes(probe))


def test_a_box_beyond_the_original_has_no_area():
    placement = Placement(Axis(100, 120, 1.0, 10.0), Axis(100, 120, 1.0, 10.0))
    inside, outside = placement.boxes(torch.tensor([[5.0, 20, 50, 60], [111, 20, 118, 60]]))
    assert inside.tolist() == [0, 10, 40, 50]
    assert outside[0] == outside[2] == 100
