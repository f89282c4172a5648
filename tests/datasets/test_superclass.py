"""A coarser class beside the label: by sample, all at once and in a stream; and what it is not made of."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from visreg.data import DataInfo, Dataset, blank_sample
from visreg.datasets.digits import Digits
from visreg.datasets.superclass import Superclass
from visreg.errors import DataError

PARITY = {"even": list("02468"), "odd": list("13579")}


class Pets(Dataset):
    """Twelve images of three classes, whose names may be known from the start, once opened, or never."""

    def __init__(self, names=("cat", "cow", "dog"), later=False, labels=range(12)):
        self.names, self.later, self.values = () if later else names, names if later else (), labels

    @property
    def info(self):
        return DataInfo(name="pets", classes=self.names, others={"mask": ("no", "yes")})

    def open(self):
        self.names = self.names or self.later

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return {"image": torch.zeros(3, 4, 4, dtype=torch.uint8), "label": torch.tensor(self.values[index] % 3)}

    def where(self, index):
        return f"{index}.png"


def test_digits_are_even_or_odd():
    dataset = Superclass(dataset=Digits(train=False), key="parity", classes=PARITY)
    dataset.open()
    tensors = dataset.tensors()
    assert torch.equal(tensors["parity"], tensors["label"] % 2)
    assert tensors is dataset.tensors()
    assert torch.equal(dataset.labels(), tensors["label"])
    assert [int(dataset[index]["parity"]) for index in range(20)] == (tensors["label"][:20] % 2).tolist()
    assert dataset[0]["parity"].shape == ()
    assert dataset.info.classes == tuple("0123456789")
    assert dataset.info.class_names["parity"] == ("even", "odd")
    assert (dataset.info.sample["parity"].shape, dataset.info.sample["parity"].dtype) == ((), torch.int64)
    assert len(dataset) == 355


def test_what_the_dataset_knows_is_still_known():
    dataset = Superclass(dataset=Pets(), classes={"farm": ["cow"], "home": ["dog", "cat"]})
    assert dataset.where(3) == "3.png"
    assert dataset.tensors() is None
    assert dataset.labels() is None
    assert dataset.stream() is None
    assert dataset.info.others == {"mask": ("no", "yes"), "superclass": ("farm", "home")}
    assert blank_sample(dataset.info.keys, 4, 4).keys() == {"image", "label", "superclass"}
    assert [int(dataset[index]["superclass"]) for index in range(3)] == [1, 0, 1]


def test_classes_that_are_known_when_opened():
    dataset = Superclass(dataset=Pets(later=True), classes={"farm": ["cow"], "home": ["dog", "cat"]})
    dataset.open()
    assert [int(dataset[index]["superclass"]) for index in range(3)] == [1, 0, 1]
    wrong = Superclass(dataset=Pets(later=True), classes={"farm": ["cow"], "home": ["dog", "rat"]})
    with pytest.raises(DataError, match="'home' has 'rat', no class of pets; did you mean 'cat'"):
        wrong.open()


def test_classes_without_names_go_by_their_index():
    dataset = Superclass(dataset=Pets(names=()), classes={"farm": [1], "home": [0, 2]})
    dataset.open()
    assert [int(dataset[index]["superclass"]) for index in range(3)] == [1, 0, 1]


def test_a_stream():
    class Endless(Pets):
        def stream(self):
            return lambda position: (self[(position + place) % 12] for place in range(10**9))

    dataset = Superclass(dataset=Endless(), classes={"farm": ["cow"], "home": ["dog", "cat"]})
    assert [int(sample["superclass"]) for sample in islice(dataset.stream()(1), 3)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"farm": ["cow"], "home": ["dog"]}, "classes: 'cat' is in none of farm, home"),
        ({"farm": ["cow", "dog"], "home": ["dog", "cat"]}, "classes: 'dog' is in 'home' and in another"),
        ({"farm": ["cow"], "home": ["dog", "kat"]}, "'home' has 'kat', no class of pets; did you mean 'cat'"),
        ({"farm": [1], "home": ["dog", "cat"]}, "'farm' has 1, no class of pets"),
        ({}, "classes"),
    ],
)
def test_classes_that_do_not_add_up(classes, message):
    with pytest.raises(ValueError, match=message):
        Superclass(dataset=Pets(), classes=classes)


@pytest.mark.parametrize("key", ["label", "image", "index", "a b", ""])
def test_keys_that_mean_something_else(key):
    with pytest.raises(ValueError, match="key"):
        Superclass(dataset=Pets(), key=key, classes={"farm": ["cow"], "home": ["dog", "cat"]})


def test_a_label_that_is_no_class():
    dataset = Superclass(dataset=Pets(names=("cat", "cow"), labels=[0, 2]), classes={"all": ["cow", "cat"]})
    dataset.open()
    assert int(dataset[0]["superclass"]) == 0
    with pytest.raises(DataError, match="there is a label 2, which belongs to no superclass of 2 classes"):
        dataset[1]
