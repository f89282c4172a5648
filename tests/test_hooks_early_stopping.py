from __future__ import annotations

import math

import pytest
from tiny import STEPS, Scripted, at, tiny_runner

from visreg.errors import ConfigError
from visreg.hooks.early_stopping import EarlyStopping

NAN = math.nan


def evaluations(scores, **options):
    """Return how many evaluations a run of ten has before it stops."""
    hook = EarlyStopping(monitor="accuracy", **options)
    runner = tiny_runner(hooks=[hook], metrics=[Scripted(*scores)], epochs=10)
    runner.train()
    return runner.step // STEPS


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.2, 0.2, 0.4], dict(patience=2), 5),
        ([0.1, 0.2, 0.2, 0.2], dict(patience=2), 4),
        ([0.5, 0.4, 0.3, 0.4, 0.4], dict(patience=2, mode="min"), 5),
        ([0.1, 0.15, 0.19, 0.25], dict(patience=2, min_delta=0.1), 3),
        ([0.1, 0.15, 0.25, 0.3, 0.3], dict(patience=2, min_delta=0.1), 5),
        ([NAN, NAN, NAN], dict(patience=3), 3),
        ([NAN, 0.1, NAN, NAN], dict(patience=2), 4),
        ([0.1, NAN, 0.2, 0.1, 0.1], dict(patience=2), 5),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], dict(patience=1), 10),
    ],
)
def test_it_stops_after_so_many_evaluations_without_improvement(scores, options, expected):
    assert evaluations(scores, **options) == expected


def test_it_says_why(caplog):
    with caplog.at_level("INFO", logger="visreg"):
        evaluations([0.1, 0.2, 0.1, 0.1], patience=2)
    assert caplog.messages == ["EarlyStopping: the best accuracy, 0.2000, is 2 evaluations ago"]


def test_a_resumed_run_that_had_stopped_stops_without_another_step():
    runner = tiny_runner(hooks=[EarlyStopping(monitor="accuracy", patience=1)], metrics=[Scripted(0.5)], epochs=9)
    runner.train()
    steps = []
    hooks = [EarlyStopping(monitor="accuracy", patience=1), at(after_step=lambda runner: steps.append(runner.step))]
    again = tiny_runner(hooks=hooks, epochs=9)
    again.load_state_dict(runner.state_dict())
    again.train()
    assert (again.step, steps) == (2 * STEPS, [])


def test_it_does_not_take_back_what_another_hook_decided():
    stop = at(after_step=lambda runner: setattr(runner, "should_stop", runner.step == STEPS))
    runner = tiny_runner(hooks=[stop, EarlyStopping(monitor="accuracy")], epochs=3)
    runner.train()
    assert runner.step == STEPS


def test_an_unknown_score_is_an_error_with_a_near_name():
    with pytest.raises(ConfigError, match="EarlyStopping: no metric gives a score 'acuracy'; did you mean 'accuracy'"):
        tiny_runner(hooks=[EarlyStopping(monitor="acuracy")]).train()


def test_it_tells_what_it_monitors():
    assert EarlyStopping(monitor="f1").monitors() == ("f1",)
