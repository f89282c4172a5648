"""visreg's own transforms: torchvision's pixels, with the same parameters image by image, and its distributions."""

from __future__ import annotations

import pickle

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from visreg.data import IGNORE
from visreg.random_draws import Draws, image_keys
from visreg.registry import TRANSFORMS
from visreg.transforms.images import torchvisions

COUNT = 24
JITTER = {"type": "ColorJitter", "brightness": 0.4, "contrast": 0.5, "saturation": 0.6}
FLIP = {"type": "RandomHorizontalFlip", "p": 0.3}
SPECS = [
    FLIP,
    {"type": "RandomVerticalFlip", "p": 0.7},
    {"type": "RandomCrop", "size": 32, "padding": 4},
    {"type": "RandomCrop", "size": [20, 25]},
    {"type": "RandomCrop", "size": 36, "padding": [4, 3, 2, 1], "fill": [7, 8, 9]},
    {"type": "RandomCrop", "size": 40, "pad_if_needed": True, "fill": 77},
    {"type": "RandomCrop", "size": 32, "padding": 5, "padding_mode": "reflect"},
    {"type": "RandomCrop", "size": 32, "padding": 5, "padding_mode": "symmetric"},
    {"type": "RandomCrop", "size": 32, "padding": [2, 5], "padding_mode": "edge"},
    {"type": "RandomAffine", "degrees": 30, "translate": [0.2, 0.1], "scale": [0.7, 1.3], "shear": [-5, 5, -9, 9]},
    {"type": "RandomAffine", "degrees": [10, 20], "shear": 8, "fill": 50, "center": [3, 5]},
    {"type": "RandomAffine", "degrees": 30, "interpolation": "bilinear", "fill": [10, 20, 30]},
    {"type": "RandomRotation", "degrees": 45},
    {"type": "RandomRotation", "degrees": [-90, 20], "interpolation": "bilinear", "center": [1, 30]},
    {"type": "RandomResizedCrop", "size": 32},
    {"type": "RandomResizedCrop", "size": [9, 14], "scale": [0.5, 1.0]},
    {"type": "RandomResizedCrop", "size": 17, "antialias": False},
    {"type": "RandomResizedCrop", "size": 17, "interpolation": "nearest"},
    {"type": "ColorJitter", "brightness": 0.5},
    {"type": "ColorJitter", "contrast": [0.2, 2.0]},
    {"type": "ColorJitter", "saturation": 0.9},
    {"type": "ColorJitter", "hue": 0.5},
    JITTER,
    {**JITTER, "hue": 0.2},
    {"type": "RandomGrayscale", "p": 0.4},
    {"type": "RandomErasing"},
    {"type": "RandomErasing", "p": 0.8, "value": [1, 2, 3], "scale": [0.1, 0.9]},
]
OTHERS = [
    {"type": "ColorJitter"},
    {"type": "RandomErasing", "value": "random"},
    {"type": "Cutout", "length": 9, "n_holes": 2},
    {"type": "RandomApply", "transforms": [JITTER, FLIP], "p": 0.4},
    {"type": "RandomChoice", "transforms": [JITTER, FLIP, {"type": "Cutout", "length": 5}], "p": [0.2, 0.3, 0.5]},
]


def name(spec):
    return f"{spec['type']}-{'-'.join(map(str, [*spec.values()][1:]))}"[:60]


