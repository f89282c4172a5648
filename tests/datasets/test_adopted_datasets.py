"""Datasets of others, as visreg's."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

from visreg.data import DataInfo, Dataset
from visreg.datasets.adopted import Adopted, adapt, defaults
from visreg.datasets.known import KNOWN
from visreg.datasets.mnist import MNIST
from visreg.errors import DataError
from visreg.registry import DATASETS


class Plain:
    """A map-style dataset such as anyone might write."""

    classes = ("even", "odd")

    def __init__(self, size: int = 4, make=lambda index: (Image.new("L", (3, 2), index), index % 2)):
        self.size, self.make = size, make

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return self.make(index)


class Arrays(Plain):
    """One that holds all it has in arrays, as torchvision's small ones do."""

    def __init__(self, layout: str = "NHWC", transform=None):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8, generator=generator)
        self.images, self.transform = images, transform
        grey = images[..., 0]
        self.data = {"NHWC": images.numpy(), "NHW": grey, "NCHW": images.permute(0, 3, 1, 2).numpy()}[layout]
        self.grey = layout == "NHW"
        self.targets = [0, 1, 0, 1, 1]
        super().__init__(5, self._make)

    def _make(self, index):
        array = self.images[index].numpy()
        return Image.fromarray(array[..., 0] if self.grey else array), self.targets[index]


def adopted(factory, **arguments):
    dataset = adapt(factory)(**arguments)
    assert isinstance(dataset, Adopted)
    dataset.open()
    return dataset


def test_visregs_own_are_left_alone():
    def function() -> MNIST:
        return MNIST()

    assert adapt(MNIST) is MNIST
    assert adapt(function) is function


def test_nothing_is_made_before_it_is_opened(monkeypatch, tmp_path):
    monkeypatch.setenv("VISREG_DATA", str(tmp_path))

    def explode(root: str):
        raise RuntimeError("made")

    dataset = adapt(explode)(root="x")
    assert dataset.info == DataInfo(name="explode")
    with pytest.raises(DataError, match=rf"explode: RuntimeError: made \(root '{tmp_path}/x'\)"):
        dataset.open()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"made \(root 'here'\)"):
        adapt(explode)(root="here").open()


def test_pairs_become_samples():
    dataset = adopted(Plain)
    sample = dataset[3]
    assert len(dataset) == 4
    assert torch.equal(sample["image"], torch.full((1, 2, 3), 3, dtype=torch.uint8))
    assert (sample["label"].dtype, int(sample["label"])) == (torch.int64, 1)
    assert dataset.info == DataInfo(name="Plain", classes=("even", "odd"))
    assert dataset.tensors() is None


@pytest.mark.parametrize(
    ("item", "shape"),
    [
        ((torch.zeros(3, 2, 5), 1), (3, 2, 5)),
        ((torch.zeros(2, 5, dtype=torch.uint8), torch.tensor(1)), (1, 2, 5)),
        ((numpy.zeros((2, 5, 3), dtype=numpy.uint8), numpy.int64(1)), (3, 2, 5)),
        ([Image.new("RGBA", (5, 2)), True], (3, 2, 5)),
    ],
)
def test_images_of_many_kinds(item, shape):
    sample = adopted(Plain, make=lambda index: item)[0]
    assert sample["image"].shape == shape
    assert int(sample["label"]) == 1


def test_dicts_are_taken_as_they_are():
    assert adopted(Plain, make=lambda index: {"image": 1, "boxes": [index]})[2] == {"image": 1, "boxes": [2]}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((1, 2, 3), r"Plain\[0\]: expected a dict or \(image, class index\), got a tuple of 3"),
        ("text", "got a str"),
        ((torch.zeros(3, 2, 2), {"boxes": []}), "expected a class index beside the image, got a dict"),
        ((torch.zeros(3, 2, 2), 0.5), "got a float"),
        (("path.png", 0), "expected a Pillow image, an array or a tensor, got a str"),
        ((torch.zeros(3, 2, 2, dtype=torch.int64), 0), "of uint8 or floats"),
        ((torch.zeros(1, 3, 2, 2), 0), r"\(C, H, W\)"),
    ],
)
def test_other_samples_are_refused_in_words(item, message):
    dataset = adopted(Plain, make=lambda index: item)
    with pytest.raises(DataError, match=message):
        dataset[0]


