"""Batches by index: a function of the seed and the epoch, whatever the sampler."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from visreg.batching import Batching
from visreg.errors import DataError
from visreg.sampler import Sampler, permutation


class Twice(Sampler):
    """Every sample twice, and some of them once more."""

    def __init__(self, size, length=None):
        self.size, self.length = size, length or 2 * size + 3

    def __len__(self):
        return self.length

    def order(self, epoch, seed):
        return torch.cat([permutation(self.size, seed, epoch, turn) for turn in range(3)])[: self.length]


class Given(Sampler):
    def __init__(self, order, length=3):
        self.given, self.length = order, length

    def __len__(self):
        return self.length

    def order(self, epoch, seed):
        return self.given


def batching(sampler=None, **options):
    return Batching(**{"size": 10, "batch_size": 4, "train": True, "seed": 1, "sampler": sampler, **options})


@pytest.mark.parametrize("sampler", [None, Twice(10)])
def test_batches_are_the_order_cut_up(sampler):
    cut = batching(sampler)
    assert torch.equal(torch.cat(list(cut.batches(3))), cut.order(3))
    assert len(cut) == len(list(cut.batches(3))) == -(-len(cut.order(3)) // 4)
    assert not torch.equal(cut.order(3), cut.order(4))
    assert torch.equal(cut.order(3), batching(sampler).order(3))
    for start in range(len(cut) + 1):
        assert [part.tolist() for part in cut.batches(3, start)] == [part.tolist() for part in cut.batches(3)][start:]


@pytest.mark.parametrize("sampler", [None, Twice(10), Twice(10, 24)])
@pytest.mark.parametrize("size", [1, 2])
def test_keys_are_the_batches_and_never_the_same_twice(world, sampler, size):
    seen = []
    for rank in range(size):
        world(rank, size)
        cut = batching(sampler)
        for epoch in range(3):
            for start in (0, 1):
                indices = [[index for _, index in keys] for keys in cut.keys(epoch, start)]
                assert indices == [part.tolist() for part in cut.batches(epoch, start)]
            seen += chain(*cut.keys(epoch))
    assert len(seen) == len(set(seen))
    assert all(draw < 1 << 40 for draw, _ in seen)


def test_the_first_time_in_an_epoch_a_sample_is_drawn_by_the_epoch():
    assert {draw for keys in batching().keys(5) for draw, _ in keys} == {5}
    first = dict.fromkeys(range(10))
    for draw, index in chain(*batching(Twice(10)).keys(5)):
        first[index] = draw if first[index] is None else first[index]
    assert set(first.values()) == {5}


@pytest.mark.parametrize("length", [23, 24])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_what_a_sampler_gives(world, length, drop_last):
    shares = []
    for rank in (0, 1):
        world(rank, 2)
        shares.append([part.tolist() for part in batching(Twice(10, length), drop_last=drop_last).batches(0)])
    world(0, 1)
    alone = [part.tolist() for part in batching(Twice(10, length), drop_last=drop_last).batches(0)]
    assert [len(part) for part in shares[0]] == [len(part) for part in shares[1]]
    for mine, theirs, both in zip(*shares, alone, strict=True):
        assert [*chain(*zip(mine, theirs, strict=True))] == both[: 2 * len(mine)]


@pytest.mark.parametrize(
    "order",
    [torch.tensor([0, 1]), torch.tensor([0, 1, 10]), torch.tensor([-1, 0, 1]), torch.ones(3), torch.ones(1, 3).long()],
)
def test_a_sampler_that_gives_anything_else_is_named(order):
    with pytest.raises(DataError, match=r"train\.sampler: Given must give 3 int64 indices below 10, not"):
        next(batching(Given(order)).batches(0))
    assert next(batching(Given(torch.tensor([0, 9, 9]))).batches(0)).tolist() == [0, 9, 9]


def test_a_sampler_that_gives_less_than_a_batch_is_refused():
    with pytest.raises(DataError, match="has 3 samples, which is less than one batch of 4"):
        batching(Given(torch.tensor([0, 1, 2])), drop_last=True)
