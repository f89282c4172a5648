"""MixUp and CutMix: each image with a weight and a partner of its own, distributed as torchvision's one for all."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from tests.transforms.test_own_transforms import LIMIT, MANY, apart, draws, pictures
from visreg.registry import TRANSFORMS
from visreg.transforms.mixing import POINTS, beta_table

SIZE = 50


def mixed(name, image=None, label=None, alpha=1.0, count=SIZE, **options):
    image = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 9, 7) if image is None else image
    label = torch.arange(count) if label is None else label
    transform = TRANSFORMS.build({"type": name, "num_classes": count, "alpha": alpha, **options})
    return transform.batch({"image": image, "label": label, "index": label}, draws(len(label), place=(1, 0)))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 3.0, 40.0])
def test_the_table_is_of_the_beta_distribution(alpha):
    torch.manual_seed(0)
    expected = torch.distributions.Beta(alpha, alpha).sample((MANY,))
    table = beta_table(alpha)
    assert (len(table), table[0], table[-1], table[POINTS // 2]) == (POINTS + 1, 0, 1, 0.5)
    assert (table.diff() >= 0).all()
    pair = (table[torch.linspace(0, POINTS, MANY).long()], expected)  # torch's own is never quite 0 or 1
    assert apart(*(values.clamp(1e-6, 1 - 1e-6) for values in pair)) < LIMIT


def test_mixup_takes_the_mean_of_two_images_and_their_labels():
    image = torch.rand(SIZE, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    made = mixed("MixUp", image, alpha=0.4)
    label = made["label"]
    assert (label.dtype, label.shape) == (torch.float32, (SIZE, SIZE))
    assert torch.equal(made["index"], torch.arange(SIZE))
    torch.testing.assert_close(label.sum(1), torch.ones(SIZE))
    torch.testing.assert_close(made["image"], torch.einsum("nk,kchw->nchw", label, image))
    partners = (label - torch.diag(label.diag())).argmax(1)
    assert (partners != torch.arange(SIZE)).all()
    assert len(set(partners.tolist())) > SIZE // 2
    assert len(set(label.diag().tolist())) > SIZE - 5
    bytes_ = mixed("MixUp", (image * 255).to(torch.uint8), alpha=0.4)["image"]
    assert bytes_.dtype == torch.uint8
    assert (bytes_ - torch.einsum("nk,kchw->nchw", label, (image * 255).floor())).abs().max() <= 0.51


def test_cutmix_pastes_a_rectangle_of_another_image_and_counts_its_pixels():
    made = mixed("CutMix")
    label, image = made["label"], made["image"].long()
    for number in range(SIZE):
        inside = image[number, 0] != number
        torch.testing.assert_close(label[number, number], 1 - inside.double().mean().float())
        if inside.any():
            rows, columns = inside.any(1), inside.any(0)
            assert torch.equal(inside, rows[:, None] & columns)
            assert int(rows.int().diff().abs().sum()) <= 2
            (partner,) = image[number, 0][inside].unique().tolist()
            assert label[number, partner] > 0
    assert torch.equal(image[:, 0], image[:, 1])


@pytest.mark.parametrize(("name", "key"), [("MixUp", "lam"), ("CutMix", "lam_adjusted")])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_shares_are_as_probable_as_torchvisions(name, key, alpha):
    theirs = getattr(v2, name)(alpha=alpha, num_classes=2)
    torch.manual_seed(1)
    expected = torch.tensor([float(theirs.make_params([pictures(1)])[key]) for _ in range(MANY)])
    image, label = pictures(1).expand(MANY, -1, -1, -1), torch.zeros(MANY, dtype=torch.int64)
    transform = TRANSFORMS.build({"type": name, "num_classes": 2, "alpha": alpha})
    _, shares = transform.mix(image, transform.draw(draws(MANY), image))
    assert apart(shares.double(), expected.double()) < LIMIT
    assert len(label) == MANY


def test_labels_may_be_soft_already():
    soft = torch.eye(6).mul(0.8).add(0.2 / 6)
    made = mixed("MixUp", pictures(6), soft, num_classes=None)
    torch.testing.assert_close(made["label"].sum(1), torch.ones(6))
    again = TRANSFORMS.build({"type": "CutMix"}).batch(made, draws(6))
    torch.testing.assert_close(again["label"].sum(1), torch.ones(6))
    assert mixed("MixUp", pictures(1), torch.zeros(1).long(), count=1)["label"].tolist() == [[1.0]]


def test_each_image_is_mixed_in_one_of_two_ways():
    inside = [{"type": name, "num_classes": SIZE} for name in ("MixUp", "CutMix")]
    batch = {"image": pictures(SIZE), "label": torch.arange(SIZE)}
    made = TRANSFORMS.build({"type": "RandomChoice", "transforms": inside}).batch(batch, draws(SIZE))
    torch.testing.assert_close(made["label"].sum(1), torch.ones(SIZE))
    some = TRANSFORMS.build({"type": "RandomApply", "transforms": inside[:1], "p": 0.5}).batch(batch, draws(SIZE))
    whole = (some["label"] == 1).any(1)
    assert 0.2 < whole.double().mean() < 0.8
    assert torch.equal(some["image"][whole], batch["image"][whole])


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        ({}, {}, "and there is none; is it in batch_transforms"),
        ({"label": torch.zeros(4).long(), "boxes": []}, {}, "it cannot mix boxes"),
        ({"label": torch.zeros(4).long()}, {"num_classes": None}, "num_classes: missing"),
        ({"label": torch.zeros(4, 7)}, {}, "num_classes: is 2, and the labels are of 7 classes"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_words(batch, options, message):
    transform = TRANSFORMS.build({"type": "CutMix", "num_classes": 2, **options})
    with pytest.raises(ValueError, match=message):
        transform.batch({"image": pictures(4), **batch}, draws(4))
