"""The samplers: how often each sample comes, and that the same seed and epoch give the same."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_config

from visreg.batching import Batching
from visreg.build import build_runner
from visreg.check import check_config
from visreg.config import config_from
from visreg.data import DataInfo, Dataset
from visreg.datasets.adopted import Adopted
from visreg.errors import ConfigError, DataError
from visreg.registry import SAMPLERS
from visreg.sampler import Sampler, permutation
from visreg.samplers.labelled import ClassAwareSampler, WeightedRandomSampler, labels_of
from visreg.samplers.rounds import InfiniteSampler, RepeatAugSampler

LABELS = torch.tensor([0] * 20 + [1] * 5 + [3] * 2)


class Labelled(Dataset):
    """Twenty-seven samples of the classes 0, 1 and 3."""

    info = DataInfo(name="labelled")

    def __init__(self, cheap=True, key="label", labels=LABELS):
        self.cheap, self.key, self.held = cheap, key, labels

    def open(self): ...

    def __len__(self):
        return len(self.held)

    def __getitem__(self, index):
        return {self.key: self.held[index]}

    def labels(self):
        return self.held if self.cheap else None


def made(name, **options):
    return SAMPLERS.build({"type": name, **options}, dataset=Labelled(), batch_size=4)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_an_order_depends_on_seed_and_epoch_alone(name):
    sampler = made(name)
    before = torch.get_rng_state()
    orders = {(seed, epoch): sampler.order(epoch, seed) for seed in range(3) for epoch in range(3)}
    assert torch.equal(torch.get_rng_state(), before)
    for (seed, epoch), order in reversed(orders.items()):
        assert torch.equal(made(name).order(epoch, seed), order)
        assert (order.dtype, order.shape) == (torch.int64, (len(sampler),))
        assert 0 <= order.min() <= order.max() < 27
    assert len({tuple(order.tolist()) for order in orders.values()}) == 9


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_run_trains_with_it(name, tmp_path):
    config = tiny_config(run={"work_dir": str(tmp_path), "epochs": 1})
    config["train"]["sampler"] = {"type": name}
    runner = build_runner(config)
    runner.train()
    assert runner.step == len(runner.train_loader) > 0


def test_infinite_rounds_meet_without_a_short_batch():
    sampler = InfiniteSampler(dataset=Labelled(), batch_size=4)
    assert len(sampler) == 28
    stream = torch.cat([sampler.order(epoch, 5) for epoch in range(27)])
    rounds = [permutation(27, 5, number) for number in range(28)]
    assert torch.equal(stream, torch.cat(rounds))
    cut = Batching(size=27, batch_size=4, train=True, seed=5, sampler=sampler)
    assert {len(batch) for epoch in range(3) for batch in cut.batches(epoch)} == {4}


def test_an_infinite_sampler_of_more_than_one_round_an_epoch():
    sampler = InfiniteSampler(dataset=Labelled(labels=LABELS[:3]), batch_size=8)
    stream = torch.cat([sampler.order(epoch, 0) for epoch in range(3)])
    assert torch.equal(stream, torch.cat([permutation(3, 0, number) for number in range(8)]))


def test_repeated_samples_follow_one_another():
    sampler = RepeatAugSampler(dataset=Labelled(), num_repeats=3)
    order = sampler.order(0, 0).view(27, 3)
    assert len(sampler) == 81
    assert (order == order[:, :1]).all()
    assert sorted(order[:, 0].tolist()) == list(range(27))


def shares(order):
    return (LABELS[order].bincount(minlength=4) / len(order)).tolist()


def test_weights_are_how_often_a_sample_comes():
    weights = [1.0] * 26 + [26.0]
    sampler = WeightedRandomSampler(dataset=Labelled(), weights=weights, num_samples=40_000)
    counts = sampler.order(0, 0).bincount(minlength=27) / 40_000
    assert counts[26] == pytest.approx(0.5, abs=0.01)
    assert counts[:26].tolist() == pytest.approx([1 / 52] * 26, abs=0.004)
    zero = WeightedRandomSampler(dataset=Labelled(), weights=[0.0] * 3 + [1.0, 0.0] * 12, num_samples=9999)
    assert set(zero.order(0, 0).tolist()) == {*range(3, 27, 2)}


def test_weights_of_classes():
    balanced = WeightedRandomSampler(dataset=Labelled(), num_samples=30_000)
    assert shares(balanced.order(0, 0)) == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.01)
    own = WeightedRandomSampler(dataset=Labelled(), class_weights=[1, 0, 0, 10], num_samples=30_000)
    assert shares(own.order(0, 0)) == pytest.approx([0.5, 0, 0, 0.5], abs=0.01)
    assert len(WeightedRandomSampler(dataset=Labelled())) == 27


def test_classes_in_turn():
    sampler = ClassAwareSampler(dataset=Labelled(), num_samples=90)
    order = sampler.order(0, 0)
    turns = LABELS[order].view(30, 3).sort(1).values
    assert (turns == torch.tensor([0, 1, 3])).all()
    counts = order.bincount(minlength=27)
    assert counts[:20].min() == 1  # each round is complete before the next
    assert counts[:20].max() == 2
    assert counts[20:25].tolist() == [6] * 5
    assert counts[25:].tolist() == [15] * 2
    assert len(ClassAwareSampler(dataset=Labelled())) == 27


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0]}, "weights: are 1, and the dataset has 27 samples"),
        ({"weights": [1.0] * 27, "class_weights": [1.0] * 4}, "contradict weights"),
        ({"class_weights": [1.0] * 3}, "class_weights: are 3, and the labels go up to 3"),
    ],
)
def test_weights_that_do_not_fit_the_data_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WeightedRandomSampler(dataset=Labelled(), **options)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"sampler": {"type": "WeightedRandomSampler", "weights": [-1.0]}}, "train.sampler.weights: must be numbers"),
        ({"sampler": {"type": "WeightedRandomSampler", "weights": [0.0]}}, "train.sampler.weights: must be numbers"),
        ({"sampler": {"type": "WeightedRandomSampler", "num_samples": 0}}, "train.sampler.num_samples: must be >= 1"),
        ({"sampler": {"type": "RepeatAugSampler", "num_repeats": 0}}, "train.sampler.num_repeats: must be >= 1"),
        ({"sampler": {"type": "RepeatAugSampler", "repeats": 2}}, "did you mean 'num_repeats'"),
        ({"sampler": {"type": "InfiniteSampler", "batch_size": 2}}, "train.sampler.batch_size: is set by visreg"),
        ({"sampler": {"type": "InfinitSampler"}}, "did you mean 'InfiniteSampler'"),
        ({"sampler": "InfiniteSampler"}, "train.sampler: expected dict"),
        ({"sampler": {"type": "InfiniteSampler"}, "shuffle": True}, "train.shuffle: contradicts train.sampler"),
    ],
)
def test_mistakes_in_a_config_are_found(train, message):
    with pytest.raises(ConfigError) as caught:
        check_config(config_from(tiny_config(train=train)))
    assert message in str(caught.value)


def test_an_evaluation_has_no_sampler():
    with pytest.raises(ConfigError, match=r"val.sampler: of no use"):
        check_config(config_from(tiny_config(val={"sampler": {"type": "InfiniteSampler"}})))


def test_weights_that_do_not_fit_are_a_mistake_in_the_config():
    config = tiny_config(train={"sampler": {"type": "WeightedRandomSampler", "weights": [1.0, 2.0]}})
    with pytest.raises(ConfigError, match=r"train.sampler: ValueError: weights: are 2"):
        build_runner(config)


def test_a_plugin_brings_its_own(tmp_path):
    class Backwards(Sampler):
        """Last to first."""

        def __init__(self, dataset: Dataset, skip: int = 0) -> None:
            self.length, self.skip = len(dataset), skip

        def __len__(self):
            return self.length - self.skip

        def order(self, epoch, seed):
            return torch.arange(len(self)).flip(0)

    SAMPLERS.register(Backwards)
    train = {"sampler": {"type": "Backwards", "skip": 7}}
    runner = build_runner(tiny_config(train=train, run={"work_dir": str(tmp_path)}))
    first = next(runner.train_loader.epoch(0))["index"]
    size = runner.train_loader.samples
    assert first.tolist() == list(range(size - 8, size - 108, -1))


def test_what_is_no_sampler_is_refused(tmp_path):
    class NoSampler:
        """An order of its own."""

    SAMPLERS.register(NoSampler)
    with pytest.raises(ConfigError, match=r"train.sampler: NoSampler is not a Sampler; derive it from visreg.Sampler"):
        build_runner(tiny_config(train={"sampler": {"type": "NoSampler"}}, run={"work_dir": str(tmp_path)}))


def test_labels_are_asked_for_or_else_read():
    assert torch.equal(labels_of(Labelled()), LABELS)
    assert torch.equal(labels_of(Labelled(cheap=False)), LABELS)
    with pytest.raises(DataError, match="samples without a label"):
        labels_of(Labelled(cheap=False, key="boxes"))
    with pytest.raises(DataError, match="label below 0: -1"):
        labels_of(Labelled(labels=torch.tensor([0, -1])))


def test_labels_of_other_libraries_datasets():
    class Pairs:
        targets = (2, 0, 1)

        def __init__(self, last=1, **transforms):
            self.last = last
            vars(self).update(transforms)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.zeros(1, 2, 2), (2, 0, self.last)[index]

    assert Adopted(factory=Pairs, arguments={}).labels().tolist() == [2, 0, 1]
    assert Adopted(factory=Pairs, arguments={"target_transform": int}).labels() is None
    assert Adopted(factory=Pairs, arguments={"last": 0}).labels() is None  # the targets mean something else
    assert labels_of(Adopted(factory=Pairs, arguments={"last": 0})).tolist() == [2, 0, 0]
