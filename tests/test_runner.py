from __future__ import annotations

import logging

import pytest
import torch
from tiny import STEPS, LinearTask, StopAt, assert_same, at, snapshot, tiny_loader, tiny_runner
from torch.optim.lr_scheduler import ReduceLROnPlateau

from visreg.checkpoint import resume
from visreg.errors import CheckpointError, VisregError
from visreg.hook import Hook
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.early_stopping import EarlyStopping
from visreg.hooks.ema import EMA
from visreg.hooks.metrics_log import MetricsLog
from visreg.schedule import Schedule

EVENTS = [
    "before_train", "before_epoch", "before_step", "after_backward", "after_step", "before_eval", "after_eval",
    "after_epoch", "between_steps", "after_train",
]  # fmt: skip


def listening():
    heard = []
    return heard, at(**{event: (lambda runner, event=event: heard.append(event)) for event in EVENTS})


def test_hooks_are_called_in_this_order():
    heard, hook = listening()
    tiny_runner(hooks=[hook], total_steps=STEPS + 1).train()
    step = ["before_step", "after_backward", "after_step"]
    evaluation = ["before_eval", "after_eval"]
    first_epoch = ["before_epoch", *[*step, "between_steps"] * 4, *step, *evaluation, "after_epoch", "between_steps"]
    assert heard == ["before_train", *first_epoch, "before_epoch", *step, *evaluation, "between_steps", "after_train"]


def test_hooks_of_one_event_are_called_in_list_order():
    heard = []
    hooks = [at(before_train=lambda runner, name=name: heard.append(name)) for name in "abc"]
    tiny_runner(hooks=hooks, epochs=0).train()
    assert heard == ["a", "b", "c"]


def test_a_point_that_no_hook_overrides_calls_nothing():
    runner = tiny_runner(hooks=[Hook(), at(after_eval=print)])
    assert {event for event, callbacks in runner._callbacks.items() if callbacks} == {"after_eval"}


def test_after_train_is_called_after_an_exception():
    heard, hook = listening()
    with pytest.raises(RuntimeError, match="killed"):
        tiny_runner(hooks=[hook, StopAt(2, "crash")]).train()
    assert heard[-1] == "after_train"


