from __future__ import annotations

import pytest
import torch
from tiny import STEPS, StopAt, TinyTask, assert_same, at, snapshot, tiny_runner

from visreg.errors import ConfigError
from visreg.hooks.ema import EMA
from visreg.hooks.freeze import Freeze


def history(*hooks, **options):
    """Return the state of the task before training and after each step."""
    states = []

    def keep(runner):
        states.append({name: value.clone() for name, value in runner.task.state_dict().items()})

    runner = tiny_runner(hooks=[*hooks, at(before_train=keep, between_steps=keep)], **options)
    runner.train()
    return runner, states


def changed(before, after):
    return {name.removeprefix("model.") for name in before if not torch.equal(before[name], after[name])}


LINEAR_0, NORM, LINEAR_3 = {"0.weight", "0.bias"}, {"1.weight", "1.bias"}, {"3.weight", "3.bias"}
STATISTICS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        (["0"], NORM | STATISTICS | LINEAR_3),
        (["0", "1"], LINEAR_3),
        (["[01].*"], LINEAR_3),
        (["*.bias"], STATISTICS | {"0.weight", "1.weight", "3.weight"}),
        (["model.3"], LINEAR_0 | NORM | STATISTICS),
    ],
)
def test_what_the_patterns_name_stays_as_it_is(patterns, trained):
    # An evaluation in the middle of an epoch calls task.train(), which must not wake the frozen batch norm.
    _, states = history(Freeze(patterns=patterns), eval_steps=2)
    assert changed(states[0], states[-1]) == trained


def test_what_is_excluded_trains():
    _, states = history(Freeze(patterns=["*"], exclude=["3"]), eval_steps=2)
    assert changed(states[0], states[-1]) == LINEAR_3
    with pytest.raises(ConfigError, match=r"Freeze: the pattern 'fc' matches no parameter"):
        tiny_runner(hooks=[Freeze(patterns=["*"], exclude=["fc"])]).train()


def test_frozen_batch_norm_normalises_by_its_own_statistics_in_every_step():
    modes = []

    def note(runner):
        norm = runner.task.model[1]
        modes.append((norm.training, runner.task.model[2].training))

    class Watched(TinyTask):
        def forward(self, batch):
            note(self.runner)
            return super().forward(batch)

    runner = tiny_runner(hooks=[Freeze(patterns=["1"])], task=Watched, eval_steps=2)
    object.__setattr__(runner.task, "runner", runner)
    runner.train()
    assert modes == [(False, True)] * 2 * STEPS  # the first of an epoch, and those after an evaluation, too


def test_the_average_of_what_is_frozen_is_what_is_frozen():
    ema = EMA()
    runner, states = history(Freeze(patterns=["0", "1"]), ema, eval_steps=2)
    assert changed(states[0], ema.average) == LINEAR_3
    assert changed(runner.task.state_dict(), ema.average) == LINEAR_3


@pytest.mark.parametrize("epochs", [None, 1])
@pytest.mark.parametrize("stop", [3, STEPS, STEPS + 2])
def test_a_resumed_run_with_frozen_layers_ends_with_the_same_bits(epochs, stop):
    def hooks():
        return [Freeze(patterns=["0", "1"], epochs=epochs), EMA()]

    whole = tiny_runner(hooks=hooks(), eval_steps=2)
    whole.train()
    end = snapshot(whole)
    first = tiny_runner(hooks=[*hooks(), StopAt(stop)], eval_steps=2)
    first.train()
    state = snapshot(first)
    again = tiny_runner(hooks=hooks(), eval_steps=2)
    again.load_state_dict(state)
    again.train()
    assert_same(end, snapshot(again))


def test_after_some_epochs_all_of_it_trains():
    runner, states = history(Freeze(patterns=["0", "1"], epochs=1))
    assert changed(states[0], states[STEPS]) == LINEAR_3
    assert changed(states[STEPS], states[STEPS + 1]) == LINEAR_0 | NORM | STATISTICS | LINEAR_3
    assert all(parameter.requires_grad for parameter in runner.task.parameters())


def test_a_resumed_run_is_frozen_for_what_is_left_of_the_time():
    stop = at(after_step=lambda runner: setattr(runner, "should_stop", runner.step == STEPS + 2))
    first, _ = history(stop, Freeze(patterns=["0", "1"], epochs=2), epochs=3)
    state = snapshot(first)
    again = tiny_runner(hooks=[Freeze(patterns=["0", "1"], epochs=2)], epochs=3)
    again.load_state_dict(state)
    again.train()
    whole, _ = history(Freeze(patterns=["0", "1"], epochs=2), epochs=3)
    assert changed(whole.task.state_dict(), again.task.state_dict()) == set()


def test_what_the_model_itself_had_frozen_stays_frozen():
    runner = tiny_runner(hooks=[Freeze(patterns=["0"], epochs=1)])
    runner.task.model[0].bias.requires_grad_(False)
    runner.train()
    assert not runner.task.model[0].bias.requires_grad
    assert runner.task.model[0].weight.requires_grad


def test_a_pattern_that_matches_nothing_is_an_error_with_near_names():
    with pytest.raises(ConfigError, match=r"Freeze: the pattern '0\.wieght' matches no parameter.*'0\.weight'"):
        tiny_runner(hooks=[Freeze(patterns=["0.wieght"])]).train()


def test_a_run_that_ends_before_it_begins_is_told(caplog):
    tiny_runner(hooks=[Freeze(patterns=["*.bias"], start=2)]).train()
    assert "Freeze: begins after epoch 2, and the run has 2; nothing freezes" in caplog.text


def test_freezing_everything_is_an_error():
    with pytest.raises(ConfigError, match="leave no parameter to train"):
        tiny_runner(hooks=[Freeze(patterns=["*"])]).train()


@pytest.mark.parametrize(("epochs", "until"), [(None, 15), (1, 10)])
def test_what_is_frozen_from_an_epoch_on_trains_before(epochs, until):
    _, states = history(Freeze(patterns=["0", "1"], start=1, epochs=epochs), epochs=3, eval_steps=0)
    frozen = LINEAR_0 | NORM | STATISTICS
    assert changed(states[0], states[STEPS]) == frozen | LINEAR_3
    assert changed(states[STEPS], states[until]) == LINEAR_3
    assert epochs is None or changed(states[until], states[-1]) == frozen | LINEAR_3


@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_run_that_was_stopped_freezes_at_the_same_epoch(step):
    whole = tiny_runner(hooks=[Freeze(patterns=["0"], start=1)])
    whole.train()
    stopped = tiny_runner(hooks=[Freeze(patterns=["0"], start=1), StopAt(step)])
    stopped.train()
    state = snapshot(stopped)
    resumed = tiny_runner(hooks=[Freeze(patterns=["0"], start=1)])
    resumed.load_state_dict(state)
    resumed.train()
    assert_same(resumed.task.state_dict(), whole.task.state_dict())
