"""What is found wrong with the objects of a batch, and how it is named."""

import pytest
import torch

from visreg.errors import DataError
from visreg.objects import box_problem, boxes_around, check_objects


def batch(**changes):
    """Return two samples of 20 wide and 10 high: one without objects, and one with two."""
    values = {
        "image": torch.zeros(2, 3, 10, 20, dtype=torch.uint8),
        "boxes": [torch.zeros(0, 4), torch.tensor([[1.0, 2.0, 20.0, 10.0], [0.0, 0.0, 3.0, 4.0]])],
        "labels": [torch.zeros(0, dtype=torch.int64), torch.tensor([0, 2])],
        "masks": [torch.zeros(0, 10, 20, dtype=torch.bool), torch.ones(2, 10, 20, dtype=torch.bool)],
        "index": torch.tensor([8, 17]),
    }
    return {**values, **changes}


def with_box(*box):
    return batch(boxes=[torch.zeros(0, 4), torch.tensor([[1.0, 2.0, 19.0, 8.0], box])])


def test_objects_that_can_be_pass():
    check_objects(batch(), 3, masks=True)
    check_objects(
        batch(boxes=[torch.zeros(0, 4)] * 2, labels=[torch.zeros(0).long()] * 2, masks=[torch.zeros(0, 10, 20)] * 2)
    )
    check_objects(with_box(-0.9, 0.0, 20.9, 10.9))  # rounding


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((5.0, 2.0, 5.0, 8.0), r"sample 17: box \[5, 2, 5, 8\] has no area"),
        ((5.0, 8.0, 6.0, 2.0), r"sample 17: box \[5, 8, 6, 2\] has no area"),
        ((5.0, 2.0, 25.0, 8.0), r"box \[5, 2, 25, 8\] reaches out of its image, which is 20 wide and 10 high"),
        ((-9.0, 2.0, 5.0, 8.0), "reaches out"),
        ((1.0, 2.0, 9.0, 15.0), "reaches out"),
        ((float("nan"), 2.0, 5.0, 8.0), "is not finite"),
        ((1.0, 2.0, float("inf"), 8.0), "is not finite"),
    ],
)
def test_a_box_that_cannot_be_is_named(box, message):
    with pytest.raises(DataError, match=message):
        check_objects(with_box(*box), 3)


def test_a_batch_is_held_to_the_rule_of_a_single_box():
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    wrong = 0
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        box = (torch.rand(4, generator=generator) * torch.tensor([12, 7, 12, 7]) - 2).round(decimals=1)
        box[2:] += box[:2] + 1
        if seed % 10 == 0:
            box[seed // 10 % 4] = strange[seed // 40 % 4]
        problem = box_problem(box.tolist(), (10, 20))
        if problem is None:
            check_objects(with_box(*box.tolist()), 3)
        else:
            wrong += 1
            with pytest.raises(DataError) as caught:
                check_objects(with_box(*box.tolist()), 3)
            assert str(caught.value).endswith(problem)
    assert 50 < wrong < 290
    assert box_problem([0, 0, 1e9, 1], None) is None


def test_boxes_are_tight_around_masks():
    masks = torch.zeros(3, 6, 9, dtype=torch.bool)
    masks[0, 2, 3] = masks[1, 1:4, 0:9] = masks[1, 5, 4] = True
    assert boxes_around(masks).tolist() == [[3, 2, 4, 3], [0, 1, 9, 6], [0, 0, 0, 0]]
    assert boxes_around(masks[:0]).shape == (0, 4)


@pytest.mark.parametrize("label", [3, -1, 255])
def test_a_class_that_is_none_is_named(label):
    labels = [torch.zeros(0, dtype=torch.int64), torch.tensor([0, label])]
    with pytest.raises(
        DataError, match=rf"sample 17: box \[0, 0, 3, 4\] is of class {label}, but the 3 classes are 0 to 2"
    ):
        check_objects(batch(labels=labels), 3)
    if label > 0:
        check_objects(batch(labels=labels))  # where the number of classes is not known
    else:
        with pytest.raises(DataError, match="is of class -1; classes are counted from 0"):
            check_objects(batch(labels=labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": [torch.zeros(0, 4), torch.zeros(2, 5)]}, r"boxes must be floats \(M, 4\)"),
        ({"boxes": [torch.zeros(0, 4), torch.ones(2, 4).long()]}, "torch.int64"),
        ({"labels": [torch.zeros(0).long(), torch.zeros(3).long()]}, "2 boxes and 3 labels"),
        ({"labels": [torch.zeros(0).long(), torch.zeros(2)]}, "labels must be class indices"),
        ({"masks": [torch.zeros(0, 10, 20), torch.zeros(1, 10, 20)]}, "2 boxes and 1 masks"),
        ({"masks": [torch.zeros(0, 10, 20), torch.zeros(2, 20, 10)]}, "its masks are 20×10, but the image is 10×20"),
        ({"crowd": [torch.zeros(0).bool(), torch.zeros(1).bool()]}, "2 boxes and 1 crowd"),
    ],
)
def test_what_does_not_belong_together_is_named(changes, message):
    with pytest.raises(DataError, match=f"sample 17: .*{message}"):
        check_objects(batch(**changes))


def test_what_is_missing_is_named():
    values = batch()
    del values["boxes"]
    with pytest.raises(DataError, match="no 'boxes'"):
        check_objects({**values, "boxs": []})
    del values["masks"]
    with pytest.raises(DataError, match="no 'masks'"):
        check_objects(batch() | {"masks": None}, masks=True)


def test_without_an_index_the_place_in_the_batch_is_named():
    values = with_box(5.0, 2.0, 5.0, 8.0)
    del values["index"]
    with pytest.raises(DataError, match="sample 1: box"):
        check_objects(values)
