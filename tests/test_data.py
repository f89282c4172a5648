"""Samples and batches: put together, cut up and moved."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

import visreg.data
from visreg.data import DataInfo, batch_length, collate, data_root, split, to_device
from visreg.errors import DataError


def test_the_table_of_keys_is_plain_text():
    assert "@" not in visreg.data.__doc__


def test_collate_keeps_ragged_keys_as_lists():
    samples = [{"image": torch.zeros(1, 2, 2), "boxes": torch.zeros(count, 4), "index": count} for count in (0, 3)]
    batch = collate(samples)
    assert batch["image"].shape == (2, 1, 2, 2)
    assert [boxes.shape for boxes in batch["boxes"]] == [(0, 4), (3, 4)]
    assert batch["index"].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"image": torch.zeros(1, 3, 2)}, r"'image' differs .* \(1, 2, 2\), \(1, 3, 2\); add a transform"),
        ({}, "KeyError"),
    ],
)
def test_samples_that_differ_are_refused(other, message):
    with pytest.raises(DataError, match=message):
        collate([{"image": torch.zeros(1, 2, 2)}, other])


@pytest.mark.parametrize(("size", "parts"), [(8, 1), (8, 2), (8, 3), (2, 4), (1, 4)])
def test_split_loses_nothing(size, parts):
    batch = {"label": torch.arange(size), "boxes": list(range(size))}
    pieces = split(batch, parts)
    assert torch.equal(torch.cat([piece["label"] for piece, _ in pieces]), batch["label"])
    assert list(chain(*(piece["boxes"] for piece, _ in pieces))) == batch["boxes"]
    assert sum(share for _, share in pieces) == pytest.approx(1)
    assert len(pieces) <= parts


def test_to_device_goes_into_dicts_and_lists():
    moved = to_device({"a": [torch.zeros(1), "text"], "b": 3}, torch.device("meta"))
    assert moved["a"][0].device.type == "meta"
    assert (moved["a"][1], moved["b"]) == ("text", 3)


def test_infos_of_one_name_and_classes_are_equal_whatever_their_samples():
    one = DataInfo(name="a", classes=("x", "y"), sample={"image": torch.zeros(1)})
    assert one == DataInfo(name="a", classes=("x", "y"))
    assert one != DataInfo(name="a", classes=("x",))


def test_the_data_root_is_the_environments_else_a_folder_here(monkeypatch):
    monkeypatch.setenv("VISREG_DATA", "/somewhere")
    assert data_root() == Path("/somewhere")
    for unset in ("", None):
        monkeypatch.setenv("VISREG_DATA", "") if unset == "" else monkeypatch.delenv("VISREG_DATA")
        assert data_root() == Path("data")


def test_the_length_of_a_batch_is_that_of_any_of_its_values():
    assert batch_length({"boxes": [1, 2, 3]}) == batch_length({"label": torch.zeros(3, 2)}) == 3
