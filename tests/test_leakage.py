"""Datasets of a config that share samples."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from visreg.datasets.digits import Digits
from visreg.leakage import overlap
from visreg.registry import DATASETS

DIGITS, MNIST = {"type": "Digits"}, {"type": "MNIST"}


def subset(**options):
    return {"type": "Subset", "dataset": DIGITS, **options}


def fold(part="train", **options):
    return {"type": "KFold", "dataset": DIGITS, "part": part, **options}


def several(kind, *datasets):
    return {"type": kind, "datasets": list(datasets)}


PARTS = [
    DIGITS, fold(), fold("val"), fold("val", fold=1), fold("val", seed=1), fold("val", stratify=True),
    subset(fraction=0.2), subset(fraction=0.2, rest=True), subset(fraction=0.8, rest=True, seed=1), subset(count=20),
    subset(count=900, seed=1), subset(count=3, seed=2), subset(fraction=0.2, stratify=True, rest=True),
    subset(indices=[1, 2, -1]), subset(indices=[2, 3]), subset(indices=[2, 3], rest=True),
    subset(classes=["3"], rest=True), {**subset(count=30), "dataset": fold()}, {**fold("val"), "dataset": fold()},
    {"type": "Repeat", "times": 2, "dataset": fold("val")},
]  # fmt: skip


def places(spec):
    """Return the places in the data of the samples that a dataset is made of."""
    dataset = DATASETS.build(spec)
    dataset.open()
    found = torch.arange(len(dataset))
    while not isinstance(dataset, Digits):
        found, dataset = dataset.places[found], dataset.dataset
    return set(found.tolist())


def test_what_is_certain_is_so_of_real_data():
    made = [places(spec) for spec in PARTS]
    said = 0
    for (one, mine), (other, theirs) in combinations(zip(PARTS, made, strict=True), 2):
        if overlap(one, other):
            said += 1
            assert mine & theirs, (one, other)
            assert mine != theirs, (one, other)
    assert said > 50


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DIGITS, fold("val")),
        (fold(), DIGITS),
        (DIGITS, subset(fraction=0.1)),
        (fold(), fold("val", fold=1)),
        (fold(), fold("val", seed=1)),
        (fold(), fold("val", stratify=True)),
        (subset(fraction=0.8), subset(fraction=0.2)),
        (subset(fraction=0.8), subset(fraction=0.2, rest=True)),
        (subset(fraction=0.8), subset(fraction=0.8, rest=True, seed=1)),
        (subset(fraction=0.8), subset(fraction=0.8, rest=True, stratify=True)),
        (subset(count=50), subset(count=20)),
        (subset(indices=[1, 2]), subset(indices=[2, 3])),
        (fold(), subset(fraction=0.1)),
        (fold(), {**subset(fraction=0.5), "dataset": fold()}),
        (several("Concat", MNIST, DIGITS), subset(count=3)),
        (
            several("FirstAvailable", fold(), DIGITS),
            several("FirstAvailable", fold("val", fold=1), subset(fraction=0.1)),
        ),
        (several("FirstAvailable", fold(), subset(fraction=0.8)), DIGITS),
        ({"type": "Repeat", "times": 3, "dataset": fold()}, fold("val", seed=1)),
    ],
)
def test_what_shares_samples(one, other):
    assert overlap(one, other)
    assert overlap(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DIGITS, DIGITS),  # to see whether it can be learnt by heart
        (subset(count=5), subset(count=5)),
        (DIGITS, {"type": "Digits", "train": False}),
        (MNIST, subset(count=3)),
        (fold(), fold("val")),
        (fold("val"), fold("val", fold=1)),
        (subset(fraction=0.8), subset(fraction=0.8, rest=True)),
        (subset(fraction=0.8, stratify=True), subset(fraction=0.8, stratify=True, rest=True)),
        (subset(count=100), subset(count=100, seed=1)),  # of a million, hardly one would be in both
        (subset(count=100, rest=True), subset(fraction=0.1)),  # not of less than 1000
        (subset(indices=[0, 1]), subset(indices=[-1])),
        (subset(indices=[0, 1]), fold()),  # by chance
        (subset(count=3), fold(seed=1)),
        (subset(classes=["3"]), subset(classes=["4"])),
        (fold(), {**subset(fraction=0.5), "dataset": fold("val")}),
        (several("Concat", subset(count=9), MNIST), several("Concat", subset(count=9, rest=True), MNIST)),
        (subset(count="x"), subset(count=3)),
        (subset(), subset(count=3)),
        (fold(), {"type": "KFold"}),
        ({"type": "FirstAvailable"}, fold()),
        (several("FirstAvailable", MNIST, subset(count=500)), DIGITS),  # not where there is MNIST
        (several("FirstAvailable", MNIST, DIGITS), several("FirstAvailable", MNIST, subset(count=3))),
    ],
)
def test_what_shares_none_or_all_or_cannot_be_told(one, other):
    assert not overlap(one, other)
    assert not overlap(other, one)
