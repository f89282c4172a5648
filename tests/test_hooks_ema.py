from __future__ import annotations

import pytest
import torch
from tiny import LinearTask, Share, at, snapshot, tiny_runner
from torch import nn

from visreg.errors import CheckpointError
from visreg.hooks.ema import EMA


def weights(runner):
    return {name: value.clone() for name, value in runner.task.state_dict().items()}


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_is_what_one_works_out_by_hand(warmup):
    history, ema = [], EMA(decay=0.9, warmup=warmup)
    runner = tiny_runner(hooks=[ema, at(after_step=lambda runner: history.append(weights(runner)))], eval_steps=0)
    expected = weights(runner)
    runner.train()
    for step, current in enumerate(history, start=1):
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        for name, value in current.items():
            whole = not value.is_floating_point()
            expected[name] = value if whole else decay * expected[name] + (1 - decay) * value
    assert ema.average["model.1.num_batches_tracked"] == 10
    for name, value in expected.items():
        torch.testing.assert_close(ema.average[name], value, msg=name)


def test_evaluation_sees_the_average_and_training_does_not():
    ema, during, after = EMA(), {}, {}
    watch = at(before_eval=lambda runner: during.update(weights(runner)))
    runner = tiny_runner(hooks=[ema, watch, at(after_eval=lambda runner: after.update(weights(runner)))], epochs=1)
    runner.train()
    plain = tiny_runner(epochs=1)
    plain.train()
    for name, value in weights(plain).items():
        assert torch.equal(value, after[name])
        assert torch.equal(during[name], ema.average[name])
    assert not torch.equal(during["model.0.weight"], after["model.0.weight"])


class Failing(Share):
    def compute(self):
        raise RuntimeError("out of luck")


def test_an_evaluation_that_fails_leaves_the_trained_weights():
    ema = EMA()
    runner = tiny_runner(hooks=[ema], metrics=[Failing()], epochs=1)
    with pytest.raises(RuntimeError, match="out of luck"):
        runner.train()
    plain = tiny_runner(epochs=1)
    plain.train()
    for name, value in weights(plain).items():
        assert torch.equal(weights(runner)[name], value)
    assert not torch.equal(ema.average["model.0.weight"], weights(runner)["model.0.weight"])


def test_a_run_that_survives_a_failed_evaluation_goes_on_with_the_trained_weights():
    def evaluate(runner):
        with pytest.raises(RuntimeError, match="out of luck"):
            runner.evaluate()
        runner.task.train()

    runner = tiny_runner(hooks=[EMA(), at(between_steps=evaluate)], metrics=[Failing()], epochs=1, eval_steps=0)
    runner.train()
    plain = tiny_runner(epochs=1, eval_steps=0)
    plain.train()
    for name, value in weights(plain).items():
        assert torch.equal(weights(runner)[name], value)


def test_a_runner_that_only_evaluates_uses_the_average_that_it_loaded():
    trained = tiny_runner(hooks=[EMA()])
    trained.train()
    scores = []
    again = tiny_runner(hooks=[EMA(), at(before_eval=lambda runner: scores.append(weights(runner)))])
    again.load_state_dict(snapshot(trained))
    assert again.evaluate() == trained.scores
    assert torch.equal(scores[0]["model.0.weight"], trained.hooks[0].average["model.0.weight"])
    assert torch.equal(again.task.state_dict()["model.0.weight"], trained.task.state_dict()["model.0.weight"])


def test_an_evaluation_before_any_training_uses_the_weights_there_are():
    assert tiny_runner(hooks=[EMA()]).evaluate() == tiny_runner().evaluate()


class Tied(LinearTask):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
        self.model[1].weight = self.model[0].weight


def test_tied_weights_stay_tied():
    ema, during = EMA(), {}
    hooks = [ema, at(before_eval=lambda runner: during.update(weights(runner)))]
    runner = tiny_runner(hooks=hooks, task=Tied, total_steps=6, eval_steps=4)
    runner.train()
    plain = tiny_runner(task=Tied, total_steps=6, eval_steps=4)
    plain.train()
    assert runner.task.model[0].weight is runner.task.model[1].weight
    assert torch.equal(during["model.0.weight"], during["model.1.weight"])
    assert torch.equal(ema.average["model.0.weight"], ema.average["model.1.weight"])
    for name, value in weights(plain).items():
        assert torch.equal(weights(runner)[name], value)


def test_an_average_of_another_model_is_refused():
    ema = EMA()
    ema.load_state_dict({"average": {"model.weight": torch.zeros(1)}})
    with pytest.raises(CheckpointError, match=r"EMA is of another model:\n  model\.bias: missing in the checkpoint"):
        tiny_runner(hooks=[ema], task=LinearTask).train()


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        EMA(decay=decay)