def pictures(count=COUNT, channels=3, height=32, width=32, seed=0):
    """Return images with edges and smooth parts, uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = torch.rand(count, channels, height, width, generator=generator) * 0.2
    return ((smooth + noise) * 255 / 1.2).to(torch.uint8)


def draws(count=COUNT, seed=1, first=0, place=(0, 2)):
    return Draws(image_keys(seed, 0, torch.arange(first, first + count)), place)


def hue(image, factor):
    return functional.adjust_hue(image, float(factor))


ADJUST = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}


def theirs(spec, transform, image, drawn, i):
    """Return what torchvision makes of one image with what was drawn for it."""
    kind = spec["type"]
    inner = torchvisions(transform).inner
    if kind in ("RandomHorizontalFlip", "RandomVerticalFlip"):
        flip = functional.horizontal_flip if "Hor" in kind else functional.vertical_flip
        return flip(image) if drawn["flip"][i] else image
    if kind == "RandomCrop":
        padding, (top, left) = transform.borders(*image.shape[-2:]), drawn["place"][i].tolist()
        fill, mode = spec.get("fill", 0), spec.get("padding_mode", "constant")
        return functional.crop(functional.pad(image, list(padding), fill, mode), top, left, *inner.size)
    if kind in ("RandomAffine", "RandomRotation"):
        angle, scale = drawn["angle"][i].item(), drawn["scale"][i].item()
        shear, shift = drawn["shear"][i].tolist(), [*map(int, drawn["shift"][i].tolist())]
        options = {"interpolation": inner.interpolation, "fill": spec.get("fill", 0), "center": spec.get("center")}
        if kind == "RandomRotation":
            return functional.rotate(image, -angle, **options)
        return functional.affine(image, angle, shift, scale, shear, **options)
    if kind == "RandomResizedCrop":
        options = {"interpolation": inner.interpolation, "antialias": inner.antialias}
        return functional.resized_crop(image, *drawn["box"][i].tolist(), inner.size, **options)
    if kind == "ColorJitter":
        names = [each for each in ADJUST if each in spec]
        for which in drawn["order"][i].tolist():
            image = ADJUST[names[which]](image, drawn["factor"][i, which].item())
        return image
    if kind == "RandomGrayscale":
        return functional.rgb_to_grayscale(image, 3) if drawn["grey"][i] else image
    value = torch.tensor(inner.value)[:, None, None]
    return functional.erase(image, *drawn["box"][i].tolist(), value)


@pytest.mark.parametrize("spec", SPECS, ids=name)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_are_torchvisions_with_the_same_parameters(spec, dtype):
    transform = TRANSFORMS.build(spec)
    image = pictures() if dtype == torch.uint8 else pictures().float() / 255
    drawn = transform.draw(draws(), image)
    ours = transform.change(image, drawn)
    expected = torch.stack([theirs(spec, transform, image[i], drawn, i) for i in range(COUNT)])
    assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
    if (
        spec["type"] == "RandomResizedCrop" and dtype == torch.uint8
    ):  # its own bytes are 1 off now and then, as ours are
        expected = torch.stack([theirs(spec, transform, image[i].float(), drawn, i) for i in range(COUNT)])
    apart = (ours.double() - expected.double()).abs() * (1 if dtype == torch.uint8 else 255)
    if spec["type"] in ("RandomAffine", "RandomRotation") and "interpolation" not in spec:
        assert (apart > 0).double().mean() < 1e-3  # where two pixels are equally near
    else:
        several = sum(change in spec for change in ADJUST) > 1  # of which each may round another way
        assert apart.max() <= (2 if several else 1)
        assert (apart > 1).double().mean() < 1e-3


@pytest.mark.parametrize("spec", SPECS + OTHERS, ids=name)
@pytest.mark.parametrize("kind", ["colour", "grey", "float"])
def test_an_image_is_the_same_alone_and_in_a_batch(spec, kind):
    if kind == "grey" and any(isinstance(spec.get(key), list) for key in ("fill", "value")):
        return
    image = pictures(channels=1 if kind == "grey" else 3)
    image = image.float() / 255 if kind == "float" else image
    mask = torch.randint(0, 5, (COUNT, 32, 32), generator=torch.Generator().manual_seed(0))
    transform = TRANSFORMS.build(spec)
    before = image.clone(), mask.clone()
    whole = transform.batch({"image": image, "mask": mask, "label": torch.arange(COUNT)}, draws())
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])
    assert torch.equal(whole["label"], torch.arange(COUNT))
    part = transform.batch({"image": image[5:9], "mask": mask[5:9]}, draws(4, first=5))
    for key in ("image", "mask"):
        assert torch.equal(part[key], whole[key][5:9])
    for i in range(COUNT):
        sample = {"image": image[i], "mask": mask[i], "label": torch.tensor(i), "name": "a"}
        made = pickle.loads(pickle.dumps(transform)).sample(sample, draws(1, first=i))
        assert list(made) == list(sample)
        assert torch.equal(made["image"], whole["image"][i])
        assert torch.equal(made["mask"], whole["mask"][i])
    colours = spec["type"] == "RandomGrayscale" or spec.keys() <= {"type", "saturation", "hue"}
    if not colours or (kind != "grey" and len(spec) > 1):
        assert not torch.equal(transform.batch({"image": image}, draws(seed=2))["image"], whole["image"])
        assert not torch.equal(transform.batch({"image": image}, draws(place=(0, 3)))["image"], whole["image"])


@pytest.mark.parametrize("spec", SPECS, ids=name)
def test_a_mask_moves_as_the_image_does(spec):
    mask = torch.randint(0, 100, (COUNT, 32, 32), generator=torch.Generator().manual_seed(0))
    transform = TRANSFORMS.build({**spec, **({"interpolation": "nearest"} if "interpolation" in spec else {})})
    made = transform.batch({"image": mask[:, None].to(torch.uint8).expand(-1, 3, -1, -1), "mask": mask}, draws())
    if not transform.moves:
        assert torch.equal(made["mask"], mask)
    elif spec["type"] != "RandomResizedCrop" or spec.get("interpolation") == "nearest":
        inside = made["mask"] != IGNORE
        assert torch.equal(made["image"][:, 1].long()[inside], made["mask"][inside])
        fill = spec.get("fill", 0)
        outside = made["image"][:, 1][~inside].unique().tolist()
        assert outside in ([], [fill[1] if isinstance(fill, list) else fill])


# Distributions

MANY = 4000


def apart(one, other):
    """Return the largest distance between two empirical distributions: Kolmogorov and Smirnov's."""
    values = torch.cat([one, other]).double().unique()
    shares = [torch.searchsorted(each.double().sort().values, values, right=True) / len(each) for each in (one, other)]
    return (shares[0] - shares[1]).abs().max().item()