@pytest.mark.parametrize("layout", ["NHWC", "NHW", "NCHW"])
def test_arrays_become_tensors_that_equal_the_samples(layout):
    dataset = adopted(Arrays, layout=layout)
    tensors = dataset.tensors()
    for index in range(5):
        assert torch.equal(tensors["image"][index], dataset[index]["image"])
        assert torch.equal(tensors["label"][index], dataset[index]["label"])


def test_a_transform_of_the_datasets_own_keeps_it_out_of_memory():
    assert adopted(Arrays, transform=lambda image: image).tensors() is None


def test_what_is_no_dataset_is_refused():
    dataset = adapt(object)()
    with pytest.raises(DataError, match="is a object, not a dataset: it lacks"):
        dataset.open()


def test_a_function_that_makes_a_visreg_dataset_is_seen_through():
    class Own(Dataset):
        info = DataInfo(name="own")
        open = lambda self: None  # noqa: E731  the shortest that counts
        __len__ = lambda self: 2  # noqa: E731
        __getitem__ = lambda self, index: {"label": index}  # noqa: E731

    dataset = adopted(lambda: Own())
    assert dataset.info.name == "own"
    assert dataset[1] == {"label": 1}
    assert dataset.tensors() is None


def test_root_is_the_data_root_unless_it_is_given(monkeypatch, tmp_path):
    class Rooted(Plain):
        def __init__(self, root: str):
            super().__init__()
            self.root = root

    monkeypatch.setenv("VISREG_DATA", str(tmp_path))
    assert defaults(Rooted) == {"root": str(tmp_path)}
    assert defaults(Plain) == defaults(MNIST) == {}
    assert adopted(Rooted).source.root == str(tmp_path)
    assert adopted(Rooted, root="here").source.root == str(tmp_path / "here")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert adopted(Rooted, root="there").source.root == "there"


def test_impossible_arguments_start_no_download(no_network):
    dataset = DATASETS.build({"type": "SVHN", "split": "trian", "download": True})
    with pytest.raises(DataError, match=r"SVHN: cannot be made with .*'split': 'trian'.*Unknown value 'trian'"):
        dataset.open()


def test_downloads_are_made_only_if_need_be():
    calls = []

    class Remote(Plain):
        def __init__(self, download: bool = False):
            calls.append(download)
            if True not in calls:
                raise RuntimeError("Dataset not found")
            super().__init__()

    adopted(Remote, download=True)
    assert calls == [False, True, False]  # look, fetch, and open as every other process does
    adopted(Remote, download=True)
    assert calls == [False, True, False, False]


def test_torchvisions_without_network_give_up(tmp_path, no_network):
    dataset = DATASETS.build({"type": "CIFAR10", "root": str(tmp_path), "download": True})
    with pytest.raises(
        DataError, match=r"CIFAR10: RuntimeError: Dataset not found .* https://www.cs.toronto.edu cannot"
    ):
        dataset.open()
    dataset = DATASETS.build({"type": "KMNIST", "root": str(tmp_path)})
    with pytest.raises(DataError, match="set download=True or put the files there"):
        dataset.open()


def test_torchvisions_on_real_data(real_data):
    torchvision = pytest.importorskip("torchvision")
    dataset = adopted(torchvision.datasets.MNIST, train=False)
    ours = MNIST(train=False)
    ours.open()
    assert torch.equal(dataset.tensors()["image"], ours.tensors()["image"])
    assert torch.equal(dataset.tensors()["label"], ours.tensors()["label"])
    assert torch.equal(dataset[9]["image"], ours[9]["image"])


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_what_is_known_is_true_of_torchvisions(name):
    datasets = pytest.importorskip("torchvision").datasets
    factory = getattr(datasets, name)
    info = adapt(factory)().info
    assert info.name == name
    classes = getattr(factory, "classes", None) or getattr(factory, "CLASSES", None)
    if classes and not isinstance(classes, property) and not KNOWN[name].values:  # those are only some of them
        assert len(classes) == len(info.classes)


