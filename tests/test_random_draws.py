"""Random numbers for each image: functions of what they are for, equally distributed, and independent."""

from __future__ import annotations

import torch

from visreg.generators import mix
from visreg.random_draws import Draws, image_keys

COUNT = 20_000


def draws(seed=0, draw=0, first=0, place=(0, 0)):
    return Draws(image_keys(seed, draw, torch.arange(first, first + COUNT)), place)


def test_keys_are_those_of_single_samples():
    drawn, indices = torch.tensor([0, 3, 1 << 32, 5]), torch.tensor([9, 0, 2, 1 << 40])
    for seed in (0, 7, (1 << 63) - 1):
        expected = [mix(seed, *pair) for pair in zip(drawn.tolist(), indices.tolist(), strict=True)]
        assert image_keys(seed, drawn, indices).tolist() == expected
        assert image_keys(seed, 3, indices).tolist() == [mix(seed, 3, index) for index in indices.tolist()]


def test_numbers_are_equally_distributed():
    numbers = draws().uniform(3)
    assert (numbers.shape, numbers.dtype) == ((COUNT, 3), torch.float32)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts = torch.histc(column, 100, 0, 1)
        assert ((counts - COUNT / 100) ** 2 / (COUNT / 100)).sum() < 160  # chi-square, 99 degrees, once in 10,000
    bits = (draws().bits(2)[..., None] >> torch.arange(64)) & 1
    assert (bits.double().mean((0, 1)) - 0.5).abs().max() < 4 / (4 * 2 * COUNT) ** 0.5


def test_whole_numbers_are_below_their_bound():
    numbers = draws().integers(7, torch.arange(1, COUNT + 1), 1)
    assert torch.bincount(numbers[:, 0], minlength=7).double().div(COUNT).sub(1 / 7).abs().max() < 0.01
    assert (numbers[:, 1] < torch.arange(1, COUNT + 1)).all()
    assert (numbers[:, 1] / torch.arange(1, COUNT + 1)).mean().sub(0.5).abs() < 0.01
    assert not numbers[:, 2].any()


def test_whatever_differs_makes_other_and_independent_numbers():
    one = draws()
    found = [one.uniform(), one.uniform(), *one.uniform(2).T]
    found += [draws(**change).uniform() for change in ({"seed": 1}, {"draw": 1}, {"first": 1}, {"place": (0, 1)})]
    found += [draws(place=(1, 0)).uniform(), draws().inside(0).uniform(), draws().inside(1).uniform()]
    correlations = torch.corrcoef(torch.stack(found)) - torch.eye(len(found))
    assert correlations.abs().max() < 4.5 / COUNT**0.5
    assert torch.equal(found[0], draws().uniform())
    neighbours = torch.corrcoef(torch.stack([found[0][1:], found[0][:-1]]))[0, 1]
    assert neighbours.abs() < 4.5 / COUNT**0.5
