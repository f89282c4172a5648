"""What optimizers and schedules are made with."""

from __future__ import annotations

import pytest
from tiny import tiny_config
from torch import nn

from visreg.parts import groups_for, schedule_context
from visreg.schema import Schema


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def groups(**sections):
    return groups_for(Norm(), Schema.of(tiny_config(**sections)))


def test_without_options_there_is_one_group_and_the_optimizers_own_rate():
    (group,) = groups()
    assert list(group) == ["params"]
    assert len(group["params"]) == 6


def test_no_decay_makes_two_groups():
    options = {"param_groups": {"no_decay": ["norm", "bias"]}}
    found = groups(optimizer={"type": "AdamW", "lr": 0.5, "weight_decay": 0.1}, **options)
    assert [(len(group["params"]), group["lr"], group["weight_decay"]) for group in found] == [
        (2, 0.5, 0.1),
        (4, 0.5, 0.0),
    ]
    assert len({id(part) for group in found for part in group["params"]}) == 6


def test_rates_and_decays_that_are_not_given_are_the_optimizers_defaults():
    found = groups(optimizer={"type": "AdamW"}, param_groups={"lr_scale": {"model.0": 0.1}})
    rates = sorted((len(group["params"]), group["lr"], group["weight_decay"]) for group in found)
    assert rates == [(2, pytest.approx(1e-4), 0.01), (4, 1e-3, 0.01)]


def test_an_optimizer_without_decay_is_given_none():
    found = groups(optimizer={"type": "Rprop", "lr": 0.2}, param_groups={"lr_scale": {"model.2": 0.5}})
    assert all(group.keys() == {"params", "lr"} for group in found)
    assert sorted(group["lr"] for group in found) == [0.1, 0.2]


def test_a_pattern_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"no_decay: .*'head\.\*'"):
        groups(param_groups={"no_decay": ["head.*"]})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "Cosine", "final": 0.1}, ({"T_max": 90, "total_steps": 90}, "step")),
        ({"type": "Cosine", "every": "epoch"}, ({"T_max": 3, "total_steps": 3}, "epoch")),
        ({"type": "StepLR", "step_size": 2}, ({"T_max": 3, "total_steps": 3}, "epoch")),
        ({"type": "CosineAnnealingLR", "every": "step"}, ({"T_max": 90, "total_steps": 90}, "step")),
        ({"type": "OneCycleLR", "max_lr": 1.0}, ({"T_max": 90, "total_steps": 90}, "step")),
        ({"type": "OneCycleLR", "max_lr": 1.0, "epochs": 3, "steps_per_epoch": 30}, ({"T_max": 90}, "step")),
        ({"type": "ReduceLROnPlateau", "monitor": "accuracy", "mode": "max"}, ({}, "eval")),
    ],
    ids=str,
)
def test_schedules_learn_how_long_the_run_is_in_their_own_unit(spec, expected):
    before = dict(spec)
    own, length, unit = schedule_context(spec, 90, 3)
    assert (length, unit) == expected
    assert own == {key: value for key, value in spec.items() if key not in ("every", "monitor")}
    assert spec == before
