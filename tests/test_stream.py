"""Datasets that are streams: batches of what comes next, found again after a resume."""

from __future__ import annotations

import logging

import pytest
import torch
from tiny import assert_same, snapshot, tiny_config
from torch.utils.data import IterableDataset

from visreg.build import build_runner
from visreg.checkpoint import resume
from visreg.errors import ConfigError, DataError
from visreg.registry import DATASETS, TRANSFORMS

SIZE = 23


class Counting:
    """An endless stream of noise that notes what it gave."""

    def __init__(self, length: int = SIZE) -> None:
        self.length, self.given = length, []

    def __iter__(self):
        for number in range(self.length):
            self.given.append(number)
            generator = torch.Generator().manual_seed(number)
            pixels = torch.randint(0, 256, (1, 16, 16), dtype=torch.uint8, generator=generator)
            yield {"image": pixels, "label": torch.tensor(number % 3)}


class Seekable(Counting):
    """The same, positioned by ``seek``."""

    start = 0

    def seek(self, position: int) -> None:
        self.start = position % self.length

    def __iter__(self):
        for number, sample in enumerate(super().__iter__()):
            if number >= self.start:
                yield sample
            else:
                self.given.pop()


class Pairs(IterableDataset):
    """PyTorch's own kind of stream, that has a length."""

    def __len__(self):
        return SIZE

    def __iter__(self):
        for sample in Counting():
            yield sample["image"], int(sample["label"])


def jitter(sample):
    return {**sample, "image": (sample["image"] * torch.rand(())).to(torch.uint8)}


@pytest.fixture(autouse=True)
def components():
    for factory in (Counting, Seekable, Pairs):
        DATASETS.register(factory)
    TRANSFORMS.register(Jitter)


class Jitter:
    """Another brightness."""

    def __call__(self, sample):
        return jitter(sample)


def config(name, work_dir, **train):
    return tiny_config(
        train={
            "dataset": {"type": name}, "batch_size": 4, "samples_per_epoch": 10,
            "transforms": [{"type": "Jitter"}], **train,
        },
        model={"type": "MLP", "image_size": 16, "widths": [8], "num_classes": 10},
        hooks=[{"type": "Checkpoint", "every_steps": 1}],
        run={"epochs": 5, "work_dir": str(work_dir)},
    )  # fmt: skip


def positions(loader, epoch, start=0):
    return [batch["index"].tolist() for batch in loader.epoch(epoch, start)]


@pytest.mark.parametrize("name", ["Counting", "Seekable", "Pairs"])
def test_an_epoch_goes_on_where_the_one_before_it_ended(name, tmp_path):
    loader = build_runner(config(name, tmp_path)).train_loader
    assert (len(loader), loader.samples, loader.batch_size) == (3, 10, 4)
    assert positions(loader, 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    second = list(loader.epoch(1))
    assert [batch["index"].tolist() for batch in second] == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19]]
    loader = build_runner(config(name, tmp_path)).train_loader
    for one, other in zip(loader.epoch(1, start=1), second[1:], strict=True):
        assert_same(one, other)
    third = [batch["label"].tolist() for batch in loader.epoch(2)]
    assert third == [[2, 0, 1, 0], [1, 2, 0, 1], [2, 0]]  # after number 22 comes the first again


@pytest.mark.parametrize("name", ["Counting", "Seekable"])
def test_a_run_on_it_is_resumed_exactly(name, tmp_path, caplog):
    whole = build_runner(config(name, tmp_path / "whole"))
    whole.train()
    first = build_runner(config(name, tmp_path / "killed"))
    first.total_steps = 7
    first.train()
    again = build_runner(config(name, tmp_path / "killed"))
    state = resume(tmp_path / "killed" / "checkpoints")
    assert state["step"] == 7
    again.load_state_dict(state)
    source = again.train_loader.start_at.__self__.source
    source.given.clear()
    again.train()
    assert_same({**snapshot(again), "config": ""}, {**snapshot(whole), "config": ""})
    read = 10 * 5 - (2 * 10 + 4)
    assert len(source.given) == (read if name == "Seekable" else 10 * 5)
    assert ("is a stream that cannot be positioned" in caplog.text) is (name == "Counting")


def test_a_sample_that_is_too_small_for_a_transform_has_its_number(tmp_path):
    loader = build_runner(config("Counting", tmp_path)).train_loader
    loader.transforms = [TRANSFORMS.build({"type": "RandomCrop", "size": 20})]
    with pytest.raises(DataError, match=r"^Counting: sample 4 of the stream: RandomCrop: crop size \(20, 20\)"):
        positions(loader, 0, 1)
    with pytest.raises(DataError, match=r"^Counting: sample 0 of the stream"):
        positions(loader, 0)


def test_processes_share_its_batches(tmp_path, monkeypatch):
    loader, seen = build_runner(config("Counting", tmp_path)).train_loader, []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(2))
        seen.append(positions(loader, 0))
    assert seen == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [9]]]


@pytest.mark.parametrize(
    ("name", "train", "message"),
    [
        ("Counting", {"samples_per_epoch": None}, "train.samples_per_epoch: missing; Counting is a stream"),
        ("Counting", {"sampler": {"type": "InfiniteSampler"}}, "train.sampler: Counting is a stream"),
        ("Counting", {"shuffle": True}, "train.shuffle: Counting is a stream"),
        ("Digits", {"dataset": {"type": "Digits", "size": 16}}, "train.samples_per_epoch: of no use, since digits"),
        ("Counting", {"samples_per_epoch": 0}, "train.samples_per_epoch: must be >= 1"),
    ],
)
def test_what_does_not_go_together_is_a_mistake_in_the_config(tmp_path, name, train, message):
    with pytest.raises(ConfigError, match=message):
        build_runner(config(name, tmp_path, **train))


def test_an_empty_stream_is_an_error(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(DataError, match="Counting: gives no sample when it is read from position 0"):
        build_runner(config("Counting", tmp_path, dataset={"type": "Counting", "length": 0})).train()
