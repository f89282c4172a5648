"""Loaders: the same batches whatever way, from whatever place, in however many processes."""

from __future__ import annotations

import random
from itertools import chain

import pytest
import torch
from attrs import evolve

from visreg.batching import Batching
from visreg.data import DataInfo, Dataset
from visreg.datasets.files import DamagedError
from visreg.errors import DataError
from visreg.loader import SampleLoader, TensorLoader
from visreg.registry import TRANSFORMS
from visreg.transform import RandomTransform

SIZE = 23


class Squares(Dataset):
    """A few blank images whose label is their place."""

    info = DataInfo(name="squares")

    def open(self):
        pass

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return {name: tensor[index] for name, tensor in self.tensors().items()}

    def tensors(self):
        places = torch.arange(SIZE)
        return {"image": places.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), "label": places}


def noisy(sample):
    """Draw from all three generators."""
    numpy = pytest.importorskip("numpy")
    return {**sample, "noise": torch.rand(()) + random.random() + float(numpy.random.rand())}


def sample_loader(transforms=(), workers=0, dataset=None, **options):
    batching = Batching(**{"size": SIZE, "batch_size": 4, "train": True, "seed": 1, **options})
    return SampleLoader(
        dataset=dataset or Squares(),
        transforms=transforms,
        batching=batching,
        device=torch.device("cpu"),
        workers=workers,
    )


def tensor_loader(transforms=(), **options):
    batching = Batching(**{"size": SIZE, "batch_size": 4, "train": True, "seed": 1, **options})
    return TensorLoader(info=Squares.info, tensors=dict(Squares().tensors()), transforms=transforms, batching=batching)


def transforming_loader(**options):
    kinds = ("Cutout", "ColorJitter", "RandomAffine", "RandomResizedCrop")
    specs = [{"length": 1}, {"brightness": 0.5}, {"degrees": 20}, {"size": 2}]
    made = [TRANSFORMS.build({"type": kind, **spec}) for kind, spec in zip(kinds, specs, strict=True)]
    return tensor_loader(made, **options)


def order(loader, epoch=0, start=0):
    return [batch["index"].tolist() for batch in loader.epoch(epoch, start)]


def equal(one, other):
    assert len(one) == len(other) > 0
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert value.dtype == theirs[key].dtype
            assert torch.equal(value, theirs[key]), key
    return True


def test_the_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(5)
    first = order(tensor_loader())
    torch.manual_seed(6)
    loader = tensor_loader()
    assert order(loader, epoch=3) != first
    assert order(loader) == first == order(loader)
    assert order(tensor_loader(seed=2)) != first
    assert sorted(chain(*first)) == list(range(SIZE))


def test_drawing_an_order_leaves_the_generators_alone():
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate()
    order(tensor_loader())
    order(sample_loader(transforms=[noisy]))
    order(sample_loader(transforms=[noisy], workers=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize("options", [{}, {"train": False}, {"drop_last": True}, {"batch_size": 23}, {"shuffle": False}])
def test_both_loaders_give_equal_batches(options):
    one, other = tensor_loader(**options), sample_loader(**options)
    assert len(one) == len(other) == len(list(one.epoch(2)))
    assert one.batch_size == other.batch_size
    assert one.info == other.info
    equal(list(one.epoch(2)), list(other.epoch(2)))


def test_any_number_of_workers_gives_equal_batches():
    found = []
    for workers in (0, 1, 2):
        loader = sample_loader(transforms=[noisy], workers=workers)
        found.append([*loader.epoch(0), *loader.epoch(1)])
    equal(found[0], found[1])
    equal(found[0], found[2])
    assert not torch.equal(found[0][0]["noise"], found[0][6]["noise"])


def test_samples_that_cannot_be_made_together_are_read_once():
    reads = []

    class Counted(Squares):
        fixed = True

        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    loader = sample_loader([noisy], dataset=Counted())
    list(loader.epoch(0))  # whose first batch finds it out
    reads.clear()
    list(loader.epoch(1))
    assert sorted(reads) == list(range(SIZE))


def test_a_transform_that_cannot_change_several_samples_is_tried_with_several_once():
    asked = []

    class OfOne(RandomTransform):
        def draw(self, draws, image):
            asked.append(len(image))
            return {"pairs": image.view(1, 2, 2)}  # whoever wrote it had one image in mind

        def apply(self, batch, drawn):
            return batch

    class Fixed(Squares):
        fixed = True

    loader = sample_loader([OfOne()], dataset=Fixed())
    assert equal(list(loader.epoch(0)), list(sample_loader(dataset=Fixed()).epoch(0)))
    assert asked == [4] + [1] * SIZE


@pytest.mark.parametrize("make", [tensor_loader, sample_loader])
@pytest.mark.parametrize("start", [1, 5])
def test_starting_late_is_skipping(make, start):
    loader = make()
    equal(list(loader.epoch(1, start)), list(loader.epoch(1))[start:])


def test_an_epoch_left_early_does_no_harm():
    loader = sample_loader(workers=1)
    whole = order(loader)
    for _ in loader.epoch(5):
        break
    assert order(loader) == whole


@pytest.mark.parametrize(("size", "batch_size"), [(23, 4), (24, 4), (5, 2), (3, 2), (9, 8)])
def test_training_in_two_processes_shares_each_batch_exactly(world, size, batch_size):
    shares = []
    for rank in (0, 1):
        world(rank, 2)
        shares.append(
            [batch.tolist() for batch in Batching(size=size, batch_size=batch_size, train=True, seed=1).batches(2)]
        )
    assert [len(batch) for batch in shares[0]] == [len(batch) for batch in shares[1]]
    assert all(shares[0])
    world(0, 1)
    alone = Batching(size=size, batch_size=batch_size, train=True, seed=1).batches(2)
    for mine, theirs, both in zip(*shares, alone, strict=False):
        assert sorted(mine + theirs) == sorted(both.tolist()[: len(mine + theirs)])
    seen = list(chain(*shares[0], *shares[1]))
    assert len(seen) == len(set(seen)) == size - size % 2


@pytest.mark.parametrize("make", [tensor_loader, transforming_loader, sample_loader])
@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_evaluation_in_two_processes_counts_every_sample_once(world, make, size):
    seen = []
    for rank in (0, 1):
        world(rank, 2)
        batches = order(make(size=size, train=False))
        assert all(batches)  # a model is never asked about no image at all
        seen += chain(*batches)
    assert sorted(seen) == list(range(size))


def test_lengths():
    assert len(tensor_loader()) == 6
    assert len(tensor_loader(drop_last=True)) == 5
    assert [len(batch) for batch in order(tensor_loader())] == [4, 4, 4, 4, 4, 3]
    assert [len(batch) for batch in order(tensor_loader(drop_last=True))] == [4] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "the dataset is empty"),
        ({"batch_size": 24, "drop_last": True}, "has 23 samples, which is less than one batch of 24; lower batch_size"),
    ],
)
def test_no_batch_at_all_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        tensor_loader(**options)


