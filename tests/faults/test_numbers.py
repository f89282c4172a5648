"""Numbers that are not finite: nothing of them gets into the weights, and a person is told where they came from."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from tiny import STEPS, StopAt, TinyTask, assert_same, at, snapshot, tiny_runner
from torch import nn

from tests.conftest import ROOT, SMALL
from visreg import finite
from visreg.checkpoint import load, newest, resume, step_of
from visreg.errors import NotFiniteError
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.clip_grad import ClipGrad
from visreg.hooks.ema import EMA
from visreg.hooks.metrics_log import MetricsLog

LAST = 2 * STEPS
FAULTS = {  # what is injected, and what the message must say of it
    "loss": "loss is not finite, though the output of every module is",
    "gradient": "the gradient of model.3.weight is not finite, though the output of every module is",
    "pixels": r"the output of model.0 \(Linear\) is not finite, and neither is the batch's 'image'",
    "batch norm": r"the output of model.1 \(BatchNorm1d\) is not finite \(",
}


class FaultyTask(TinyTask):
    """Goes wrong in the way that ``fault`` says, on batches that are said to be bad."""

    def __init__(self, fault="", value=math.nan):
        super().__init__()
        self.fault, self.value, self.now = fault, value, False
        self.model[1].register_forward_pre_hook(lambda module, inputs: (self._spoilt("batch norm", *inputs),))
        self.model[3].weight.register_hook(lambda gradient: self._spoilt("gradient", gradient))

    def _spoilt(self, fault, tensor):
        return tensor + self.value if self.now and fault == self.fault else tensor

    def forward(self, batch):
        self.now = "bad" in batch
        losses = super().forward(batch)
        return {"loss": self._spoilt("loss", losses["loss"]), "other": losses["loss"] * 0.5}


def faulty(work_dir, fault, *steps, hooks=(), value=math.nan, **options):
    """Return a runner that goes wrong in some steps, counted from 1."""

    def before_step(runner):
        if runner.step + 1 in steps:
            runner.batch["bad"] = torch.ones(len(runner.batch["label"]))
            if fault == "pixels":
                runner.batch["image"][-1, 0] = value

    torch.manual_seed(0)  # all start from the same weights
    made = tiny_runner(work_dir, [at(before_step=before_step), *hooks], task=FaultyTask(fault, value), **options)
    made.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=made.scaler.is_enabled())
    return made


def learnt(runner):
    """Return all that a step changes and that a bad one must not."""
    state = snapshot(runner)
    return {name: state[name] for name in ("task", "optimizer", "schedule", "scaler", "step", "hooks")}


def before(step, into):
    return at(before_step=lambda runner: into.update(learnt(runner)) if runner.step + 1 == step else None)


# Stopping


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 7, LAST])
@pytest.mark.parametrize(("fault", "value"), [(fault, v) for fault in FAULTS for v in (math.nan, math.inf)])
def test_a_bad_step_is_not_taken_and_explained(tmp_path, fault, value, step, accumulate):
    expected, hooks = {}, [EMA(), ClipGrad(max_norm=1.0)]
    hooks.append(before(step, expected))
    runner = faulty(tmp_path, fault, step, hooks=hooks, value=value, accumulate=accumulate, eval_steps=0)
    with pytest.raises(NotFiniteError, match=FAULTS[fault]) as caught:
        runner.train()
    assert caught.value.step == step
    assert caught.value.exit_code == 5
    assert_same(learnt(runner), expected)

    message, rate = str(caught.value), runner.optimizer.param_groups[0]["lr"]
    indices = runner.batch["index"].tolist()
    path = tmp_path / "not_finite" / f"step_{step:08d}.pt"
    assert f"step {step} of {LAST}: " in message
    assert f"lr {rate:.4g}, loss " in message
    assert ", other " in message
    assert f"{path}, of samples {', '.join(map(str, indices))}; " in message
    kept = load(path)
    assert (kept["step"], kept["index"], kept["lr"]) == (step, indices, rate)
    assert kept["found"] in message
    assert torch.equal(kept["batches"][0]["label"], runner.batch["label"])
    assert torch.equal(kept["batches"][0]["image"].nan_to_num(), runner.batch["image"].nan_to_num())
    assert_same(kept["task"], expected["task"])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [1, 7, LAST])
def test_no_checkpoint_has_it_and_a_resumed_run_comes_to_the_same_end(tmp_path, fault, step):
    hooks = [EMA(), MetricsLog(every=1), Checkpoint(every_steps=1)]
    messages = []
    for _ in range(2):
        runner = faulty(tmp_path, fault, step, hooks=hooks)
        state = resume(tmp_path / "checkpoints") if messages else None
        if state is not None:
            runner.load_state_dict(state)
        with pytest.raises(NotFiniteError) as caught:
            runner.train()
        messages.append(str(caught.value))
        saved = [step_of(path) for path in newest(tmp_path / "checkpoints")]
        assert saved[:1] == ([step - 1] if step > 1 else [])
    assert messages[0] == messages[1]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, step))


def test_a_hook_that_spoils_a_gradient_is_found_out(tmp_path):
    def spoil(runner):
        if runner.step == 2:
            runner.task.model[0].bias.grad[1] = math.inf

    with pytest.raises(NotFiniteError, match=r"step 3 of 10: the gradient of model\.0\.bias"):
        faulty(tmp_path, "", hooks=[at(after_backward=spoil)]).train()


def test_clipping_leaves_the_one_gradient_that_is_wrong_to_be_seen(tmp_path):
    for value in (math.nan, math.inf):
        with pytest.raises(NotFiniteError, match=r"the gradient of model\.3\.weight"):
            faulty(tmp_path, "gradient", 2, hooks=[ClipGrad(max_norm=0.1)], value=value).train()


# fp16


def test_fp16_leaves_single_overflows_out_and_stops_after_many_in_a_row(tmp_path):
    counts = []
    hook = at(after_step=lambda runner: counts.append(runner.overflows))
    faulty(tmp_path, "gradient", 3, 4, 6, hooks=[hook], value=math.inf, precision="fp16").train()
    assert counts == [0, 0, 1, 2, 0, 1, 0, 0, 0, 0]
    runner = faulty(tmp_path, "gradient", *range(4, 99), value=math.inf, precision="fp16", total_steps=40)
    with pytest.raises(NotFiniteError, match="20 steps in a row went beyond fp16") as caught:
        runner.train()
    assert caught.value.step == 23
    again = faulty(tmp_path, "gradient", *range(4, 99), value=math.inf, precision="fp16", total_steps=40)
    with pytest.raises(NotFiniteError):
        again.train()
    assert again.overflows == snapshot(runner)["overflows"]


@pytest.mark.parametrize("fault", ["loss", "batch norm", "pixels"])
def test_fp16_stops_at_a_loss_that_is_not_finite(tmp_path, fault):
    expected = {}
    runner = faulty(tmp_path, fault, 4, hooks=[before(4, expected)], precision="fp16")
    with pytest.raises(NotFiniteError, match=FAULTS[fault]) as caught:
        runner.train()
    assert caught.value.step == 4
    assert_same(learnt(runner)["task"], expected["task"])


def test_where_it_is_not_to_look_it_trains_on(tmp_path):
    runner = faulty(tmp_path, "gradient", 3, on_nan="ignore")
    runner.train()
    assert runner.step == LAST
    assert not (tmp_path / "not_finite").exists()
    assert any(not parameter.isfinite().all() for parameter in runner.task.parameters())


# Rolling back


def recipe(*more):
    return [EMA(), MetricsLog(every=2), Checkpoint(every_steps=3), *more]


def without(work_dir, *steps, fused=False):
    """Return what a run ends with that never takes some steps."""
    runner = faulty(work_dir, "", hooks=recipe(), on_nan="rollback", eval_steps=4)
    if fused:
        make_fused(runner)
    runner.skipped = list(steps)
    runner.train()
    return snapshot(runner), (work_dir / "metrics.jsonl").read_text()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("steps", [(1,), (2,), (7,), (LAST,), (3, 4), (1, 7, LAST)])
def test_a_rolled_back_run_ends_as_one_without_the_bad_steps(tmp_path, monkeypatch, caplog, steps, late):
    monkeypatch.setattr(finite, "answers_late", lambda runner: late)
    runner = faulty(tmp_path / "run", "loss", *steps, hooks=recipe(), on_nan="rollback", eval_steps=4)
    make_fused(runner)
    runner.train()
    monkeypatch.setattr(finite, "answers_late", lambda runner: False)
    state, rows = without(tmp_path / "reference", *steps, fused=True)
    assert runner.skipped == list(steps)
    assert_same(snapshot(runner), state)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == rows
    assert [path.name for path in (tmp_path / "run").glob("*.1")] == []
    assert caplog.text.count("to go on without the batch of step") == len(steps)
    assert len(list((tmp_path / "run" / "not_finite").iterdir())) == len(steps)


def make_fused(runner):
    for group in runner.optimizer.param_groups:
        group["fused"] = True
    runner.optimizer._step_supports_amp_scaling = True


@pytest.mark.parametrize("how", ["signal", "crash"])
@pytest.mark.parametrize("stop", [5, 6, 7, 8, 9])
def test_a_run_stopped_after_a_rollback_and_resumed_ends_as_one_that_never_stopped(tmp_path, stop, how):
    runner = faulty(tmp_path / "run", "gradient", 5, hooks=recipe(StopAt(stop, how)), on_nan="rollback", eval_steps=4)
    if how == "crash":
        with pytest.raises(RuntimeError, match="killed"):
            runner.train()
    else:
        runner.train()
    again = faulty(tmp_path / "run", "gradient", 5, hooks=recipe(), on_nan="rollback", eval_steps=4)
    again.load_state_dict(resume(tmp_path / "run" / "checkpoints"))
    again.train()
    state, rows = without(tmp_path / "reference", 5)
    assert_same(snapshot(again), state)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("limit", [1, 2])
def test_after_so_many_rollbacks_the_run_stops(tmp_path, limit):
    steps = (2, 5, 6, 8)
    runner = faulty(tmp_path, "loss", *steps, hooks=recipe(), on_nan="rollback", max_rollbacks=limit)
    with pytest.raises(NotFiniteError) as caught:
        runner.train()
    assert runner.skipped == list(steps[:limit])
    assert caught.value.step == steps[limit]
    assert all(value.isfinite().all() for value in resume(tmp_path / "checkpoints")["task"].values())


def test_a_skipped_step_counts_and_changes_nothing_but_the_schedule(tmp_path):
    states = []
    look = at(before_step=lambda runner: states.append(learnt(runner)))
    runner = faulty(tmp_path, "", hooks=[look])
    runner.skipped = [2]
    runner.train()
    assert (states[1]["step"], states[2]["step"]) == (1, 2)
    assert_same(states[1]["task"], states[2]["task"])
    assert_same(states[1]["optimizer"]["state"], states[2]["optimizer"]["state"])


# Looking late, as on a GPU


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [1, 7, LAST - 1, LAST])
def test_a_late_look_finds_the_same_step_and_the_same_weights(tmp_path, monkeypatch, fault, step):
    monkeypatch.setattr(finite, "answers_late", lambda runner: True)
    expected, seen = {}, []
    hooks = [before(step, expected), at(after_step=lambda runner: seen.append(runner.step))]
    runner = faulty(tmp_path, fault, step, hooks=hooks, eval_steps=0)
    make_fused(runner)
    with pytest.raises(NotFiniteError, match=FAULTS[fault]) as caught:
        runner.train()
    assert caught.value.step == step
    assert seen[-1] == min(step + finite.DELAY - 1, LAST)  # it went on for a while
    for name, parameter in runner.task.named_parameters():
        assert torch.equal(parameter, expected["task"][name])
    if step > 1:  # else there was no state yet
        assert_same(snapshot(runner)["optimizer"]["state"], expected["optimizer"]["state"])
    assert load(tmp_path / "not_finite" / f"step_{step:08d}.pt")["index"] == [
        int(index) for index in _batch_of(runner, step)["index"]
    ]


def _batch_of(runner, step):
    epoch, number = divmod(step - 1, STEPS)
    return next(iter(runner.train_loader.epoch(epoch, start=number)))


def test_a_late_look_comes_before_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(finite, "answers_late", lambda runner: True)
    runner = faulty(tmp_path, "batch norm", 6, hooks=[EMA(), Checkpoint(every_steps=1)])
    make_fused(runner)
    with pytest.raises(NotFiniteError):
        runner.train()
    assert step_of(newest(tmp_path / "checkpoints")[0]) == 5


# From the command line

PLUGIN = """
import torch
from torch import nn
from visreg import MODELS