LIMIT = 1.95 * (2 / MANY) ** 0.5  # passed by chance once in a thousand times; the seeds are fixed


def many(spec, image):
    """Return what is drawn for MANY images, by ours and by torchvision's."""
    transform = TRANSFORMS.build(spec)
    ours = transform.draw(draws(MANY), image.expand(MANY, -1, -1, -1))
    inner = torchvisions(transform).inner
    torch.manual_seed(3)
    return ours, [inner.make_params([image[0]]) for _ in range(MANY)]


def column(params, *keys):
    values = []
    for each in params:
        for key in keys:
            each = each[key]
        values.append(float(each))
    return torch.tensor(values)


def same_distributions(pairs):
    for ours, expected in pairs:
        assert apart(ours, expected) < LIMIT


def test_crops_are_as_probable_as_torchvisions():
    ours, expected = many({"type": "RandomCrop", "size": [30, 28], "padding": [4, 3]}, pictures(1))
    same_distributions(zip(ours["place"].T, (column(expected, "top"), column(expected, "left")), strict=True))
    pairs = ours["place"][:, 0] * 13 + ours["place"][:, 1]
    counts = torch.bincount(pairs, minlength=9 * 13)
    assert len(counts) == 9 * 13
    assert ((counts - MANY / 117) ** 2 / (MANY / 117)).sum() < 175  # chi-square, 116 degrees of freedom, once in 2000


def test_resized_crops_are_as_probable_as_torchvisions():
    for spec in ({}, {"scale": [0.7, 1.0], "ratio": [2.0, 4.0]}, {"scale": [0.9, 1.0], "ratio": [5.0, 6.0]}):
        ours, expected = many({"type": "RandomResizedCrop", "size": 8, **spec}, pictures(1, height=24, width=40))
        same_distributions(
            (ours["box"][:, place], column(expected, key))
            for place, key in enumerate(("top", "left", "height", "width"))
        )


def test_turns_and_shifts_are_as_probable_as_torchvisions():
    spec = {"degrees": [-10, 30], "translate": [0.2, 0.1], "scale": [0.5, 1.5], "shear": [-5, 5, 0, 9]}
    ours, expected = many({"type": "RandomAffine", **spec}, pictures(1))
    pairs = [(ours[key], column(expected, key)) for key in ("angle", "scale")]
    pairs += [(ours["shear"][:, side], column(expected, "shear", side)) for side in (0, 1)]
    pairs += [(ours["shift"][:, side], column(expected, "translate", side)) for side in (0, 1)]
    ours, expected = many({"type": "RandomRotation", "degrees": 20}, pictures(1))
    same_distributions([*pairs, (-ours["angle"], column(expected, "angle"))])


