from __future__ import annotations

import logging
import math

import pytest
import torch
from tiny import STEPS, LinearTask, Scripted, StopAt, at, tiny_runner
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, SequentialLR

import visreg
from visreg.checkpoint import load
from visreg.config import loads_json
from visreg.errors import ConfigError, ResourceError
from visreg.hooks import checkpoint as module
from visreg.hooks.checkpoint import Checkpoint
from visreg.schedule import Schedule

NAN = math.nan


@pytest.fixture(autouse=True, params=["in a thread", "at once"])
def asynchronous(request, monkeypatch):
    """Let the hook's "auto" decide either way for these small models."""
    monkeypatch.setattr(module, "WORTHWHILE", 0 if request.param == "in a thread" else module.BEARABLE + 1)


def run(work_dir, *hooks, **options):
    runner = tiny_runner(work_dir, hooks, **options)
    runner.train()
    return runner


def names(work_dir):
    return sorted(path.name for path in (work_dir / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), [15, 20]),
        (dict(keep=1), [20]),
        (dict(keep=3), [10, 15, 20]),
        (dict(every=3, keep=9), [15, 20]),
        (dict(every=0, keep=9), [20]),
        (dict(every=0, every_steps=6, keep=9), [6, 12, 18, 20]),
        (dict(every=2, every_steps=8, keep=9), [8, 10, 16, 20]),
    ],
)
def test_it_saves_every_so_often_and_at_the_end_and_keeps_the_latest(tmp_path, options, expected):
    run(tmp_path, Checkpoint(**options), epochs=4)
    assert names(tmp_path) == [f"step_{step:08d}.pt" for step in expected]


def test_what_is_in_it(tmp_path):
    config = {"model": {"type": "ConvNet", "size": (28, 28)}, "lr": 0.1}
    runner = run(tmp_path, Checkpoint(), epochs=1, config=config)
    state = load(tmp_path / "checkpoints" / "step_00000005.pt")
    assert (state["visreg"], state["data"], state["classes"]) == (visreg.__version__, "tiny val", ["a", "b", "c"])
    assert state["class_names"] == {"label": ["a", "b", "c"]}
    assert loads_json(state["config"]) == config
    assert (state["step"], state["scores"]) == (5, runner.scores)
    assert torch.equal(state["task"]["model.0.weight"], runner.task.model[0].weight)


def best_of(work_dir, *scores, **options):
    run(work_dir, Checkpoint(best="accuracy", **options), metrics=[Scripted(*scores)], epochs=len(scores))
    path = work_dir / "checkpoints" / "best.pt"
    return load(path)["step"] // STEPS if path.exists() else None


@pytest.mark.parametrize(
    ("scores", "mode", "expected"),
    [
        ([0.1, 0.3, 0.2], "max", 2),
        ([0.3, 0.1, 0.2], "min", 2),
        ([0.3, 0.3, 0.3], "max", 1),
        ([NAN, 0.1, NAN], "max", 2),
        ([NAN, NAN], "max", None),
        ([NAN, 0.3, 0.2], "min", 3),
        ([-math.inf, 0.1], "max", 2),
        ([0.1, math.inf, 0.2], "max", 3),
        ([-math.inf, None], "min", None),
    ],
)
def test_the_best_is_kept(tmp_path, scores, mode, expected):
    assert best_of(tmp_path, *scores, mode=mode) == expected


def test_the_best_is_kept_even_where_nothing_else_is_due(tmp_path):
    assert best_of(tmp_path, 0.1, 0.3, 0.2, every=3) == 2
    assert names(tmp_path) == ["best.pt", "step_00000015.pt"]


def test_a_resumed_run_knows_how_good_the_best_was(tmp_path):
    best_of(tmp_path, 0.1, 0.3)
    again = tiny_runner(tmp_path, [Checkpoint(best="accuracy")], metrics=[Scripted(0.2, 0.4)], epochs=4)
    again.load_state_dict(load(tmp_path / "checkpoints" / "step_00000010.pt"))
    assert again.hooks[0].best_score == 0.3
    again.train()
    assert load(tmp_path / "checkpoints" / "best.pt")["step"] == 20


def test_a_hook_that_comes_after_it_in_the_list_is_saved_as_of_the_same_step(tmp_path):
    count = at(after_eval=lambda runner: setattr(count, "seen", runner.step))
    count.seen = 0
    type(count).state_dict = lambda self: {"seen": self.seen}
    run(tmp_path, Checkpoint(), count, epochs=1)
    assert load(tmp_path / "checkpoints" / "step_00000005.pt")["hooks"][1]["state"] == {"seen": 5}


def test_an_interrupted_run_is_saved_where_it_stands(tmp_path):
    run(tmp_path, Checkpoint(), StopAt(3))
    assert names(tmp_path) == ["step_00000003.pt"]


def test_a_run_that_raises_saves_no_half_done_step(tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, Checkpoint(), StopAt(STEPS + 2, "crash"))
    assert names(tmp_path) == ["step_00000005.pt"]