def test_what_is_not_a_hook_is_refused():
    with pytest.raises(VisregError, match="is not a Hook"):
        tiny_runner(hooks=["EMA"])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(accumulate):
    whole, parts = (tiny_runner(task=LinearTask, accumulate=n, eval_steps=0) for n in (1, accumulate))
    for runner in (whole, parts):
        runner.train()
    for one, other in zip(whole.task.parameters(), parts.task.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(whole.losses["loss"], parts.losses["loss"])


@pytest.mark.parametrize("eval_steps", [0, 2, 3, 5])
def test_evaluation_comes_every_so_many_steps_and_at_the_end(eval_steps):
    steps = []
    tiny_runner(hooks=[at(after_eval=lambda runner: steps.append(runner.step))], eval_steps=eval_steps).train()
    expected = {step for step in range(1, 11) if eval_steps and (step % eval_steps == 0 or step == 10)}
    assert steps == sorted(expected)


def test_evaluation_leaves_the_mode_as_it_was():
    runner = tiny_runner()
    for mode in (True, False):
        runner.task.train(mode)
        runner.evaluate()
        assert runner.task.training is mode


def test_the_losses_are_detached():
    runner = tiny_runner()
    runner.train()
    assert not runner.losses["loss"].requires_grad


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_train_on_the_cpu(precision):
    runner = tiny_runner(precision=precision, epochs=6)
    before = float(runner.task(next(runner.val_loader.epoch(0)))["loss"].detach())
    runner.train()
    assert float(runner.losses["loss"]) < before
    assert all(parameter.dtype == torch.float32 for parameter in runner.task.parameters())


# Resuming


def recipe(runner_options=()):
    return [EMA(), EarlyStopping(monitor="accuracy", patience=50), MetricsLog(every=3), Checkpoint(every_steps=1)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("unbroken")
    runner = tiny_runner(work_dir, recipe(), epochs=3, eval_steps=2)
    runner.train()
    return snapshot(runner), (work_dir / "metrics.jsonl").read_text()


@pytest.mark.parametrize("how", ["signal", "crash"])
@pytest.mark.parametrize("step", range(1, 16))
def test_a_run_stopped_at_any_step_and_resumed_ends_as_one_that_never_stopped(tmp_path, unbroken, step, how):
    runner = tiny_runner(tmp_path, [*recipe(), StopAt(step, how)], epochs=3, eval_steps=2)
    if how == "crash":
        with pytest.raises(RuntimeError, match="killed"):
            runner.train()
    else:
        runner.train()
    torch.manual_seed(99)
    again = tiny_runner(tmp_path, recipe(), epochs=3, eval_steps=2)
    state = resume(tmp_path / "checkpoints")
    assert (state["step"] if state else 0) == (step if how == "signal" else step - 1)
    if state is not None:
        again.load_state_dict(state)
    again.train()
    assert_same(snapshot(again), unbroken[0])
    assert (tmp_path / "metrics.jsonl").read_text() == unbroken[1]


def test_an_evaluation_that_an_interrupted_run_had_no_time_for_is_made_up_for(tmp_path):
    stopped = tiny_runner(tmp_path, [Checkpoint(), StopAt(STEPS)])
    stopped.train()
    assert stopped.scores == {}
    heard, hook = listening()
    again = tiny_runner(tmp_path, [hook])
    again.load_state_dict(resume(tmp_path / "checkpoints"))
    again.train()
    assert heard[:5] == ["before_train", "before_eval", "after_eval", "after_epoch", "between_steps"]
    assert heard.count("after_eval") == 2


def test_a_finished_run_that_is_resumed_takes_no_step_and_goes_on_if_given_more(tmp_path):
    tiny_runner(tmp_path, [Checkpoint()], epochs=2).train()
    for epochs, steps in ((2, 0), (3, STEPS)):
        heard, hook = listening()
        again = tiny_runner(tmp_path, [hook], epochs=epochs)
        again.load_state_dict(resume(tmp_path / "checkpoints"))
        again.train()
        assert heard.count("after_step") == steps


def test_a_plateau_schedule_waits_for_scores_and_is_resumed():
    def plateau(runner):
        return Schedule(per_eval=[(ReduceLROnPlateau(runner.optimizer, mode="max", patience=0), "accuracy")])

    runner = tiny_runner()
    runner.schedule = plateau(runner)
    for score in (0.5, 0.4):
        runner.schedule.after_eval({"accuracy": score})
    assert runner.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    again = tiny_runner()
    again.schedule = plateau(again)
    again.load_state_dict(snapshot(runner))
    assert again.schedule.per_eval[0][0].best == 0.5


def test_a_checkpoint_of_another_model_is_refused_with_the_differences():
    with pytest.raises(CheckpointError, match=r"model\.weight: missing in the checkpoint, \(3, 4\) in the model"):
        tiny_runner(task=LinearTask).load_state_dict(snapshot(tiny_runner()))


def test_a_checkpoint_of_another_optimizer_is_refused():
    state = snapshot(tiny_runner())
    state["optimizer"]["param_groups"] = []
    with pytest.raises(CheckpointError, match=r"optimizer has groups of \[\] parameters, and this config's of \[6\]"):
        tiny_runner().load_state_dict(state)


def test_hooks_that_come_or_go_are_named(caplog):
    state = snapshot(tiny_runner(hooks=[EarlyStopping(monitor="accuracy")]))
    with caplog.at_level(logging.WARNING):
        tiny_runner(hooks=[MetricsLog()]).load_state_dict(state)
    assert "nothing of the hook MetricsLog" in caplog.text
    assert "a hook EarlyStopping, which this config lacks" in caplog.text


def test_two_hooks_of_one_type_keep_their_states_apart():
    hooks = [EarlyStopping(monitor="accuracy", patience=n) for n in (3, 4)]
    hooks[0].waited, hooks[1].waited = 1, 2
    again = [EarlyStopping(monitor="accuracy", patience=n) for n in (3, 4)]
    tiny_runner(hooks=again).load_state_dict(snapshot(tiny_runner(hooks=hooks)))
    assert [hook.waited for hook in again] == [1, 2]


def test_a_run_without_validation_data_never_evaluates():
    runner = tiny_runner(val_loader=None)
    runner.train()
    assert (runner.step, runner.scores) == (10, {})


def test_positions():
    runner = tiny_runner(train_loader=tiny_loader(train=True, batch_size=8), total_steps=7)
    assert (runner.steps_per_epoch, runner.epochs, runner.epoch) == (3, 3, 0)
    runner.train()
    assert (runner.step, runner.epoch, runner.finished) == (7, 2, True)
