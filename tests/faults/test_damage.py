"""A checkpoint that was damaged on the disk is found out, named, and the one before it is used."""

from __future__ import annotations

import logging

import pytest
import torch
from tiny import tiny_runner

from visreg.checkpoint import load, resume, save
from visreg.errors import CheckpointError
from visreg.hooks.checkpoint import Checkpoint

REASON = r"step_00000010\.pt: (not a visreg checkpoint, or one that was cut short|the checkpoint is damaged)"


@pytest.fixture
def newest(tmp_path):
    """The newest of a run's two checkpoints, with some more weights in it."""
    runner = tiny_runner(tmp_path, [Checkpoint(keep=2)])
    runner.train()
    path = tmp_path / "checkpoints" / "step_00000010.pt"
    save({**load(path), "more": torch.randn(1 << 16)}, path)
    return path


def found(path, damages):
    """Return how many of the damaged contents `load` finds, naming the file, and how many there are."""
    count = injected = 0
    for injected, content in enumerate(damages, start=1):  # noqa: B007  the last is the number of all
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=REASON):
            load(path)
        count += 1
    return count, injected


def test_a_flipped_bit_in_every_512_bytes(newest, survived):
    whole = newest.read_bytes()
    places = [*range(0, len(whole), 512), *range(len(whole) - 64, len(whole))]
    flipped = (
        whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :]
        for number, place in enumerate(places)
    )
    survived("one bit flipped", *found(newest, flipped))


def test_cut_short_at_every_4_kib(newest, survived):
    whole = newest.read_bytes()
    places = [*range(0, len(whole), 4096), *range(len(whole) - 64, len(whole))]
    survived("cut short", *found(newest, (whole[:place] for place in places)))


def test_zeros_from_every_4_kib_on(newest, survived):
    whole = newest.read_bytes()
    places = [*range(0, len(whole), 4096), *range(len(whole) - 64, len(whole), 8)]
    survived("zeros at the end", *found(newest, (whole[:place] + bytes(len(whole) - place) for place in places)))


def test_something_else_in_its_place(newest, survived):
    whole = newest.read_bytes()
    others = [b"", b"PK", b"\x89PNG\r\n", whole * 2, whole + b"\0", whole[1:], b"\0" + whole, whole[::-1]]
    survived("something else in its place", *found(newest, others))


@pytest.mark.parametrize("damage", ["flipped", "cut", "zeros", "empty", "a folder", "a dangling link"])
def test_the_one_before_is_used_and_the_run_ends_as_ever(newest, caplog, damage):
    whole = newest.read_bytes()
    newest.unlink()
    if damage == "a folder":
        newest.mkdir()
    elif damage == "a dangling link":
        newest.symlink_to("nowhere")
    else:
        flipped = whole[:5000] + bytes([whole[5000] ^ 16]) + whole[5001:]
        newest.write_bytes({"flipped": flipped, "cut": whole[:5000], "zeros": bytes(5000), "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        state = resume(newest.parent)
    assert state["step"] == 5
    assert "step_00000010.pt: " in caplog.text
    assert "going on from the one before it, of step 5" in caplog.text
    again = tiny_runner(newest.parent.parent, [Checkpoint(keep=2)])
    again.load_state_dict(state)
    again.train()
    assert load(newest)["step"] == 10


def test_if_all_are_damaged_each_is_named_with_its_reason(newest):
    before = newest.with_name("step_00000005.pt")
    before.write_bytes(before.read_bytes()[:4096])
    whole = newest.read_bytes()
    newest.write_bytes(whole[:4096] + bytes([whole[4096] ^ 1]) + whole[4097:])
    with pytest.raises(CheckpointError) as caught:
        resume(newest.parent)
    assert caught.value.exit_code == 4
    lines = str(caught.value).splitlines()
    assert "every checkpoint is damaged" in lines[0]
    assert "step_00000010.pt: the checkpoint is damaged: its checksum does not match" in lines[1]
    assert "step_00000005.pt: not a visreg checkpoint, or one that was cut short" in lines[2]
