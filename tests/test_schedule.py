"""Schedules, each moved on by what it is counted in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR

from visreg.schedule import Schedule


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
    assert schedule.state_dict() == {"schedulers": []}


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


@pytest.mark.parametrize("states", [[], [{}] * 4])
def test_the_state_of_another_number_of_schedules_is_refused(states):
    with pytest.raises(ValueError, match=r"it is of [04] schedulers, and this has 3"):
        made()[1].load_state_dict({"schedulers": states})