@MODELS.register
class Spoilt(nn.Module):
    "A linear classifier that cannot stand one sample."

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(784, num_classes), Norm()

    def forward(self, image):
        return self.norm(self.linear(image.flatten(1)), image)

class Norm(nn.Module):
    def forward(self, logits, image):
        bad = (image.sum((1, 2, 3), keepdim=True)[..., 0, 0] > {limit}) & self.training
        return logits + torch.where(bad, float("nan"), 0.0)
"""


def run(*arguments, cwd):
    command = [sys.executable, "-m", "visreg", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


def test_the_command_line_ends_with_5_and_can_go_on_without_the_batch(tmp_path):
    from visreg.datasets.digits import Digits

    dataset = Digits(train=True)
    dataset.open()
    totals = ((dataset.tensors()["image"].float() / 255 - 0.5) / 0.5).sum((1, 2, 3))
    index = int(totals.argmax())
    (tmp_path / "spoilt.py").write_text(PLUGIN.replace("{limit}", f"{float(totals.max()) - 0.003:.5f}"))
    config = SMALL.replace("MLP", "Spoilt").replace(", in_channels=1, image_size=28", "").replace(", widths=[16]", "")
    (tmp_path / "config.py").write_text(config + "plugins = ['./spoilt.py']\nrun['work_dir'] = 'run'\n")

    done = run("train", "config.py", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the output of model.norm (Norm) is not finite" in line
    (path,) = (tmp_path / "run" / "not_finite").iterdir()
    assert index in load(path)["index"]
    assert f"run/not_finite/{path.name}" in line
    assert not list((tmp_path / "run" / "checkpoints").glob("*.pt"))

    again = run("train", "config.py", "--set", "run.on_nan='rollback'", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("to go on without the batch") == 2  # once an epoch
    assert len(resume(tmp_path / "run" / "checkpoints")["skipped"]) == 2


# Several processes

SCRIPT = """
import math, sys, torch
from pathlib import Path
from tiny import STEPS, LinearTask, at, tiny_runner
from visreg import dist
from visreg.errors import NotFiniteError
from visreg.hooks.checkpoint import Checkpoint

