"""Schedules, step by step, against formulas and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from visreg.schedules.warmup import Constant, Cosine, Linear


def sgd(lr=0.4):
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr)


def rates(schedule, optimizer, steps):
    """Return the learning rate that each step is taken with."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def run(kind, steps, lr=0.4, **options):
    optimizer = sgd(lr)
    return rates(kind(optimizer, **options), optimizer, steps)


def test_cosine_without_warmup_is_torchs():
    optimizer = sgd()
    torchs = rates(CosineAnnealingLR(optimizer, T_max=50, eta_min=0.4 * 0.1), optimizer, 51)
    assert run(Cosine, 51, total_steps=50, final=0.1) == pytest.approx(torchs)


def test_linear():
    assert run(Linear, 6, total_steps=4, final=0.5) == pytest.approx([0.4, 0.35, 0.3, 0.25, 0.2, 0.2])


@pytest.mark.parametrize("kind", [Constant, Cosine, Linear])
def test_warmup_rises_evenly_to_the_base_rate(kind):
    found = run(kind, 5, total_steps=10, warmup_steps=4)
    assert found == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])


def test_after_the_warmup():
    assert run(Constant, 10, total_steps=10, warmup_steps=2)[2:] == pytest.approx([0.4] * 8)
    assert run(Linear, 7, total_steps=6, warmup_steps=2)[2:] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    halves = [0.4 * (1 + math.cos(math.pi * part / 4)) / 2 for part in range(5)]
    assert run(Cosine, 7, total_steps=6, warmup_steps=2)[2:] == pytest.approx(halves)


def test_every_group_keeps_its_proportion():
    layers = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(
        [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(layers, (1.0, 0.1), strict=True)]
    )
    schedule = Cosine(optimizer, total_steps=10, warmup_steps=3)
    for _ in range(8):
        one, other = (group["lr"] for group in optimizer.param_groups)
        assert other == pytest.approx(one / 10)
        optimizer.step()
        schedule.step()


def test_a_warmup_goes_along_with_a_schedule_by_epochs():
    optimizer = sgd(1.0)
    warmup, by_epoch = Constant(optimizer, total_steps=12, warmup_steps=3), StepLR(optimizer, step_size=1, gamma=0.1)
    found = []
    for step in range(12):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        warmup.step()
        if step % 4 == 3:
            by_epoch.step()
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, *[0.1] * 4, *[0.01] * 4])


@pytest.mark.parametrize("kind", [Constant, Cosine, Linear])
def test_going_on_is_never_having_stopped(kind, tmp_path):
    whole = run(kind, 20, total_steps=20, warmup_steps=5)
    optimizer = sgd()
    schedule = kind(optimizer, total_steps=20, warmup_steps=5)
    rates(schedule, optimizer, 8)
    torch.save([optimizer.state_dict(), schedule.state_dict()], tmp_path / "state")

    optimizer = sgd()
    schedule = kind(optimizer, total_steps=20, warmup_steps=5)
    states = torch.load(tmp_path / "state", weights_only=True)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert rates(schedule, optimizer, 12) == whole[8:]


@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_a_finished_run_goes_on_along_the_longer_curve(kind):
    optimizer = sgd()
    schedule = kind(optimizer, total_steps=10)
    rates(schedule, optimizer, 10)
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer = sgd()
    schedule = kind(optimizer, total_steps=20)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    assert rates(schedule, optimizer, 10)[1:] == run(kind, 20, total_steps=20)[11:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "total_steps: must be 1 or more"),
        ({"total_steps": 5, "warmup_steps": -1}, "warmup_steps: must be 0 or more"),
        ({"total_steps": 5, "warmup_steps": 5}, "warmup_steps: 5 is the whole run of 5 steps"),
        ({"total_steps": 5, "final": 1.5}, "final: must be a fraction"),
        ({"total_steps": 5, "final": float("nan")}, "final: must be a fraction"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Cosine(sgd(), **options)


@pytest.mark.parametrize("kind", [Constant, Cosine, Linear])
def test_a_warmup_may_be_a_share_of_the_run(kind):
    assert run(kind, 10, total_steps=10, warmup_steps=0.45) == run(kind, 10, total_steps=10, warmup_steps=4)
    with pytest.raises(ValueError, match=r"warmup_steps: must be a number of steps, or a share of the run below 1"):
        run(kind, 1, total_steps=10, warmup_steps=1.5)


def test_the_rise_may_begin_above_nothing():
    found = run(Linear, 7, lr=1.0, total_steps=6, warmup_steps=3, start=0.2, final=0.1)
    assert found == pytest.approx([0.4, 0.6, 0.8, 1.0, 0.7, 0.4, 0.1])
    with pytest.raises(ValueError, match="start: must be a fraction of the base rate, from 0 to 1, got 2"):
        run(Linear, 1, total_steps=10, start=2)
