"""Scenes of shapes: what is known of them agrees with itself, and nothing but seed, split and index decides it."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import masks_to_boxes

from visreg.check import check_config
from visreg.config import config_from
from visreg.datasets.scene import CLASSES, CLUTTER, VISIBLE, _templates
from visreg.datasets.shapes import TARGETS, ShapeScenes
from visreg.errors import ConfigError


def scenes(count=40, **options):
    dataset = ShapeScenes(targets=TARGETS, size=count, **options)
    return [dataset[index] for index in range(count)]


@pytest.mark.parametrize("side", [32, 64, 96])
def test_boxes_masks_mask_and_label_tell_the_same(side):
    for sample in scenes(image_size=side):
        masks, labels = sample["masks"], sample["labels"]
        assert sample["image"].shape == (3, side, side)
        assert masks.shape == (len(labels), side, side)
        assert masks.flatten(1).any(1).all()
        assert masks.sum(0).max() == 1  # each pixel is of one shape
        last_pixel = torch.tensor([0, 0, 1, 1])
        assert torch.equal(sample["boxes"], masks_to_boxes(masks) + last_pixel)
        assert torch.equal(sample["mask"], (masks * (labels + 1)[:, None, None]).sum(0))
        assert sample["label"] in labels[masks.flatten(1).sum(1) == masks.flatten(1).sum(1).max()]


def test_samples_are_as_info_says():
    for targets in (*((target,) for target in TARGETS), ("boxes", "masks"), TARGETS):
        dataset = ShapeScenes(targets=targets, size=3)
        blank, sample = dataset.info.sample, dataset[2]
        assert sample.keys() == blank.keys()
        assert {key: value.dtype for key, value in sample.items()} == {key: value.dtype for key, value in blank.items()}
        assert all(value.ndim == blank[key].ndim for key, value in sample.items())
        assert dataset[2]["image"].equal(sample["image"])


def test_scenes_hold_every_class_and_every_number_of_shapes():
    samples = scenes(200, max_objects=4)
    assert torch.cat([sample["labels"] for sample in samples]).unique().tolist() == list(range(len(CLASSES)))
    assert {len(sample["labels"]) for sample in samples} == {1, 2, 3, 4}
    whole = _templates()[: len(CLASSES)].mean((1, 2)).min() * 1.05**2 * 4  # of a shape of radius 1
    smallest = min(int(masks.flatten(1).sum(1).min()) for masks in (sample["masks"] for sample in samples))
    assert smallest > 0.3 * VISIBLE * whole * (0.1 * 64) ** 2  # a rim of the image may hide some of it too


def test_seed_split_and_index_decide_alone():
    one = scenes(6)
    for same in (scenes(6), scenes(9)):
        for sample, other in zip(one, same, strict=False):
            assert all(torch.equal(sample[key], other[key]) for key in sample)
    for other in (scenes(6, seed=1), scenes(6, train=False), one[1:] + one[:1]):
        assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True))


def test_what_stacks_is_given_at_once():
    dataset = ShapeScenes(targets=["mask", "label"], size=5)
    one = dataset[3]
    held = dataset.tensors()
    assert {key: len(value) for key, value in held.items()} == {"image": 5, "label": 5, "mask": 5}
    for sample in (one, dataset[3]):
        assert all(torch.equal(held[key][3], value) for key, value in sample.items())
    assert ShapeScenes(targets=["boxes", "mask"]).tensors() is None


def test_names_of_the_classes_are_those_of_the_target():
    assert ShapeScenes().info.classes == CLASSES
    assert ShapeScenes(targets=["mask"]).info.classes == ("background", *CLASSES)
    both = ShapeScenes(targets=["boxes", "mask"]).info
    assert (both.classes_of("labels"), both.classes_of("mask")) == (CLASSES, ("background", *CLASSES))


def test_a_triangle_upside_down_is_the_other_class():
    up, down = (_templates()[CLASSES.index(f"triangle {way}")] for way in ("up", "down"))
    assert (up == down[::-1]).all()
    assert (up & down).sum() < 0.7 * up.sum()
    assert len(_templates()) == len(CLASSES) + len(CLUTTER)


def test_there_is_no_scene_beyond_the_last():
    with pytest.raises(IndexError, match="no number 2"):
        ShapeScenes(size=2)[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["box"]}, "targets: expected"),
        ({"targets": []}, "targets: length must be"),
        ({"max_objects": 0}, "max_objects: must be"),
        ({"image_size": 8}, "image_size: must be"),
    ],
)
def test_impossible_options_are_mistakes(options, message):
    with pytest.raises(ConfigError) as caught:
        check_config(config_from({"train": {"dataset": {"type": "ShapeScenes", **options}, "batch_size": 2}}))
    assert f"train.dataset.{message}" in str(caught.value)
