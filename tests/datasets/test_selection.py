"""Some samples of a dataset: subsets, folds, repeats, and the rarer classes more often."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from attrs import evolve

from visreg.data import DataInfo, Dataset, collate
from visreg.datasets import selection
from visreg.datasets.digits import Digits
from visreg.datasets.selection import ClassBalanced, Repeat
from visreg.datasets.shapes import ShapeScenes
from visreg.datasets.subsets import KFold, Subset
from visreg.errors import DataError
from visreg.registry import DATASETS

KINDS = {kind.__name__: kind for kind in (ClassBalanced, KFold, Repeat, Subset)}


class Labelled(Dataset):
    """Samples whose image is their number; with ``objects`` a sample has boxes of the classes listed for it."""

    def __init__(self, labels, objects=False, known=True):
        self.given, self.objects, self.known = labels, objects, known

    @property
    def info(self):
        keys = ("image", "boxes", "labels") if self.objects else ("image", "label")
        return DataInfo(name="made up", classes=tuple("abcd"), keys=keys)

    def open(self): ...

    def __len__(self):
        return len(self.given)

    def __getitem__(self, index):
        image = torch.full((1, 2, 2), index, dtype=torch.uint8)
        if not self.objects:
            return {"image": image, "label": torch.tensor(self.given[index])}
        labels = torch.tensor(self.given[index], dtype=torch.int64)
        return {"image": image, "labels": labels, "boxes": torch.tensor([[0.0, 0, 1, 1]]).repeat(len(labels), 1)}

    def labels(self):
        return torch.tensor(self.given) if self.known and not self.objects else None

    def tensors(self):
        return None if self.objects else collate([self[index] for index in range(len(self))])


class Stream(Labelled):
    def stream(self):
        return lambda position: iter(())


def made(kind, dataset, **options):
    made = KINDS[kind](dataset=dataset, **options)
    made.open()
    return made


def numbers(dataset):
    return [int(dataset[index]["image"][0, 0, 0]) for index in range(len(dataset))]


ALL = [
    ("Subset", {"indices": [3, 1, -1]}), ("Subset", {"count": 5}), ("Subset", {"fraction": 0.5, "stratify": True}),
    ("Subset", {"classes": ["c", "a"]}), ("Subset", {"classes": ["a", "b"], "count": 2, "rest": True}),
    ("KFold", {"folds": 3, "fold": 1, "part": "train"}), ("KFold", {"folds": 3, "part": "val", "stratify": True}),
    ("Repeat", {"times": 3}), ("ClassBalanced", {"threshold": 0.9}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), ALL)
def test_all_ways_to_read_it_agree(kind, options):
    data = Labelled([0, 1, 2, 0, 1, 2, 0, 0, 0, 3])
    dataset = made(kind, data, **options)
    samples = collate([dataset[index] for index in range(len(dataset))])
    for key, value in dataset.tensors().items():
        assert torch.equal(value, samples[key])
    assert torch.equal(dataset.labels(), samples["label"])
    assert [dataset.classes_in(index) for index in range(len(dataset))] == [
        {label} for label in samples["label"].tolist()
    ]
    assert dataset.at(0, 7)["image"].equal(dataset[0]["image"])
    assert dataset.where(0) == f"made up[{numbers(dataset)[0]}]"
    fold = f" (fold {options.get('fold', 0)})" * (kind == "KFold")
    assert dataset.info == evolve(data.info, name=f"{data.info.name}{fold}")
    unknown = made(kind, Labelled(data.given, known=False), **options)
    assert numbers(unknown) == numbers(dataset)
    assert unknown.labels() is None


def test_listed_samples_come_in_the_listed_order():
    assert numbers(made("Subset", Labelled([0] * 6), indices=[4, 0, -1])) == [4, 0, 5]
    assert numbers(made("Subset", Labelled([0] * 6), indices=[4, 0, -1], rest=True)) == [1, 2, 3]
    with pytest.raises(DataError, match=r"Subset.indices: made up has 6 samples, and so no number 6"):
        made("Subset", Labelled([0] * 6), indices=[0, 6])


@pytest.mark.parametrize("options", [{"count": 30}, {"fraction": 0.3}, {"fraction": 0.3, "stratify": True}])
def test_a_drawn_part_and_the_rest_are_the_whole(options):
    data = Labelled([index % 3 for index in range(100)])
    part, rest = (numbers(made("Subset", data, **options, rest=rest)) for rest in (False, True))
    assert len(part) == 30
    assert sorted(part + rest) == list(range(100))
    assert part == numbers(made("Subset", data, **options))
    assert part != numbers(made("Subset", data, **options, seed=1))


def test_a_stratified_part_has_each_class_in_its_share():
    labels = [0] * 500 + [1] * 100 + [2] * 50
    for seed in range(5):
        part = made("Subset", Labelled(labels), fraction=0.1, stratify=True, seed=seed)
        counts = Counter(part.labels().tolist())
        assert len(part) == 65
        assert all(abs(counts[label] - size / 10) <= 1 for label, size in ((0, 500), (1, 100), (2, 50)))


def test_a_part_by_classes_has_images_with_one_of_them():
    objects = Labelled([[0, 1], [], [2], [1, 1], [3, 0]], objects=True)
    assert numbers(made("Subset", objects, classes=["a", "c"])) == [0, 2, 4]
    assert numbers(made("Subset", objects, classes=["a", "c"], rest=True)) == [1, 3]
    drawn = numbers(made("Subset", objects, classes=["a", "c"], count=2))
    assert len(drawn) == 2
    assert {*drawn} < {0, 2, 4}


def test_a_part_by_classes_of_pixels():
    scenes = ShapeScenes(size=20, targets=["mask"])
    stars = made("Subset", scenes, classes=["star"])
    place = scenes.info.classes.index("star")
    assert len(stars) == sum(bool((scenes[index]["mask"] == place).any()) for index in range(20)) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "which samples"),
        ({"count": 2, "fraction": 0.5}, "fraction: contradicts count"),
        ({"indices": [1], "classes": ["a"]}, "classes: contradicts indices"),
        ({"indices": [1], "stratify": True}, "stratify: of no use"),
        ({"classes": ["A"]}, "classes: made up has no class 'A'"),
        ({"count": 0}, "count"),
        ({"fraction": 1.5}, "fraction"),
        ({"indices": [1.5]}, "indices"),
    ],
)
def test_a_part_that_cannot_be_meant(options, message):
    with pytest.raises((ValueError, TypeError, DataError), match=message):
        Subset(dataset=Labelled([0, 1]), **options)


def test_a_part_that_is_not_there():
    with pytest.raises(DataError, match="count: is 3, and there are 2 samples in made up"):
        made("Subset", Labelled([0, 1]), count=3)
    with pytest.raises(DataError, match="takes none of the 2 samples of made up"):
        made("Subset", Labelled([0, 1]), classes=["d"])


# Folds


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_disjoint_and_complete(folds, stratify):
    data = Labelled([int(math.sqrt(index)) % 4 for index in range(50)])
    options = {"folds": folds, "stratify": stratify, "seed": 3}
    held_out = [numbers(made("KFold", data, **options, fold=fold, part="val")) for fold in range(folds)]
    assert sorted(place for part in held_out for place in part) == list(range(50))
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1
    for fold in range(folds):
        train = numbers(made("KFold", data, **options, fold=fold, part="train"))
        assert sorted(train + held_out[fold]) == list(range(50))
    assert held_out[0] != numbers(made("KFold", data, **{**options, "seed": 4}, part="val"))


def test_stratified_folds_have_each_class_in_its_share():
    labels = [0] * 60 + [1] * 33 + [2] * 10
    for fold in range(5):
        counts = Counter(made("KFold", Labelled(labels), fold=fold, part="val", stratify=True).labels().tolist())
        assert all(abs(counts[label] - size / 5) < 1 for label, size in ((0, 60), (1, 33), (2, 10)))


def test_images_of_several_classes_are_spread_by_the_rarest():
    objects = Labelled([[0]] * 20 + [[0, 1]] * 4 + [[]] * 4, objects=True)
    for fold in range(4):
        part = made("KFold", objects, folds=4, fold=fold, part="val", stratify=True)
        found = [part.classes_in(index) for index in range(len(part))]
        assert Counter(found) == {frozenset({0}): 5, frozenset({0, 1}): 1, frozenset(): 1}


def test_a_fold_that_is_not_there():
    with pytest.raises(ValueError, match="fold: is 5, and the 5 folds are 0 to 4"):
        KFold(dataset=Labelled([0]), fold=5, part="val")
    with pytest.raises(ValueError, match="part"):
        KFold(dataset=Labelled([0]), part="test")
    with pytest.raises(DataError, match=r"KFold.folds: 5 is more than the 2 samples of made up"):
        made("KFold", Labelled([0, 1]), part="val")


# Repeats


def test_repeats_come_one_round_after_another():
    assert numbers(made("Repeat", Labelled([0, 1]), times=3)) == [0, 1, 0, 1, 0, 1]


def test_what_would_take_too_much_memory_is_read_one_by_one(monkeypatch):
    monkeypatch.setattr(selection, "IN_MEMORY", 40)
    assert made("Repeat", Labelled([0, 1]), times=4).tensors() is None
    assert made("Subset", Labelled([0] * 10), count=9).tensors() is not None  # less than what is there already


def reference(labels, threshold):
    """Return how often each sample comes, in the words of the paper."""
    share = {label: sum(label in each for each in labels) / len(labels) for each in labels for label in each}
    factor = {label: max(1.0, math.sqrt(threshold / share[label])) for label in share}
    return [math.ceil(max((factor[label] for label in each), default=1.0)) for each in labels]


@pytest.mark.parametrize("threshold", [0.001, 0.1, 0.5, 0.99])
def test_rare_classes_come_as_often_as_the_paper_says(threshold):
    labels = [[0]] * 60 + [[0, 1]] * 20 + [[1, 2, 2]] * 5 + [[3]] + [[]] * 10
    dataset = made("ClassBalanced", Labelled(labels, objects=True), threshold=threshold)
    times = Counter(numbers(dataset))
    assert [times[index] for index in range(len(labels))] == reference(labels, threshold)


def test_a_class_in_just_the_share_of_the_threshold_is_not_rare():
    assert len(made("ClassBalanced", Labelled([0] * 9 + [1]), threshold=0.1)) == 10
    assert len(made("ClassBalanced", Labelled([0] * 9 + [1]), threshold=0.4)) == 9 + 2  # sqrt(0.4 / 0.1) is 2, not 3


@pytest.mark.parametrize(("kind", "options"), ALL)
def test_a_stream_has_no_samples_to_choose_from(kind, options):
    with pytest.raises(DataError, match=f"{kind}: made up is a stream, whose samples have no index"):
        made(kind, Stream([0, 1, 2]), **options)


@pytest.mark.parametrize(
    "inner",
    [{"type": "Digits", "train": False}, {"type": "FakeData", "size": 30, "image_size": [3, 8, 8], "num_classes": 4}],
)
def test_any_dataset_can_be_chosen_from(inner):
    dataset = DATASETS.build(
        {"type": "Repeat", "times": 2, "dataset": {"type": "KFold", "part": "val", "stratify": True, "dataset": inner}}
    )
    dataset.open()
    whole = DATASETS.build(inner)
    whole.open()
    assert len(dataset) == 2 * -(-len(whole) // 5)
    assert dataset.info == evolve(whole.info, name=f"{whole.info.name} (fold 0)")
    assert dataset[0].keys() == {"image", "label"}


def test_nothing_is_read_before_it_is_opened():
    dataset = Subset(dataset=Digits(train=False), count=3)
    assert dataset.info.name.startswith("digits")
    assert not dataset.dataset.held
    assert len(dataset) == 0
    assert dataset.where(0) == ""
