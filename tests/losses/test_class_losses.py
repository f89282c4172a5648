"""Losses of class indices, against definitions that are not ours."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.ops import sigmoid_focal_loss

from visreg.losses.focal import FocalLoss
from visreg.losses.overlap import DiceLoss, LovaszSoftmaxLoss
from visreg.losses.sums import SumLoss

KINDS = (FocalLoss, DiceLoss, LovaszSoftmaxLoss)


def case(seed=0, classes=4, shape=(2, 5, 6)):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, shape, generator=generator)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_focal_loss_of_two_classes_is_torchvisions(gamma, alpha):
    generator = torch.Generator().manual_seed(1)
    score, target = torch.randn(50, generator=generator), torch.randint(0, 2, (50,), generator=generator)
    expected = sigmoid_focal_loss(score, target.float(), alpha=alpha, gamma=gamma, reduction="mean")
    logits = torch.stack([torch.zeros(50), score], dim=1)
    torch.testing.assert_close(FocalLoss(gamma=gamma, weight=[1 - alpha, alpha])(logits, target), expected)


def test_focal_loss_without_focus_is_cross_entropy():
    logits, target = case()
    torch.testing.assert_close(FocalLoss(gamma=0.0)(logits, target), cross_entropy(logits, target))


def test_dice_loss_is_its_definition():
    logits, target = case()
    target[target == 2] = 1  # class 2 is not there, and does not count
    chances = logits.softmax(1)
    parts = []
    for kind in (0, 1, 3):
        truth = (target == kind).double()
        parts.append(1 - (2 * (chances[:, kind] * truth).sum() + 1) / (chances[:, kind].sum() + truth.sum() + 1))
    torch.testing.assert_close(DiceLoss()(logits, target), torch.stack(parts).mean())


def jaccard_loss(wrong, truth):
    """Return one minus the IoU of a class whose pixels are right but for those in ``wrong``."""
    predicted = truth ^ wrong
    return 1 - (predicted & truth).sum() / (predicted | truth).sum()


def lovasz_extension(errors, truth):
    """Return the Lovász extension of the Jaccard loss: the mean loss of the sets of errors above a random level."""
    levels = torch.cat([errors.sort().values, torch.ones(1, dtype=errors.dtype)])
    total = levels[0] * jaccard_loss(torch.ones_like(truth), truth)  # below the least, all are wrong
    for low, high in itertools.pairwise(levels.tolist()):
        total = total + (high - low) * jaccard_loss(errors > low, truth)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_loss_is_the_extension_of_the_jaccard_loss(seed):
    logits, target = case(seed, classes=3, shape=(1, 3, 4))
    chances = logits.softmax(1).movedim(1, -1).reshape(-1, 3)
    expected = [
        lovasz_extension((truth.double() - chances[:, kind]).abs(), truth)
        for kind in range(3)
        if (truth := target.flatten() == kind).any()
    ]
    torch.testing.assert_close(LovaszSoftmaxLoss()(logits, target), torch.stack(expected).mean())


@pytest.mark.parametrize("kind", [DiceLoss, LovaszSoftmaxLoss])
def test_losses_of_sure_predictions_are_one_minus_the_overlap(kind):
    target = torch.tensor([[0, 0, 0, 1, 1, 2]])
    guess = torch.tensor([[0, 0, 1, 1, 1, 1]])
    logits = 200 * nn.functional.one_hot(guess, 3).movedim(-1, 1).double()
    overlap = {DiceLoss: [4 / 5, 4 / 6, 0], LovaszSoftmaxLoss: [2 / 3, 2 / 4, 0]}[kind]
    loss = DiceLoss(smooth=0.0) if kind is DiceLoss else kind()
    assert loss(logits, target).item() == pytest.approx(1 - sum(overlap) / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_to_be_ignored_is_as_if_it_were_not_there(kind):
    logits, target = case(shape=(1, 40))
    kept = torch.rand(40, generator=torch.Generator().manual_seed(3)) < 0.6
    logits.requires_grad_()
    target[:, ~kept] = 255
    loss = kind(ignore_index=255)(logits, target)
    torch.testing.assert_close(loss, kind()(logits[:, :, kept], target[:, kept]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[:, :, ~kept].any()
    assert gradient[:, :, kept].any()
    nothing = kind(ignore_index=255)(logits, torch.full_like(target, 255))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, logits)[0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_loss(kind):
    logits, target = case(shape=(2, 3))
    assert torch.autograd.gradcheck(lambda values: kind()(values, target), logits.requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_pixels_are_taken_on_the_meta_device_too(kind):
    for logits, target in (case(), case(shape=(6,))):
        assert 0 <= kind()(logits, target) < 100
        assert kind().to("meta")(logits.to("meta"), target.to("meta")).shape == ()
        with pytest.raises(ValueError, match="expected logits"):
            kind()(logits, target[:1])
        with pytest.raises(ValueError, match="takes class indices, int64, and no labels mixed by MixUp or CutMix"):
            kind()(logits, torch.rand_like(logits))


def test_a_sum_weighs_its_losses_and_tells_each_what_to_ignore():
    logits, target = case()
    target[0] = -100
    parts = [nn.CrossEntropyLoss(ignore_index=3), DiceLoss(ignore_index=255)]
    both = SumLoss(parts, weights=[1.0, 0.25])(logits, target)
    # Class 3 is ignored by the first because it says so.
    first = cross_entropy(logits[1:], target[1:], ignore_index=3)
    torch.testing.assert_close(both, first + 0.25 * DiceLoss()(logits[1:], target[1:]))
    with pytest.raises(ValueError, match="MultiMarginLoss has no ignore_index"):
        SumLoss([nn.MultiMarginLoss()])(torch.zeros(2, 3), torch.tensor([1, -100]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FocalLoss(gamma=-1.0), "gamma"),
        (lambda: FocalLoss(weight=[1.0, -1.0]), "weight"),
        (lambda: FocalLoss(weight=[1.0])(*case()), "1 values for 4 classes"),
        (lambda: DiceLoss(smooth=-1.0), "smooth"),
        (lambda: SumLoss([]), "losses"),
        (lambda: SumLoss([DiceLoss()], weights=[1.0, 2.0]), "2 values for 1 losses"),
    ],
)
def test_impossible_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
