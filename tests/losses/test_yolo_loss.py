"""The dense detector's loss: which place learns which object, and what is wrong with what it says."""

import math

import pytest
import torch
from torch import nn

from visreg.losses.yolo import YOLOLoss

STRIDE, SIDE, BINS = 8, 64, 8
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def places():
    line = (torch.arange(SIDE // STRIDE) + 0.5) * STRIDE
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def output(images=1, classes=2, logit=-4.0):
    """Return what a model says that knows nothing: no class, and boxes of 16 pixels around each place."""
    points = places()
    boxes = torch.cat([points - 8, points + 8], dim=1).repeat(images, 1, 1)
    return {
        "logits": torch.full((images, len(points), classes), logit, requires_grad=True),
        "boxes": boxes.requires_grad_(),
        "distances": torch.zeros(images, len(points), 4, BINS, requires_grad=True),
        "points": points,
        "strides": torch.full((len(points),), float(STRIDE)),
    }


def target(*boxes, labels=None):
    return {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels or [0] * len(boxes))}


def assigned(targets, found=None, **options):
    found = found or output(len(targets))
    boxes = nn.utils.rnn.pad_sequence([each["boxes"] for each in targets], batch_first=True)
    labels = nn.utils.rnn.pad_sequence([each["labels"] for each in targets], batch_first=True)
    real = nn.utils.rnn.pad_sequence([torch.ones(len(each["labels"])).bool() for each in targets], batch_first=True)
    with torch.no_grad():
        return YOLOLoss(**options).assign(
            found["logits"].sigmoid(), found["boxes"], found["points"], boxes, labels, real
        )


def test_an_object_is_learnt_by_places_inside_it_only():
    _, quality = assigned([target([16.0, 16.0, 40.0, 40.0])])
    inside = ((places() > 16) & (places() < 40)).all(dim=1)
    assert quality[0][~inside].max() == 0
    assert (quality[0] > 0).sum() == inside.sum() == 9


def test_no_more_places_than_asked_learn_an_object_and_the_best_of_them():
    found = output()
    with torch.no_grad():
        found["boxes"][0, 27] = torch.tensor([15.0, 16.0, 40.0, 40.0])  # nearly right
    _, quality = assigned([target([16.0, 16.0, 40.0, 40.0])], found, topk=1)
    assert (quality[0] > 0).nonzero().flatten().tolist() == [27]


def test_the_best_place_is_to_score_its_overlap():
    _, quality = assigned([target([16.0, 16.0, 40.0, 40.0])])
    assert float(quality.max()) == pytest.approx(16**2 / 24**2)


def test_a_place_in_two_objects_learns_the_one_that_it_overlaps_more():
    chosen, quality = assigned([target([0.0, 0.0, 64.0, 64.0], [20.0, 20.0, 36.0, 36.0])], topk=64)
    middle = 3 * 8 + 3  # at (28, 28)
    assert chosen[0, middle] == 1
    assert quality[0, middle] > 0
    assert chosen[0, 0] == 0


def test_an_object_is_learnt_though_no_box_overlaps_it_yet():
    """Else what a model is wrong about from the start it would never be told."""
    found = output()
    with torch.no_grad():
        found["boxes"][0] = torch.tensor([0.0, 0.0, 64.0, 64.0])  # an overlap of a thousandth
    _, quality = assigned([target([32.0, 32.0, 38.0, 38.0])], found)
    assert (quality > 0).sum() == 1


def test_padding_is_learnt_by_nobody():
    targets = [target([0.0, 0.0, 64.0, 64.0], [8.0, 8.0, 32.0, 32.0]), target([8.0, 8.0, 32.0, 32.0])]
    both, alone = assigned(targets)[1][1], assigned(targets[1:])[1][0]
    assert torch.equal(both, alone)


@pytest.mark.parametrize("iou", ["giou", "ciou"])
def test_what_is_right_costs_next_to_nothing_and_what_is_wrong_costs_more(iou):
    box, loss = [8.0, 8.0, 40.0, 40.0], YOLOLoss(iou=iou, gamma=0.0, topk=16)
    wrong = loss(output(), [target(box)])
    right = output()
    with torch.no_grad():
        inside = ((places() > 8) & (places() < 40)).all(dim=1)
        sides = torch.cat([places() - 8, 40 - places()], dim=1)[inside] / STRIDE
        right["boxes"][0, inside] = torch.tensor(box)
        right["logits"][0, inside, 0] = 20.0
        right["logits"][0, ~inside] = -20.0
        right["logits"][0, inside, 1] = -20.0
        bins = torch.arange(BINS)
        right["distances"][0, inside] = -100.0 * (bins - sides[..., None]).abs().clamp(max=1)  # two halves, or one bin
    right = loss(right, [target(box)])
    assert set(right) == {"class", "box", "distance"}
    assert right["class"] < 1e-3 < wrong["class"]
    assert right["box"] < 1e-5 < wrong["box"]
    assert right["distance"] <= 0.5 * math.log(2) + 1e-3  # half-way between two bins there is no certainty
    assert right["distance"] < wrong["distance"]


def test_a_model_without_distributions_learns_classes_and_boxes_alone():
    found, goal = output(), [target([8.0, 16.0, 40.0, 48.0])]
    losses = YOLOLoss()(found, goal)
    del losses["distance"]
    plain = {key: found[key] for key in ("logits", "boxes", "points")}
    assert YOLOLoss()(plain, goal) == losses


def test_gradients_lead_to_what_is_right():
    torch.manual_seed(0)
    found, loss = output(), YOLOLoss()
    goal = [target([8.0, 16.0, 40.0, 48.0], labels=[1])]
    optimizer = torch.optim.Adam([found[key] for key in ("logits", "boxes", "distances")], lr=0.5)
    for _ in range(150):
        optimizer.zero_grad()
        sum(loss(found, goal).values()).backward()
        optimizer.step()
    scores = found["logits"][0].sigmoid()
    best = int(scores[:, 1].argmax())
    torch.testing.assert_close(found["boxes"][0, best], goal[0]["boxes"][0], atol=1.0, rtol=0)
    assert scores[best, 1] > 0.8
    assert scores[:, 0].max() < 0.1


def test_images_without_objects_teach_that_there_is_nothing():
    found = output(2)
    losses = YOLOLoss()(found, [NOTHING, NOTHING])
    assert losses["class"] > 0
    assert losses["box"] == losses["distance"] == 0
    sum(losses.values()).backward()
    for key in ("logits", "boxes", "distances"):
        assert found[key].grad.isfinite().all()
    assert found["logits"].grad.min() > 0


def test_the_order_of_objects_and_of_images_does_not_matter():
    one, other = target([8.0, 8.0, 40.0, 40.0], [30.0, 8.0, 60.0, 60.0], labels=[0, 1]), target([2.0, 2.0, 30.0, 20.0])
    turned = {key: value.flip(0) for key, value in one.items()}
    found = YOLOLoss()(output(2), [one, other])
    for losses in (YOLOLoss()(output(2), [turned, other]), YOLOLoss()(output(2), [other, one])):
        for key, value in losses.items():
            torch.testing.assert_close(value, found[key])


@pytest.mark.parametrize(
    ("options", "message"), [({"iou": "iou"}, "iou: expected"), ({"topk": 0}, "topk: must be above")]
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        YOLOLoss(**options)
