"""scikit-learn's digits."""

from __future__ import annotations

import sys

import pytest
import torch

from visreg.datasets.digits import Digits
from visreg.errors import DataError

sklearn_datasets = pytest.importorskip("sklearn.datasets")


@pytest.mark.parametrize("train", [True, False])
def test_samples_are_as_its_info_says(train):
    dataset = Digits(train=train, size=20)
    promised = len(dataset)
    dataset.open()
    tensors = dataset.tensors()
    assert tensors["image"].shape == (promised, 1, 20, 20)
    assert tensors["label"].shape == (promised,)
    sample = dataset[7]
    assert {key: (value.shape, value.dtype) for key, value in sample.items()} == {
        key: (value.shape, value.dtype) for key, value in dataset.info.sample.items()
    }
    assert "not MNIST" in dataset.info.name


def test_at_their_own_size_the_grey_levels_are_the_sources():
    found = sklearn_datasets.load_digits()
    parts = []
    for train in (True, False):
        dataset = Digits(train=train, size=8)
        dataset.open()
        parts.append(dataset.tensors())
    images = torch.cat([part["image"] for part in parts])
    levels = (images.float() / 255 * 16).round().flatten(1).int().tolist()
    assert sorted(levels) == sorted(found.images.reshape(len(found.images), -1).astype(int).tolist())
    assert images.max() == 255


def test_the_split_is_fixed_and_stratified():
    counts = []
    for train in (True, False):
        dataset = Digits(train=train)
        dataset.open()
        counts.append(torch.bincount(dataset.tensors()["label"]))
    assert sum(counts).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert counts[1].tolist() == [count // 5 for count in sum(counts).tolist()]


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r'pip install "visreg\[demo\]"'):
        Digits().open()


@pytest.mark.parametrize("size", [0, -1])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size"):
        Digits(size=size)
