"""One dataset out of several."""

from __future__ import annotations

import logging

import pytest
import torch

from visreg.data import DataInfo, Dataset
from visreg.datasets import wrappers
from visreg.datasets.files import DamagedError
from visreg.datasets.wrappers import FirstAvailable, check_same
from visreg.errors import DataError


class Numbers(Dataset):
    def __init__(self, name, size=3, error=None):
        self.name, self.size, self.error, self.opened = name, size, error, 0

    @property
    def info(self):
        return DataInfo(name=self.name)

    def open(self):
        self.opened += 1
        if self.error is not None:
            raise self.error

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"label": torch.tensor(index)}

    def tensors(self):
        return {"label": torch.arange(self.size)}


def test_the_first_is_taken_without_a_word(caplog):
    dataset = FirstAvailable(datasets=[Numbers("first"), Numbers("second")])
    with caplog.at_level(logging.WARNING, "visreg"):
        dataset.open()
        dataset.open()
    assert dataset.info.name == "first"
    assert [each.opened for each in dataset.datasets] == [1, 0]
    assert caplog.messages == []


def test_the_next_is_taken_loudly(caplog):
    dataset = FirstAvailable(datasets=[Numbers("first", error=DataError("no such file")), Numbers("second", size=5)])
    assert dataset.info.name == "first"
    assert len(dataset) == 3
    with caplog.at_level(logging.WARNING, "visreg"):
        dataset.open()
    assert caplog.messages == ["USING SECOND, since first is not available: no such file"]
    assert dataset.info.name == "second"
    assert len(dataset) == 5
    assert dataset[4]["label"] == 4
    assert dataset.tensors()["label"].tolist() == [0, 1, 2, 3, 4]


def test_if_none_opens_all_reasons_are_told():
    dataset = FirstAvailable(
        datasets=[
            Numbers("first", error=DataError("no such file")),
            Numbers("second", error=DataError("not installed")),
        ]
    )
    with pytest.raises(
        DataError, match=r"first is not available: no such file\nsecond is not available: not installed"
    ):
        dataset.open()


def test_damaged_data_is_not_replaced():
    dataset = FirstAvailable(datasets=[Numbers("first", error=DamagedError("half a file")), Numbers("second")])
    with pytest.raises(DamagedError, match="half a file"):
        dataset.open()


def test_what_one_process_lacks_none_takes(monkeypatch):
    answers = iter([[("", False), ("not on this machine", False)], [("", False), ("", False)]])
    monkeypatch.setattr(wrappers.dist, "gather", lambda value: next(answers))
    dataset = FirstAvailable(datasets=[Numbers("first"), Numbers("second")])
    dataset.open()
    assert dataset.info.name == "second"


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="datasets"):
        FirstAvailable(datasets=[])


def test_training_and_validation_must_be_of_the_same_data():
    lacking = FirstAvailable(datasets=[Numbers("MNIST", error=DataError("missing")), Numbers("digits")])
    having = FirstAvailable(datasets=[Numbers("MNIST"), Numbers("digits")])
    lacking.open()
    having.open()
    with pytest.raises(DataError, match=r"train\.dataset: is digits, but val.dataset is MNIST"):
        check_same(lacking, having)
    with pytest.raises(DataError):
        check_same(lacking, Numbers("MNIST"))
    check_same(having, Numbers("MNIST"))
    check_same(Numbers("photographs"), Numbers("drawings"))
