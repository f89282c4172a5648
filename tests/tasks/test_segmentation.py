"""Semantic segmentation: what reaches the loss, what comes out, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tiny import Constant
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from visreg.data import DataInfo
from visreg.errors import ConfigError, DataError
from visreg.tasks.segmentation import SemanticSegmentation

MASK = torch.tensor([[[0, 1, 2, 255]] * 4, [[2, 2, 0, 1]] * 4])
BATCH = {
    "image": torch.full((2, 3, 4, 4), 51, dtype=torch.uint8),
    "mask": MASK,
    "index": torch.tensor([7, 9]),
}


def logits(side=4, seed=0, classes=3):
    return torch.randn(2, classes, side, side, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def task(output, loss=None, **options):
    return SemanticSegmentation(model=Constant(output), loss=loss or nn.CrossEntropyLoss(), **options)


def test_the_loss_gets_the_logits_and_leaves_255_out():
    output = logits()
    expected = cross_entropy(output, MASK, ignore_index=255)
    for ignored in (-100, 255, 3):  # whatever the loss calls it
        losses = task(output, nn.CrossEntropyLoss(ignore_index=ignored))(BATCH)
        assert list(losses) == ["loss"]
        torch.testing.assert_close(losses["loss"], expected)
    losses["loss"].backward()
    assert not output.grad[0, :, :, 3].any()
    assert output.grad[0, :, :, :3].any()


def test_a_loss_that_ignores_a_class_ignores_255_too():
    output = logits()
    expected = cross_entropy(output, MASK.masked_fill(MASK == 0, 255), ignore_index=255)
    torch.testing.assert_close(task(output, nn.CrossEntropyLoss(ignore_index=0))(BATCH)["loss"], expected)


def test_images_reach_the_model_scaled_and_normalised():
    made = task(logits(), mean=[0.1], std=[0.5])
    made(BATCH)
    assert made.model.seen.unique().tolist() == pytest.approx([0.2])


def test_small_logits_are_enlarged_and_half_precision_is_widened():
    small = logits(side=2)
    large = interpolate(small, size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(task(small)(BATCH)["loss"], task(large)(BATCH)["loss"])
    found = task(small.half()).predict(BATCH)
    assert found["mask"].shape == (2, 4, 4)
    assert found["scores"].dtype == torch.float32


def test_the_auxiliary_output_counts_in_training_only():
    output = {"out": logits(), "aux": logits(side=2, seed=1)}
    made = task(output)
    losses = made(BATCH)
    aux = interpolate(output["aux"], size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(losses["aux_loss"], 0.5 * cross_entropy(aux, MASK, ignore_index=255))
    assert list(losses) == ["loss", "aux_loss"]
    assert torch.equal(task(output, aux_weight=0.25)(BATCH)["aux_loss"], losses["aux_loss"] / 2)
    assert list(made.eval()(BATCH)) == ["loss"]


def test_predictions_are_the_likeliest_classes():
    output = logits()
    found = task(output).eval().predict(BATCH)
    assert torch.equal(found["mask"], output.argmax(1))
    torch.testing.assert_close(found["scores"].sum(1), torch.ones(2, 4, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": MASK[:, :3]}, "sample 7: its mask is 3×4, but the image is 4×4"),
        (
            {"mask": MASK.masked_fill(MASK == 255, 3)},
            "sample 7: there are pixels of class 3, but the 3 classes are 0 to",
        ),
        ({"mask": MASK.flip(0).masked_fill(MASK.flip(0) == 255, -1)}, "sample 9: there are pixels of class -1"),
        ({"mask": MASK.float()}, "must be class indices, int64; found torch.float32"),
        ({"mask": None}, "no 'mask'"),
    ],
)
def test_masks_that_cannot_be_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        task(logits())({**BATCH, **changes})


def test_masks_of_other_whole_numbers_are_taken():
    torch.testing.assert_close(
        task(logits())({**BATCH, "mask": MASK.to(torch.uint8)})["loss"], task(logits())(BATCH)["loss"]
    )


def test_a_loss_that_cannot_ignore_is_refused_where_something_is_to_be_ignored():
    class Plain(nn.Module):
        def forward(self, output, target):
            return cross_entropy(output, target)

    without = {**BATCH, "mask": MASK.clamp(max=2)}
    assert task(logits(), Plain())(without)["loss"] > 0
    with pytest.raises(ConfigError, match="Plain has no ignore_index, and there are pixels of class 255"):
        task(logits(), Plain())(BATCH)


@pytest.mark.parametrize("output", [torch.zeros(2, 3), torch.zeros(1, 3, 4, 4), [torch.zeros(2, 3, 4, 4)], {"x": 1}])
def test_a_model_that_returns_something_else_is_named(output):
    with pytest.raises(ConfigError, match="must return logits of shape"):
        task(output)(BATCH)


def test_the_number_of_classes_is_compared_with_those_of_the_mask():
    made = task(logits())
    assert made.mismatch(BATCH, DataInfo(name="x", classes=("a", "b", "c"))) is None
    assert "3 outputs for the 2 classes" in made.mismatch(BATCH, DataInfo(name="x", classes=("a", "b")))
    both = DataInfo(name="x", classes=("a", "b"), others={"mask": ("background", "a", "b")})
    assert made.mismatch(BATCH, both) is None


def test_aux_weight_is_checked():
    with pytest.raises(ValueError, match="aux_weight"):
        task(logits(), aux_weight=-1.0)
