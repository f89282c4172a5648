"""Datasets in memory: the very batches of the sample path, where they fit and all can be computed for batches."""

from __future__ import annotations

import logging
import os
import random

import pytest
import torch
from PIL import Image
from tiny import assert_same, tiny_config

from visreg import memory
from visreg.build import build_runner
from visreg.data import DataInfo, Dataset
from visreg.datasets.folder import ImageFolder
from visreg.datasets.shapes import ShapeScenes
from visreg.errors import ConfigError, DataError
from visreg.loader import SampleLoader, TensorLoader
from visreg.memory import Held, hold
from visreg.registry import TRANSFORMS

pytestmark = pytest.mark.usefixtures("apart")

CPU = torch.device("cpu")
AUGMENTED = [
    {"type": "Pad", "padding": 2},
    {"type": "RandomCrop", "size": 16, "padding": 3},
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomApply", "transforms": [{"type": "RandomRotation", "degrees": 20}], "p": 0.6},
    {"type": "ColorJitter", "brightness": 0.4, "contrast": 0.4},
    {"type": "RandomAffine", "degrees": 10, "interpolation": "bilinear"},
    {"type": "RandomResizedCrop", "size": 16},
    {"type": "RandomErasing"},
    {"type": "ToDtype", "dtype": "float32", "scale": True},
    {"type": "Cutout", "length": 4},
]
MIXED = [{"type": "RandomChoice", "transforms": [{"type": name, "num_classes": 10} for name in ("MixUp", "CutMix")]}]


def batches(config, split="train", epoch=1, start=0):
    runner = build_runner(config)
    loader = getattr(runner, f"{split}_loader")
    return type(loader), list(loader.epoch(epoch, start))


def in_order(found):
    """Return the images of an epoch by the index of their samples."""
    image, index = (torch.cat([batch[key] for batch in found]) for key in ("image", "index"))
    return image[index.argsort()]


def by_key(found):
    return [dict(sorted(batch.items())) for batch in found]


def built(*specs):
    return [TRANSFORMS.build(spec) for spec in specs]


def train(in_memory, **options):
    options = {"transforms": AUGMENTED, "batch_transforms": MIXED, **options}
    return tiny_config(train={"in_memory": in_memory, **options})


@pytest.mark.parametrize(
    "options", [{}, {"sampler": {"type": "RepeatAugSampler", "num_repeats": 2}}, {"shuffle": False}]
)
def test_both_paths_give_the_same_batches(options):
    kind, held = batches(train("auto", **options))
    assert kind is TensorLoader
    assert len(held) == (8 if "sampler" in options else 4)
    for workers in (0, 2) if "sampler" in options else (0,):
        kind, read = batches(train(False, workers=workers, **options))
        assert kind is SampleLoader
        assert_same(by_key(read), by_key(held))
    assert held[0]["image"].dtype == torch.float32
    assert held[0]["label"].shape == (100, 10)


def test_what_is_drawn_is_a_function_of_seed_epoch_and_sample():
    _, one = batches(train("auto"))
    torch.manual_seed(9)
    random.seed(9)
    before = torch.get_rng_state()
    runner = build_runner(train("auto"))
    torch.set_rng_state(before)
    late = list(runner.train_loader.epoch(1, start=2))
    assert_same(late, one[2:])
    assert torch.equal(torch.get_rng_state(), before)
    other_epoch = list(runner.train_loader.epoch(2))
    images = [in_order(found) for found in (one, other_epoch)]
    assert not any(torch.equal(mine, theirs) for mine, theirs in zip(*images, strict=True))
    _, other_seed = batches({**train("auto"), "run": {**train("auto")["run"], "seed": 5}})
    assert not torch.equal(other_seed[0]["image"], one[0]["image"])


