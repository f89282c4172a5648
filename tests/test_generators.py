"""Random generators: seeds made of what the randomness is for, and states that come back."""

from __future__ import annotations

import io
import random

import numpy
import pytest
import torch

from visreg import generators
from visreg.generators import mix, seeded

CPU = torch.device("cpu")


def draw():
    return float(torch.rand(())), random.random(), float(numpy.random.rand())


def drawn(*parts):
    with seeded(*parts):
        return draw()


def test_seeded_draws_are_a_function_of_the_parts():
    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    others = [drawn(*parts) for parts in ((1, 2, 3), (1, 3, 2), (1, 2), (0, 1, 2, 3), (2, 2, 3))]
    for generator in zip(*others, strict=True):  # each of the three
        assert len(set(generator)) == 5


def test_seeded_puts_every_generator_back_even_after_an_error():
    generators.set_state(generators.state(CPU), CPU)
    before = generators.state(CPU)
    drawn(5)
    with pytest.raises(ZeroDivisionError), seeded(6):
        draw()[0] / 0
    after = generators.state(CPU)
    assert torch.equal(before.pop("torch"), after.pop("torch"))
    assert before == after


def test_seeded_may_be_nested():
    with seeded(1):
        first = draw()
        with seeded(2):
            inner = draw()
        second = draw()
    with seeded(1):
        assert (draw(), draw()) == (first, second)
    assert inner == drawn(2)


def test_states_are_plain_and_bring_the_same_numbers_back():
    draw()
    random.gauss(0, 1)  # keeps a second number for later
    numpy.random.randn()
    file = io.BytesIO()
    torch.save(generators.state(CPU), file)
    wanted = [draw(), random.gauss(0, 1), float(numpy.random.randn())]
    file.seek(0)
    generators.set_state(torch.load(file, weights_only=True), CPU)
    assert [draw(), random.gauss(0, 1), float(numpy.random.randn())] == wanted


def test_a_state_without_numpy_leaves_numpy_alone(monkeypatch):
    monkeypatch.delitem(generators.sys.modules, "numpy")
    state = generators.state(CPU)
    assert "numpy" not in state
    assert drawn_without_numpy(3) == drawn_without_numpy(3)
    monkeypatch.undo()
    numpy.random.seed(4)
    generators.set_state(state, CPU)
    found = numpy.random.rand()
    numpy.random.seed(4)
    assert numpy.random.rand() == found


def drawn_without_numpy(seed):
    with seeded(seed):
        return float(torch.rand(())), random.random()


def test_mix_is_splitmix64():
    """The first outputs of the reference implementation, of seed 0, but for the lowest bit."""
    assert mix(0) == 0xE220A8397B1DCDAF >> 1
    assert mix() == 0
    assert 0 <= mix(-1, 2**80) < 2**63


def test_mix_tells_neighbours_apart():
    pairs = {(one, two) for one in range(30) for two in range(30)}
    parts = pairs | {(*pair, 0) for pair in pairs} | {(0, *pair) for pair in pairs}
    assert len({mix(*some) for some in parts}) == len(parts)


def test_seeding_the_others_leaves_torch_alone():
    before = torch.get_rng_state()
    generators.seed_others(5)
    first = random.random(), numpy.random.rand()
    generators.seed_others(5)
    assert (random.random(), numpy.random.rand()) == first
    assert torch.equal(torch.get_rng_state(), before)
