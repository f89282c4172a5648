"""Clips whose class is the motion, of which one frame tells nothing."""

from __future__ import annotations

import re

import pytest
import torch
from attrs import evolve

from visreg.datasets.shape_clips import MOTIONS, ShapeClips, _frames
from visreg.generators import mix


def clip(motion, seed=1, **options):
    return torch.stack([scene.picture() for scene in _frames(seed, motion, ShapeClips(**options))])


def test_a_clip_depends_on_seed_split_and_index_alone():
    one, more = ShapeClips(size=3), ShapeClips(size=9, frames=12)
    for index in (2, 0):
        assert torch.equal(one[index]["clip"], more[index]["clip"][:8])
        assert one[index]["label"] == more[index]["label"]
    others = [ShapeClips(size=3, seed=1), ShapeClips(size=3, train=False)]
    assert all(not torch.equal(one[0]["clip"], other[0]["clip"]) for other in others)


def test_held_clips_are_those_drawn_one_by_one():
    dataset = ShapeClips(size=12)
    drawn = [dataset[index] for index in range(12)]
    tensors = dataset.tensors()
    assert torch.equal(tensors["clip"], torch.stack([sample["clip"] for sample in drawn]))
    assert tensors["label"].tolist() == [int(sample["label"]) for sample in drawn] == dataset.labels().tolist()
    assert tensors["clip"].dtype == torch.uint8
    with pytest.raises(IndexError, match=re.escape("12 clips")):
        dataset[12]


def test_the_first_frame_is_the_same_whatever_the_motion():
    for seed in range(5):
        first, second = (torch.stack([clip(motion, seed)[number] for motion in MOTIONS]) for number in (0, 1))
        assert (first == first[0]).all()
        assert len(set(map(str, (second != second[0]).flatten(1).sum(1).tolist()))) > 1


def phases(motion, count, frame):
    """Return where the shapes of many clips are in one of their frames: x and y, in sides of the picture."""
    found = []
    for index in range(count):
        clips = ShapeClips(frames=frame + 1, max_objects=1)
        *_, scene = _frames(mix(0, index), motion, clips)
        own = scene.kinds < 7
        found.append(torch.tensor(scene.places[own][0] / 32 % 1))
    return torch.stack(found)


@pytest.mark.parametrize("frame", [0, 7])
def test_places_are_spread_evenly_in_every_frame_of_every_motion(frame):
    for motion in ("left", "down", "clockwise"):
        places = phases(motion, 400, frame).sort(dim=0).values
        even = (torch.arange(400)[:, None] + 0.5) / 400
        assert (places - even).abs().max() < 1.95 / 400**0.5  # Kolmogorov and Smirnov's bound at a level of 0.1 %


@pytest.mark.parametrize("motion", MOTIONS)
def test_things_move_as_their_class_says(motion):
    before, after = (scenes := [*_frames(3, motion, ShapeClips(frames=5, max_objects=1, image_size=64))])[:2]
    moves = {scene: _centre(scene, scenes) for scene in (0, 1)}
    dx, dy = moves[1] - moves[0]
    turned = float(after.angles[-1] - before.angles[-1])
    grown = float(after.radii[-1, 0] / before.radii[-1, 0])
    sign = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(motion, (0, 0))
    assert (dx.sign(), dy.sign()) == sign
    assert (turned > 0) == (motion == "clockwise")
    assert (turned < 0) == (motion == "counterclockwise")
    assert (grown > 1) == (motion == "growing")
    assert (grown < 1) == (motion == "shrinking")


def _centre(number, scenes):
    """Return the x and y of the shape in a scene that is nearest to where it was in the first, in pixels."""
    first, scene = scenes[0], scenes[number]
    start = torch.tensor(first.places[first.kinds < 7][0])
    places = torch.tensor(scene.places[scene.kinds < 7])
    return places[(places - start).norm(dim=1).argmin()].round(decimals=3)


def test_a_positive_angle_is_clockwise():
    scene = next(_frames(3, "left", ShapeClips(image_size=64)))
    up = 5  # a triangle that points up, alone
    alone = {"kinds": scene.kinds[:1] * 0 + up, "places": scene.places[:1] * 0 + 32, "radii": scene.radii[:1] * 0 + 25}
    alone |= {"colours": scene.colours[:1] * 0 + 255, "slopes": scene.slopes[:1] * 0, "angles": scene.angles[:1] * 0}
    black = {"background": scene.background * 0, "noise": scene.noise * 0}
    upright = evolve(scene, **alone, **black)
    picture = evolve(upright, angles=upright.angles + torch.pi / 2).picture()[0]
    rows, columns = (picture > 0).sum(1), (picture > 0).sum(0)
    assert columns[:32].sum() > columns[32:].sum()  # it points to the right now: most of it is on the left
    assert abs(int(rows[:32].sum()) - int(rows[32:].sum())) < 60


@pytest.mark.parametrize("options", [{"size": 0}, {"frames": 0}, {"image_size": 8}, {"max_objects": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=f"'{next(iter(options))}'"):
        ShapeClips(**options)