def test_erased_rectangles_are_as_probable_as_torchvisions():
    ours, expected = many({"type": "RandomErasing", "p": 1.0}, pictures(1))
    same_distributions((ours["box"][:, place], column(expected, key)) for place, key in enumerate("ijhw"))
    box = TRANSFORMS.build({"type": "RandomErasing", "p": 0.3}).draw(draws(MANY), pictures(1))["box"]
    assert (box[:, 3] > 0).double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_colours_are_as_probable_as_torchvisions():
    ours, expected = many({**JITTER, "hue": [-0.1, 0.3]}, pictures(1))
    same_distributions(
        (ours["factor"][:, place], column(expected, f"{key}_factor")) for place, key in enumerate(ADJUST)
    )
    counts = torch.bincount((ours["order"] * torch.tensor([64, 16, 4, 1])).sum(1), minlength=256)
    assert (counts > 0).sum() == 24
    assert ((counts[counts > 0] - MANY / 24) ** 2 / (MANY / 24)).sum() < 50  # chi-square, 23 degrees, once in 1000


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_what_happens_now_and_then_does_so_as_often_as_it_says(p):
    for spec, key in (({"type": "RandomVerticalFlip"}, "flip"), ({"type": "RandomGrayscale"}, "grey")):
        drawn = TRANSFORMS.build({**spec, "p": p}).draw(draws(MANY), pictures(1))[key]
        assert drawn.double().mean().item() == pytest.approx(p, abs=3.5 * (p * (1 - p) / MANY) ** 0.5)
    inside = [{"type": "RandomHorizontalFlip", "p": 1.0}]
    image = torch.arange(2, dtype=torch.uint8).expand(MANY, 1, 1, 2)
    applied = TRANSFORMS.build({"type": "RandomApply", "transforms": inside, "p": p}).batch(
        {"image": image}, draws(MANY)
    )
    assert applied["image"][..., 0].double().mean().item() == pytest.approx(p, abs=3.5 * (p * (1 - p) / MANY) ** 0.5)


