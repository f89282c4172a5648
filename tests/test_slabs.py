"""Tensors handed over in memory that is used again: what comes is what was sent."""

from __future__ import annotations

import pickle
from multiprocessing import Pipe

import torch
from tiny import assert_same

from visreg.slabs import TURNS, Packet, Receiver, Sender


def handed(sender, receiver, value):
    here, there = Pipe()
    packet = sender.pack(value)
    sender.hand_over(there, packet)
    receiver.note(here, packet)
    return packet, receiver.unpack(packet)


def value(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (size, 3, 5, 7), dtype=torch.uint8, generator=generator)
    return (
        {"image": image, "label": torch.arange(size), "boxes": [torch.rand(2, 4), torch.rand(0, 4)], "name": "a"},
        {3: "why"},
    )


def test_what_comes_is_what_was_sent_and_stays():
    sender, receiver = Sender(), Receiver()
    sent = [value(size, size) for size in (4, 2, 5, 4, 9, 1, 0, 9)]
    come = [handed(sender, receiver, each)[1] for each in sent]
    for mine, theirs in zip(come, sent, strict=True):
        assert_same(mine, theirs)


def test_a_slab_is_sent_once_and_used_by_turns():
    sender, receiver = Sender(), Receiver()
    packets = [handed(sender, receiver, value(4))[0] for _ in range(3 * TURNS)]
    assert [packet.slab for packet in packets[:TURNS]] == [packet.slab for packet in packets[TURNS : 2 * TURNS]]
    assert all(packet.fresh for packet in packets[:TURNS])
    assert not any(packet.fresh for packet in packets[TURNS:])
    assert len(pickle.dumps(packets[-1])) < 1000


def test_results_that_are_not_taken_yet_are_not_overwritten():
    sender, receiver = Sender(), Receiver()
    sent = [value(3, seed) for seed in range(20)]
    waiting = []
    for number, each in enumerate(sent):
        waiting.append(handed(sender, receiver, each)[0])
        if number:
            assert_same(receiver.unpack(waiting.pop(0)), sent[number - 1])


def test_views_and_what_holds_no_tensors():
    sender, receiver = Sender(), Receiver()
    strided = torch.arange(24).view(2, 3, 4).permute(2, 0, 1)[1:]
    assert torch.equal(handed(sender, receiver, [strided])[1][0], strided)
    for plain in (None, "text", {"a": [1, 2]}, (1, "b"), torch.empty(0)):
        assert not isinstance(sender.pack(plain), Packet)
