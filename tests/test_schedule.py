"""Schedules, each moved on by what it is counted in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

from visreg.schedule import Schedule
from visreg.schedules.warmup import Cosine


def made():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=0)
    schedule = Schedule(
        per_step=[ExponentialLR(optimizer, 0.5)], per_epoch=[StepLR(optimizer, 1, 0.3)], per_eval=[(plateau, "score")]
    )
    optimizer.step()  # torch warns of a schedule that moves first
    return optimizer, schedule


def rate(optimizer):
    return optimizer.param_groups[0]["lr"]


def test_each_is_moved_on_by_its_own_unit():
    optimizer, schedule = made()
    schedule.after_step()
    assert rate(optimizer) == pytest.approx(0.5)
    schedule.after_epoch()
    assert rate(optimizer) == pytest.approx(0.15)
    schedule.after_eval({"score": 0.5, "other": 0.1})
    assert rate(optimizer) == pytest.approx(0.15)
    schedule.after_eval({"score": 0.4, "other": 0.9})
    assert rate(optimizer) == pytest.approx(0.015)


def test_without_any_the_rate_is_constant():
    schedule = Schedule()
    schedule.after_step()
    schedule.after_epoch()
    schedule.after_eval({})
    assert schedule.state_dict() == {"types": [], "schedulers": [], "reduced": []}
    assert schedule.is_constant


def test_states_keep_their_order():
    _, schedule = made()
    schedule.after_step()
    schedule.after_step()
    schedule.after_epoch()
    schedule.after_eval({"score": 0.7})
    optimizer, again = made()
    again.load_state_dict(schedule.state_dict())
    assert again.state_dict() == schedule.state_dict()
    assert (again.per_step[0].last_epoch, again.per_epoch[0].last_epoch, again.per_eval[0][0].best) == (2, 1, 0.7)
    assert optimizer is again.per_step[0].optimizer


@pytest.mark.parametrize("types", [[], ["ExponentialLR", "StepLR"], ["StepLR", "ExponentialLR", "ReduceLROnPlateau"]])
def test_the_state_of_other_schedules_is_refused(types):
    with pytest.raises(ValueError, match=r"it is of .*, and this is of ExponentialLR, StepLR, ReduceLROnPlateau"):
        made()[1].load_state_dict({"types": types, "schedulers": [{}] * len(types), "reduced": []})


LENGTH = 12
MAKERS = {
    "Cosine": lambda optimizer, steps: Cosine(optimizer, steps, warmup_steps=3),
    "OneCycleLR": lambda optimizer, steps: OneCycleLR(optimizer, 1.0, total_steps=steps),
    "CosineAnnealingLR": lambda optimizer, steps: CosineAnnealingLR(optimizer, steps),
    "StepLR": lambda optimizer, steps: StepLR(optimizer, 5, 0.3),
}


def of_length(name, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    return optimizer, Schedule(per_step=[MAKERS[name](optimizer, steps)], per_epoch=[StepLR(optimizer, 1, 0.9)])


def moved_on(optimizer, schedule, start, end):
    found = []
    for step in range(start + 1, end + 1):
        optimizer.step()
        schedule.after_step()
        if step % 4 == 0:
            schedule.after_epoch()
        found.append({key: value for key, value in optimizer.param_groups[0].items() if key != "params"})
    return found


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("longer", [LENGTH, 20])
def test_replayed_it_is_where_it_would_have_been(name, longer):
    """Bit for bit, and from there on as well."""
    whole = moved_on(*of_length(name, longer), 0, longer)
    optimizer, schedule = of_length(name, LENGTH)
    moved_on(optimizer, schedule, 0, 7)
    again, replayed = of_length(name, longer)
    replayed.replay(schedule.state_dict(), 7, steps_per_epoch=4)
    assert moved_on(again, replayed, 7, longer) == whole[7:]


def test_replayed_one_that_waits_keeps_what_it_has_seen_and_done():
    optimizer, schedule = made()
    for score in (0.5, 0.4):
        schedule.after_eval({"score": score})
    moved_on(optimizer, schedule, 0, 2)
    assert schedule.reduced == pytest.approx([0.1])
    again, replayed = made()
    again.param_groups[0]["lr"] = 3.0
    replayed.replay(schedule.state_dict(), 2, steps_per_epoch=4)
    assert rate(again) == pytest.approx(3.0 * 0.5**2 * 0.1)
    assert replayed.per_eval[0][0].best == 0.5
    assert replayed.state_dict()["reduced"] == schedule.reduced


def test_replayed_one_that_waits_takes_its_options_from_itself():
    _, schedule = made()
    state = schedule.state_dict()
    state["schedulers"][2]["factor"] = 0.77
    _, replayed = made()
    replayed.replay(state, 0, steps_per_epoch=4)
    assert replayed.per_eval[0][0].factor == 0.1
