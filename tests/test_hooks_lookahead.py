"""Lookahead, step by step, against its formula."""

from __future__ import annotations

import pytest
import torch
from tiny import StopAt, assert_same, at, snapshot, tiny_runner

from visreg.hooks.lookahead import Lookahead

STEPS = 10


def weights(runner):
    return {name: value.clone() for name, value in runner.task.state_dict().items() if value.is_floating_point()}


@pytest.mark.parametrize("power", [0, 3])
def test_slow_weights_follow_and_replace_the_trained_ones(power):
    before, after, hook = [], [], Lookahead(every=3, alpha=0.25, power=power)
    hooks = [at(after_step=lambda runner: before.append(weights(runner))), hook]
    runner = tiny_runner(hooks=[*hooks, at(after_step=lambda runner: after.append(weights(runner)))], eval_steps=0)
    slow = weights(runner)
    runner.train()
    assert len(before) == STEPS
    for step, (trained, left) in enumerate(zip(before, after, strict=True), 1):
        if step % 3:
            assert_same(left, trained)
            continue
        alpha = 1 - 0.75 * (step / STEPS) ** power
        slow = {name: value + alpha * (trained[name] - value) for name, value in slow.items()}
        torch.testing.assert_close(left, slow)
    torch.testing.assert_close({name: hook.average[name] for name in slow}, slow)


def test_a_run_evaluates_with_the_slow_weights_and_goes_on_with_its_own():
    hook, during, after = Lookahead(every=3), {}, {}
    watch = at(before_eval=lambda runner: during.update(weights(runner)))
    last = at(after_eval=lambda runner: after.update(weights(runner)))
    tiny_runner(hooks=[hook, watch, last], epochs=1).train()
    for name, value in during.items():
        assert torch.equal(value, hook.average[name])
    assert not torch.equal(during["model.0.weight"], after["model.0.weight"])


def test_all_the_way_every_step_changes_nothing():
    plain = tiny_runner()
    plain.train()
    followed = tiny_runner(hooks=[Lookahead(every=1, alpha=1.0)])
    followed.train()
    torch.testing.assert_close(weights(followed), weights(plain))
    assert followed.scores == plain.scores


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_that_was_stopped_ends_with_the_same_bits(step):
    whole = tiny_runner(hooks=[Lookahead(every=3)])
    whole.train()
    stopped = tiny_runner(hooks=[Lookahead(every=3), StopAt(step)])
    stopped.train()
    state = snapshot(stopped)
    resumed = tiny_runner(hooks=[Lookahead(every=3)])
    resumed.load_state_dict(state)
    resumed.train()
    assert_same(resumed.task.state_dict(), whole.task.state_dict())
    assert_same(resumed.hooks[0].average, whole.hooks[0].average)


@pytest.mark.parametrize("options", [{"every": 0}, {"alpha": 0.0}, {"alpha": 1.5}, {"power": -1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Lookahead(**options)