def test_a_run_inside_an_exception_handler_is_saved_all_the_same(tmp_path):
    try:
        raise KeyError("the first try")
    except KeyError:
        run(tmp_path, Checkpoint(every=0))
    assert names(tmp_path) == ["step_00000010.pt"]


def failing(monkeypatch, *steps):
    """Let the saves at these steps fail as on a full disk."""

    def save(state, path, *others):
        if state["step"] in steps:
            raise ResourceError(f"{path}: cannot save the checkpoint: No space left on device; free some space")
        real(state, path, *others)

    real = module.save
    monkeypatch.setattr(module, "save", save)


def test_a_save_that_fails_is_reported_and_tried_again(tmp_path, monkeypatch, caplog):
    failing(monkeypatch, 2, 3)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, Checkpoint(every=0, every_steps=1, keep=99), epochs=1)
    assert names(tmp_path) == [f"step_0000000{step}.pt" for step in (1, 4, 5)]
    assert caplog.text.count("No space left on device") == 2


def test_the_third_failure_in_a_row_ends_the_run_and_the_last_good_one_is_left(tmp_path, monkeypatch):
    failing(monkeypatch, 2, 3, 5, 6, 7)
    with pytest.raises(ResourceError, match=r"step_00000007\.pt: cannot save"):
        run(tmp_path, Checkpoint(every=0, every_steps=1, keep=1))
    assert names(tmp_path) == ["step_00000004.pt"]


def test_a_failure_at_the_end_is_an_error_at_once(tmp_path, monkeypatch):
    failing(monkeypatch, 10)
    with pytest.raises(ResourceError, match=r"step_00000010\.pt"):
        run(tmp_path, Checkpoint(every=0))


def test_a_best_that_could_not_be_saved_is_not_the_best(tmp_path, monkeypatch):
    failing(monkeypatch, 5)
    assert best_of(tmp_path, 0.5, 0.4, 0.3) == 2


def test_the_old_one_goes_only_when_the_new_one_is_there(tmp_path, monkeypatch):
    seen = []
    prune = module._prune
    monkeypatch.setattr(module, "_prune", lambda folder, keep: (seen.append(names(tmp_path)), prune(folder, keep)))
    run(tmp_path, Checkpoint())
    assert seen == [["step_00000005.pt"], ["step_00000005.pt", "step_00000010.pt"]]


def test_what_another_run_left_is_moved_and_not_lost(tmp_path, caplog):
    run(tmp_path, Checkpoint(best="accuracy", keep=1), epochs=3)
    (tmp_path / "checkpoints" / ".visreg-0123.tmp").touch()
    with caplog.at_level(logging.WARNING):
        run(tmp_path, Checkpoint(best="accuracy"), epochs=1)
    assert names(tmp_path) == ["best.pt", "step_00000005.pt"]
    assert sorted(path.name for path in (tmp_path / "checkpoints.1").iterdir()) == ["best.pt", "step_00000015.pt"]
    assert "step_00000015.pt, best.pt of an earlier run moved to checkpoints.1" in caplog.text


def test_a_damaged_one_that_a_resume_had_to_skip_is_moved_away_and_best_stays(tmp_path):
    run(tmp_path, Checkpoint(best="accuracy", keep=2))
    last = tmp_path / "checkpoints" / "step_00000010.pt"
    last.write_bytes(b"damaged")
    again = tiny_runner(tmp_path, [StopAt(6), Checkpoint(best="accuracy")])
    again.load_state_dict(load(last.with_name("step_00000005.pt")))
    again.train()
    assert names(tmp_path) == ["best.pt", "step_00000005.pt", "step_00000006.pt"]
    assert (tmp_path / "checkpoints.1" / last.name).read_bytes() == b"damaged"


def test_a_work_dir_that_cannot_be_written_is_found_out_before_training(tmp_path):
    (tmp_path / "file").touch()
    steps = []
    with pytest.raises(ResourceError, match=r"cannot write checkpoints: .*; choose another work_dir"):
        run(tmp_path / "file" / "run", Checkpoint(), at(before_step=steps.append))
    assert steps == []


def test_an_unknown_score_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Checkpoint: no metric gives a score 'acc'"):
        run(tmp_path, Checkpoint(best="acc"))
    assert Checkpoint(best="acc").monitors() == ("acc",)
    assert Checkpoint().monitors() == ()


def schedulers(optimizer):
    yield MultiStepLR(optimizer, [2, 4])
    yield OneCycleLR(optimizer, 0.1, total_steps=50)
    yield SequentialLR(optimizer, [MultiStepLR(optimizer, [1]), MultiStepLR(optimizer, [3])], [2])


@pytest.mark.parametrize("number", range(3))
def test_the_state_of_any_schedule_is_tensors_and_plain_data(tmp_path, number):
    runner = tiny_runner(tmp_path, [Checkpoint()], task=LinearTask, epochs=1)
    runner.schedule = Schedule(per_step=[list(schedulers(runner.optimizer))[number]])
    runner.train()
    load(tmp_path / "checkpoints" / "step_00000005.pt")
