"""The dense detector of our own: shapes, places, sizes."""

import pytest
import torch

from visreg.models.yolo import SIZES, YOLO


def tiny(**options):
    torch.manual_seed(0)
    return YOLO(num_classes=3, strides=(4, 8), bins=8, **options)


def test_every_place_of_every_level_predicts():
    output = tiny()(torch.rand(2, 3, 32, 48))
    places = 8 * 12 + 4 * 6
    shapes = {key: tuple(value.shape) for key, value in output.items()}
    assert shapes == {
        "logits": (2, places, 3), "boxes": (2, places, 4), "distances": (2, places, 4, 8), "points": (places, 2),
        "strides": (places,),
    }  # fmt: skip
    assert output["points"][0].tolist() == [2, 2]  # x, y of the middle of a 4×4 field
    assert output["points"][12].tolist() == [2, 6]  # the first of the second row
    assert output["points"][-1].tolist() == [44, 28]
    assert output["strides"].unique().tolist() == [4, 8]


def test_boxes_are_around_their_places_and_as_large_as_the_distances_say():
    model = tiny().eval()
    for branch in model.head.locate:
        torch.nn.init.zeros_(branch[-1].weight)
        torch.nn.init.zeros_(branch[-1].bias)
        branch[-1].bias.data.view(4, 8)[:, 2] = 100.0  # surely two strides
    output = model(torch.rand(1, 3, 32, 32))
    reach = 2 * output["strides"][:, None]
    wanted = torch.cat([output["points"] - reach, output["points"] + reach], dim=1)
    torch.testing.assert_close(output["boxes"][0], wanted)


def test_before_anything_is_learnt_no_class_is_likely():
    scores = tiny().eval()(torch.rand(1, 3, 32, 32))["logits"].sigmoid()
    assert scores.max() < 0.1


def test_what_moves_by_a_stride_is_seen_a_place_further():
    model = tiny().eval()
    image = torch.zeros(1, 3, 64, 64)
    image[..., 24:32, 16:24] = 1.0
    moved = image.roll(8, dims=3)
    one, other = (model(each)["logits"][0, 256:].unflatten(0, (8, 8)) for each in (image, moved))
    torch.testing.assert_close(one[2:6, 2:5], other[2:6, 3:6])


def test_sizes_grow():
    with torch.device("meta"):
        counts = [sum(weight.numel() for weight in YOLO(80, size).parameters()) for size in SIZES]
        assert YOLO(80, "x")(torch.zeros(1, 3, 640, 640))["logits"].shape == (1, 8400, 80)
    assert counts == sorted(counts)
    assert counts[0] < 4e6 < counts[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes: must be 1 or more"),
        ({"num_classes": 3, "strides": (8, 32)}, "strides: expected"),
        ({"num_classes": 3, "strides": (6, 12)}, "strides: expected"),
        ({"num_classes": 3, "strides": (8,)}, "strides: expected"),
        ({"num_classes": 3, "bins": 1}, "bins"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        YOLO(**options)


def test_images_whose_sides_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="36×32: their sides must divide by the stride 8"):
        tiny()(torch.rand(1, 3, 36, 32))