def test_two_processes_draw_what_one_does(world):
    whole = batches(train("auto", batch_transforms=[]))[1][0]
    for rank in (0, 1):
        loader = build_runner(train("auto", batch_transforms=[])).train_loader
        world(rank, 2)
        part = next(loader.epoch(1))
        for key in ("index", "image", "label"):
            assert torch.equal(part[key], whole[key][rank::2])
        world(0, 1)


def test_masks_move_on_both_paths_alike():
    section = {"dataset": {"type": "ShapeScenes", "size": 20, "targets": ["mask"], "image_size": 32}, "batch_size": 10}
    moves = [spec for spec in AUGMENTED if spec["type"] != "ToDtype"]
    found = []
    for way in ("auto", False):
        config = tiny_config(
            train={**section, "transforms": moves, "in_memory": way},
            val=section, task={"type": "SemanticSegmentation", "mean": [0.5]}, metrics=[{"type": "MeanIoU"}],
            model={"type": "UNet", "in_channels": 3, "num_classes": 8, "width": 4, "depth": 2},
        )  # fmt: skip
        found.append(batches(config)[1])
    assert_same(by_key(found[1]), by_key(found[0]))
    assert (found[0][0]["mask"] == 255).any()


# What is held


@pytest.fixture
def folder(tmp_path):
    for number, size in enumerate([(20, 30), (30, 20), (24, 24), (40, 31)]):
        place = tmp_path / "pictures" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        noise = torch.randint(0, 256, (*size[::-1], 3), generator=torch.Generator().manual_seed(number))
        Image.frombytes("RGB", size, noise.to(torch.uint8).numpy().tobytes()).save(place / f"{number}.png")
    dataset = ImageFolder(root=str(tmp_path / "pictures"))
    dataset.open()
    return dataset


def test_fixed_transforms_at_the_start_are_computed_once(folder):
    listed = built(
        {"type": "Resize", "size": [18, 20]},
        {"type": "CenterCrop", "size": 16},
        {"type": "ToDtype", "dtype": "float32"},
        {"type": "RandomHorizontalFlip"},
        {"type": "Pad", "padding": 1},
    )
    held = hold(folder, listed, CPU)
    assert isinstance(held, Held)
    assert (held.first, held.rest, held.size) == (2, listed[2:], 4 * 3 * 16 * 16 + 4 * 8)
    assert held.tensors["image"].dtype == torch.uint8
    for index in range(4):
        assert torch.equal(held.tensors["image"][index], listed[1](listed[0](folder[index]))["image"])


@pytest.mark.parametrize("names", [["RGB"], ["RGB", "Grayscale", "ToImage", "Identity"]])
def test_fixed_transforms_of_a_dataset_that_is_in_memory_anyway(names):
    scenes = ShapeScenes(size=7, targets=["label", "mask"], image_size=40)
    listed = built(*({"type": name} for name in names), {"type": "Resize", "size": [33, 20]})
    held = hold(scenes, listed, CPU)
    for index in range(7):
        sample = scenes[index]
        for transform in listed:
            sample = transform(sample)
        assert_same({key: value[index] for key, value in held.tensors.items()}, sample)


