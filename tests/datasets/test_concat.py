"""Several datasets one after another."""

from __future__ import annotations

import pytest
import torch

from visreg.data import DataInfo, Dataset
from visreg.datasets.concat import Concat
from visreg.datasets.digits import Digits
from visreg.datasets.files import DamagedError
from visreg.errors import DataError
from visreg.registry import DATASETS


class Part(Dataset):
    def __init__(self, name, size, classes=("a", "b"), keys=("image", "label"), others=None, side=2, held=True):
        self.name, self.size, self.keys, self.side, self.held = name, size, keys, side, held
        self.classes, self.others, self.stream_of = classes, others or {}, None

    @property
    def info(self):
        return DataInfo(name=self.name, classes=self.classes, keys=self.keys, others=self.others)

    def open(self): ...

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"image": torch.full((1, self.side, self.side), index), "label": torch.tensor(index % 2)}

    def where(self, index):
        return f"{self.name}/{index}.png" if self.held else ""

    def labels(self):
        return torch.arange(self.size) % 2 if self.held else None

    def tensors(self):
        return {"image": torch.arange(self.size).view(-1, 1, 1, 1).repeat(1, 1, 2, self.side), "label": self.labels()}

    def stream(self):
        return self.stream_of


def test_samples_come_one_dataset_after_another():
    dataset = Concat(datasets=[Part("one", 3), Part("two", 1), Part("none", 0), Part("three", 2)])
    assert len(dataset) == 6
    dataset.open()
    assert [dataset.where(index) for index in range(len(dataset))] == [
        "one/0.png", "one/1.png", "one/2.png", "two/0.png", "three/0.png", "three/1.png",
    ]  # fmt: skip
    assert dataset.where(6) == ""
    samples = [dataset[index] for index in range(6)]
    assert dataset.labels().tolist() == [int(sample["label"]) for sample in samples] == [0, 1, 0, 0, 0, 1]
    assert torch.equal(dataset.tensors()["image"], torch.stack([sample["image"] for sample in samples]))
    assert dataset.at(4, 2)["image"].equal(samples[4]["image"])
    assert dataset.classes_in(5) == {1}
    assert dataset.info == DataInfo(name="one + two + none + three", classes=("a", "b"))
    with pytest.raises(IndexError):
        dataset[6]


def test_what_one_of_them_cannot_the_whole_cannot():
    dataset = Concat(datasets=[Part("one", 3), Part("two", 1, held=False)])
    dataset.open()
    assert dataset.labels() is None
    assert dataset.where(3) == "two[0]"
    dataset = Concat(datasets=[Part("one", 3), Part("two", 1, side=3)])
    dataset.open()
    assert dataset.tensors() is None  # images of two sizes


def test_the_two_that_do_not_belong_together_are_named():
    one, two = Part("one", 1), Part("two", 1, classes=("a", "c"))
    with pytest.raises(
        DataError, match=r"datasets\[0\], one, and datasets\[2\], two, differ in their classes of 'label': number 1"
    ):
        Concat(datasets=[one, Part("as one", 1), two])
    with pytest.raises(DataError, match="number 2 is 'none' in the first, 'c' in the other"):
        Concat(datasets=[one, Part("two", 1, classes=("a", "b", "c"))])
    with pytest.raises(DataError, match="keys: the first has image, label, the other boxes, image, labels"):
        Concat(datasets=[one, Part("two", 1, keys=("image", "boxes", "labels"))])
    with pytest.raises(DataError, match="number 0 is 'x' in the first, 'a' in the other"):
        Concat(datasets=[Part("one", 1, keys=["mask"], others={"mask": ("x",)}), Part("two", 1, keys=["mask"])])


def test_classes_that_are_only_known_once_it_is_open():
    unknown = Part("two", 1, classes=())
    dataset = Concat(datasets=[unknown, Part("one", 1)])
    assert dataset.info.classes == ("a", "b")
    unknown.classes = ("b", "a")
    with pytest.raises(DataError, match=r"datasets\[0\], two, and datasets\[1\], one, differ"):
        dataset.open()


def test_a_stream_is_refused():
    stream = Part("two", 1)
    stream.stream_of = iter
    with pytest.raises(DataError, match="Concat: two is a stream"):
        Concat(datasets=[Part("one", 1), stream]).open()


def test_all_that_cannot_be_opened_are_told_at_once():
    class Broken(Part):
        def __init__(self, name, error):
            super().__init__(name, 1)
            self.error = error

        def open(self):
            raise self.error

    missing, damaged = Broken("two", DataError("two: no such folder")), DamagedError("four: cut short", "five: empty")
    dataset = Concat(datasets=[Part("one", 1), missing, Part("three", 1), Broken("four", damaged), missing])
    with pytest.raises(DamagedError, match="3 things are wrong") as caught:  # so that nothing else stands in for it
        dataset.open()
    assert caught.value.mistakes == ("two: no such folder", "four: cut short", "five: empty")
    with pytest.raises(DataError, match=r"^two: no such folder$") as caught:
        Concat(datasets=[missing, Part("one", 1)]).open()
    assert not isinstance(caught.value, DamagedError)


def test_real_ones():
    dataset = DATASETS.build(
        {"type": "Concat", "datasets": [{"type": "Digits", "train": train} for train in (True, False)]}
    )
    dataset.open()
    parts = [Digits(train=train) for train in (True, False)]
    assert len(dataset) == sum(map(len, parts)) == 1797
    assert dataset.info.name == parts[0].info.name
    assert dataset.info.sample["image"].shape == (1, 28, 28)
    assert torch.equal(dataset.tensors()["image"][len(parts[0])], dataset[len(parts[0])]["image"])