@pytest.mark.parametrize("spec", [{"type": "RandomGrayscale", "p": 1.0}, JITTER], ids=lambda spec: spec["type"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_channels_beyond_the_colours_stay(spec, dtype):
    image = torch.rand(4, 4, 6, 5) if dtype.is_floating_point else torch.randint(256, (4, 4, 6, 5), dtype=dtype)
    change = TRANSFORMS.build(spec)
    made = change.batch({"image": image}, draws(4))["image"]
    assert torch.equal(made[:, 3], image[:, 3])
    assert torch.equal(made[:, :3], change.batch({"image": image[:, :3]}, draws(4))["image"])
    assert not torch.equal(made[:, :3], image[:, :3])


@pytest.mark.parametrize("kind", ["Cutout", "RandomErasing", "RandomGrayscale", "RandomCrop", "RandomHorizontalFlip"])
def test_no_images_stay_none(kind):
    options = {"Cutout": {"length": 3}, "RandomCrop": {"size": 32, "padding": 2}}.get(kind, {})
    made = TRANSFORMS.build({"type": kind, **options}).batch({"image": pictures()[:0]}, draws(0))
    assert made["image"].shape == (0, 3, 32, 32)


def test_each_image_gets_one_of_several():
    fills = [{"type": "Cutout", "length": 9, "fill": value} for value in (1, 2, 3)]
    choice = TRANSFORMS.build({"type": "RandomChoice", "transforms": fills, "p": [2, 0, 6]})
    made = choice.batch({"image": torch.zeros(MANY, 1, 2, 2, dtype=torch.uint8)}, draws(MANY))["image"]
    assert torch.bincount(made[:, 0, 0, 0], minlength=4).tolist() == pytest.approx(
        [0, MANY / 4, 0, MANY * 0.75], abs=100
    )


def test_cutout_covers_squares_anywhere():
    image = torch.full((MANY, 1, 10, 12), 9, dtype=torch.uint8)
    made = TRANSFORMS.build({"type": "Cutout", "length": 4, "fill": 3}).batch({"image": image}, draws(MANY))["image"]
    area = (made == 3).sum((1, 2, 3))
    assert area.max() == 16
    assert area.min() == 4  # a centre in the corner
    assert (area == 16).double().mean().item() == pytest.approx(7 * 9 / 120, abs=0.03)
    assert torch.equal(made.unique(), torch.tensor([3, 9], dtype=torch.uint8))


# Options


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "RandomCrop", "size": 0}, "size: must be a number of pixels"),
        ({"type": "RandomCrop", "size": [1, 2, 3]}, "size: must be a number of pixels"),
        ({"type": "RandomCrop", "size": 8, "padding": [1, 2, 3]}, "padding: must be one, two or four"),
        ({"type": "RandomCrop", "size": 8, "padding": -1}, "padding: must be one, two or four"),
        ({"type": "RandomCrop", "size": 8, "fill": []}, "fill: must be a number"),
        ({"type": "RandomHorizontalFlip", "p": 1.5}, "p: must be from 0 to 1, got 1.5"),
        ({"type": "RandomAffine", "degrees": -3}, "degrees: must be a number of degrees"),
        ({"type": "RandomAffine", "degrees": 3, "translate": [0.1, 2]}, "translate: must be two shares"),
        ({"type": "RandomAffine", "degrees": 3, "scale": [0, 2]}, "scale: must be two numbers above 0"),
        ({"type": "RandomAffine", "degrees": 3, "shear": [1, 2, 3]}, "shear: must be"),
        ({"type": "RandomResizedCrop", "size": 8, "scale": [0.5, 0.1]}, "scale: must be two numbers"),
        ({"type": "ColorJitter", "hue": 0.6}, "hue: must be"),
        ({"type": "ColorJitter", "contrast": -1}, "contrast: must be"),
        ({"type": "RandomErasing", "scale": [0.1, 1.2]}, "scale: must be at most 1"),
        ({"type": "RandomErasing", "ratio": [0, 1]}, "ratio: must be above 0"),
        ({"type": "RandomErasing", "value": "noise"}, "value: must be a number"),
        (
            {"type": "RandomChoice", "transforms": [FLIP], "p": [0.5, 0.5]},
            "p: must be a number from 0 up for each of 1",
        ),
    ],
)
def test_wrong_options_are_refused_in_words(spec, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(spec)


def test_images_that_do_not_fit_are_refused_in_words():
    image = {"image": pictures(2)}
    with pytest.raises(ValueError, match=r"crop size \(40, 40\) is larger than the image, \(32, 32\)"):
        TRANSFORMS.build({"type": "RandomCrop", "size": 40}).batch(image, draws(2))
    with pytest.raises(ValueError, match="fill: has 2 values, and the images have 3 channels"):
        TRANSFORMS.build({"type": "Cutout", "length": 4, "fill": [1, 2]}).batch(image, draws(2))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"type": "RandomRotation", "degrees": 45, "expand": True}, "different sizes"),
        ({"type": "RandomAffine", "degrees": 45, "interpolation": "bicubic"}, "bicubic"),
        ({"type": "RandomResizedCrop", "size": 8, "interpolation": "bicubic"}, "bicubic"),
        ({"type": "RandomApply", "transforms": [{"type": "RandomCrop", "size": 8}]}, "size of an image"),
        ({"type": "RandomChoice", "transforms": [{"type": "GaussianBlur", "kernel_size": 3}]}, "GaussianBlur"),
    ],
)
def test_what_cannot_be_computed_for_a_batch_is_torchvisions(spec, word):
    transform = TRANSFORMS.build(spec)
    assert word in transform.obstacle({"image"})
    if spec.get("interpolation") != "bicubic" or spec["type"] == "RandomResizedCrop":  # which it has of tensors
        torch.manual_seed(1)
        mine = transform.sample({"image": pictures(1)[0]}, draws(1))
        torch.manual_seed(1)
        assert torch.equal(mine["image"], torchvisions(transform)({"image": pictures(1)[0]})["image"])


def test_boxes_are_moved_by_torchvision():
    boxes, label = torch.tensor([[1.0, 2.0, 8.0, 9.0]]), torch.tensor([3])
    sample = {"image": pictures(1)[0], "boxes": boxes, "labels": label}
    flip = TRANSFORMS.build({"type": "RandomHorizontalFlip", "p": 1.0})
    assert flip.obstacle(sample) == "it moves boxes"
    moved = flip.sample(sample, draws(1))
    assert moved["boxes"].tolist() == [[24, 2, 31, 9]]
    assert torch.equal(moved["image"], sample["image"].flip(-1))
    jitter = TRANSFORMS.build(JITTER)
    assert not jitter.obstacle(sample)
    assert jitter.sample(sample, draws(1))["boxes"] is boxes


def test_v2_is_what_the_names_stand_for():
    for spec in SPECS:
        assert hasattr(v2, spec["type"])