class Faulty(LinearTask):
    now = False
    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        return {"loss": loss + math.nan if self.now else loss}  # its gradient is finite

def spoil(runner):
    runner.task.now = runner.step + 1 == 7 and dist.rank() == 1

dist.join(torch.device("cpu"))
folder, on_nan, precision = sys.argv[1:]
hooks = [at(before_step=spoil), Checkpoint(every_steps=2)]
runner = tiny_runner(Path(folder), hooks, task=Faulty, on_nan=on_nan, precision=precision)
try:
    runner.train()
    print(f"rank {dist.rank()} skipped {runner.skipped} at {runner.step} {float(runner.task.model.weight.sum())};")
except NotFiniteError as error:
    print(f"rank {dist.rank()} stopped at {error.step}: {len(error.args[0])} {runner.step};")
dist.leave()
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("on_nan", ["stop", "rollback"])
def test_processes_stop_at_the_same_step_though_only_one_has_a_bad_loss(tmp_path, on_nan, precision):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "script.py"]
    done = subprocess.run(
        [*command, str(tmp_path / "run"), on_nan, precision],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = sorted(part.strip() for part in done.stdout.split(";") if part.strip())
    ends = {part.partition(" ")[2].partition(" ")[2] for part in told}
    assert len(told) == 2
    assert len(ends) == 1
    assert ends.pop().startswith("stopped at 7" if on_nan == "stop" else "skipped [7] at 10")
    kept = load(tmp_path / "run" / "not_finite" / "step_00000007.pt")
    assert len(kept["batches"]) == 2
    assert len(kept["index"]) == 4


def test_a_parameter_without_a_gradient_is_none_to_look_at(tmp_path):
    runner = faulty(tmp_path, "")
    runner.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    runner.train()
    assert runner.step == LAST