class Halved:
    """A transform of a user's own that says that it is fixed."""

    fixed = True

    def __call__(self, sample):
        assert sample["image"].ndim == 3
        return {**sample, "image": sample["image"] // 2}


def test_a_transform_of_ones_own_may_say_that_it_is_fixed():
    scenes = ShapeScenes(size=3, targets=["label"], image_size=32)
    held = hold(scenes, [Halved()], CPU)
    assert torch.equal(held.tensors["image"], scenes.tensors()["image"] // 2)
    assert "for one sample at a time" in hold(scenes, [*built({"type": "RandomVerticalFlip"}), Halved()], CPU)


class Numbers(Dataset):
    """Samples that are not fixed, or do not stack."""

    info = DataInfo(name="numbers")
    fixed = False

    def __init__(self):
        self.more = {}

    def open(self): ...

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"image": torch.zeros(1, 2, 2, dtype=torch.uint8), **self.more}


def test_reasons_against_it(folder, monkeypatch):
    numbers = Numbers()
    assert hold(numbers, [], CPU) == "it may give another sample each time, unless it has fixed = True"
    numbers.fixed = True
    assert isinstance(hold(numbers, [], CPU), Held)
    numbers.more = {"boxes": torch.zeros(1, 4), "name": "a"}
    assert hold(numbers, [], CPU) == "its samples hold boxes and name, which do not stack"
    (flip,) = built({"type": "RandomHorizontalFlip"})
    assert hold(numbers, [flip], CPU) == "RandomHorizontalFlip cannot be computed for a batch: it moves boxes"
    (blur,) = built({"type": "GaussianBlur", "kernel_size": 3})
    assert hold(folder, [blur], CPU) == "GaussianBlur cannot be computed for a batch: it is for one sample at a time"
    assert hold(folder, [], CPU) == "'image' of sample 1 is uint8 3×24×24, and that of the first uint8 3×30×20"
    resized = built({"type": "Resize", "size": [100, 100]})
    monkeypatch.setattr(memory, "free_memory", lambda device=None: 1e5 + 1e5 * (device is None))
    assert hold(folder, resized, CPU) == "it would take 0.00012 GB, of 0.0002 GB that are free"
    assert isinstance(hold(folder, resized, CPU, force=True), Held)


def test_free_memory_is_some_of_this_machines():
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1e6 < memory.free_memory() <= pages
    assert memory.free_memory(CPU) <= pages


# What is told


def told(caplog, **options):
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="visreg"):
        build_runner(tiny_config(train=options))
    return next(record.getMessage() for record in caplog.records if record.getMessage().startswith("train: "))


def test_the_way_taken_is_told(caplog):
    name = "train: 355 samples of digits (scikit-learn, not MNIST)"
    assert told(caplog) == f"{name} held in memory (cpu, 0.1 MB)"
    line = told(caplog, transforms=[{"type": "RGB"}, {"type": "RandomHorizontalFlip"}, {"type": "Grayscale"}])
    assert line == f"{name} held in memory (cpu, 0.3 MB), RandomHorizontalFlip and Grayscale computed for whole batches"
    assert told(caplog, in_memory=False) == f"{name} read one by one: as train.in_memory says"
    blur = [{"type": "GaussianBlur", "kernel_size": 3}]
    reason = "GaussianBlur cannot be computed for a batch: it is for one sample at a time"
    assert told(caplog, transforms=blur) == f"{name} read one by one: {reason}"


def test_to_be_held_though_it_cannot_is_a_mistake():
    blur = [{"type": "GaussianBlur", "kernel_size": 3}]
    with pytest.raises(ConfigError, match=r"train\.in_memory: GaussianBlur cannot be computed for a batch: .*='auto'"):
        build_runner(tiny_config(train={"transforms": blur, "in_memory": True}))


def test_a_bad_file_is_named_or_leaves_the_dataset_where_it_is(folder, caplog):
    folder.files[2][0].write_bytes(b"no image")
    resize = {"type": "Resize", "size": [16, 16]}
    section = {
        "dataset": {"type": "ImageFolder", "root": folder.root},
        "batch_size": 4,
        "transforms": [resize, {"type": "Grayscale"}],
    }
    config = tiny_config(train=section, val=section, model={"type": "MLP", "image_size": 16, "num_classes": 2})
    with pytest.raises(DataError, match=r"pictures\[2\].*1\.png"):
        build_runner(config)
    config["train"]["on_bad_sample"] = config["val"]["on_bad_sample"] = "skip"
    with caplog.at_level(logging.INFO, logger="visreg"):
        runner = build_runner(config)
    assert isinstance(runner.train_loader, SampleLoader)
    assert "read one by one: one cannot be: pictures[2]" in caplog.text