def paletted(values):
    """Return a mask as PASCAL VOC and Cityscapes keep it: an image of one byte for each pixel."""
    image = Image.fromarray(numpy.array(values, dtype=numpy.uint8))
    image.putpalette(bytes(range(256)) * 3)
    return image


@pytest.fixture
def voc(tmp_path):
    """A folder as of PASCAL VOC 2012, with two images, one upright."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n2007_000039\n")
    for name, size in (("2007_000032", (4, 3)), ("2007_000039", (2, 5))):
        Image.new("RGB", size, (10, 20, 30)).save(root / "JPEGImages" / f"{name}.jpg")
        paletted([[0, 15] + [255] * (size[0] - 2)] * size[1]).save(root / "SegmentationClass" / f"{name}.png")
    return tmp_path


def test_pascal_voc_gives_masks(voc):
    dataset = DATASETS.build({"type": "VOCSegmentation", "root": str(voc), "year": "2012", "image_set": "train"})
    assert dataset.info.classes[0] == "background"
    assert dataset.info.classes[15] == "person"
    assert (len(dataset.info.classes), dataset.info.keys, dataset.info.sample) == (21, ("image", "mask"), {})
    dataset.open()
    assert len(dataset) == 2
    sample = dataset[0]
    assert (sample["image"].shape, sample["image"].dtype) == ((3, 3, 4), torch.uint8)
    assert sample["mask"].tolist() == [[0, 15, 255, 255]] * 3
    assert sample["mask"].dtype == torch.int64
    assert dataset[1]["mask"].shape == (5, 2)
    assert dataset.tensors() is None


def test_a_mask_of_another_size_or_kind_is_named(voc):
    dataset = DATASETS.build({"type": "VOCSegmentation", "root": str(voc)})
    dataset.open()
    folder = voc / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    paletted([[0, 1]]).save(folder / "2007_000039.png")
    with pytest.raises(DataError, match=r"VOCSegmentation\[1\]: its mask is 1×2, but the image is 5×2"):
        dataset[1]
    Image.new("RGB", (2, 5)).save(folder / "2007_000039.png")
    with pytest.raises(DataError, match=r"VOCSegmentation\[1\]: expected a mask .* got an image of mode RGB"):
        dataset[1]


@pytest.fixture
def cityscapes(tmp_path):
    """A folder as of Cityscapes, with one image of a road, a car, a licence plate and the ego vehicle."""
    for split in ("train", "val", "test"):
        for kind in ("leftImg8bit", "gtFine"):
            (tmp_path / kind / split / "aachen").mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(
        tmp_path / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    )
    labels = Image.fromarray(numpy.array([[7, 26, 255, 1]] * 2, dtype=numpy.uint8))
    labels.save(tmp_path / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png")
    return tmp_path


def test_cityscapes_gives_the_classes_that_its_benchmark_scores(cityscapes):
    dataset = DATASETS.build({"type": "Cityscapes", "root": str(cityscapes), "split": "train"})
    names = dataset.info.classes
    assert (len(names), names[0], names[13], names[18]) == (19, "road", "car", "bicycle")
    dataset.open()
    assert dataset.info.classes == names
    assert dataset[0]["mask"].tolist() == [[0, 13, 255, 255]] * 2
    theirs = [kind for kind in dataset.source.classes if kind.train_id not in (-1, 255)]
    assert [kind.name for kind in sorted(theirs, key=lambda kind: kind.train_id)] == list(names)


def test_cityscapes_with_other_targets_is_not_taken_for_masks_of_classes(cityscapes):
    dataset = DATASETS.build({"type": "Cityscapes", "root": str(cityscapes), "target_type": "color"})
    assert dataset.info.classes == ()