def test_a_batch_that_does_not_divide_is_refused(world):
    world(0, 3)
    with pytest.raises(DataError, match="4 does not divide by 3 processes"):
        tensor_loader()
    assert len(tensor_loader(train=False)) == 6


class Broken(Squares):
    """A sample of it cannot be read."""

    def __getitem__(self, index):
        raise DamagedError("a.jpg: is damaged\nand torn")


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_data_has_the_same_message_from_a_worker(workers):
    loader = sample_loader(dataset=Broken(), workers=workers, shuffle=False)
    with pytest.raises(DamagedError) as caught:
        next(loader.epoch(0))
    assert str(caught.value) == "squares[0]: a.jpg: is damaged\nand torn"


class Uneven(Squares):
    """The third image is smaller than the others."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return {**sample, "image": sample["image"][..., :1]} if index == 2 else sample

    def where(self, index):
        return f"{index}.png"


class Fixed(Uneven):
    fixed = True


@pytest.mark.parametrize("dataset", [Fixed(), Uneven()])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_too_small_for_a_transform_is_a_bad_sample(dataset, workers, caplog):
    crop = TRANSFORMS.build({"type": "RandomCrop", "size": 2})
    loader = sample_loader([crop], workers, dataset)
    message = (
        r"^squares\[2\] \(2\.png\): RandomCrop: crop size \(2, 2\) is larger than the image, \(2, 1\); set pad_if_n"
    )
    with pytest.raises(DataError, match=message):
        order(loader)
    for train in (True, False):
        loader = sample_loader([crop], workers, dataset, train=train)
        loader = evolve(loader, on_bad_sample="skip")
        found = [*chain(*order(loader))]
        assert 2 not in found
        assert len(found) == SIZE - (not train)
        assert list(loader.bad) == [2]


def test_images_in_memory_that_are_too_small_for_a_transform_are_bad_data():
    with pytest.raises(DataError, match=r"RandomCrop: crop size \(3, 3\) is larger"):
        order(tensor_loader([TRANSFORMS.build({"type": "RandomCrop", "size": 3})]))


@pytest.mark.parametrize("dataset", [Fixed(), Uneven()])
def test_what_a_transform_of_others_raises_stays_a_bug(dataset):
    def choosy(sample):
        raise ValueError("too many values to unpack")

    for transforms in ([choosy], [TRANSFORMS.build({"type": "RandomApply", "transforms": [choosy], "p": 1.0})]):
        with pytest.raises(ValueError, match="too many values") as caught:
            order(sample_loader(transforms, dataset=dataset))
        assert not isinstance(caught.value, DataError)


def test_batch_transforms_come_last():
    loader = tensor_loader()
    loader.batch_transforms = [lambda batch: {**batch, "label": -batch["label"]}]
    for batch in loader.epoch(0):
        assert torch.equal(batch["label"], -batch["index"])
