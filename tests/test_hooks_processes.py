"""Hooks in a run of two processes against the same run in one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import LinearTask, StopAt, assert_same, tiny_data, tiny_loader, tiny_runner

from visreg import dist
from visreg.checkpoint import load, newest, resume
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.clip_grad import ClipGrad
from visreg.hooks.early_stopping import EarlyStopping
from visreg.hooks.ema import EMA
from visreg.hooks.freeze import Freeze
from visreg.hooks.metrics_log import MetricsLog
from visreg.hooks.regularization import L2
from visreg.metric import Metric
from visreg.metrics.accuracy import Accuracy
from visreg.metrics.confusion import F1


def build(work_dir, stop=()):
    hooks = [
        Freeze(patterns=["weight"], epochs=1), L2(weight=0.01), ClipGrad(max_norm=0.5), EMA(), *stop,
        EarlyStopping(monitor="accuracy"), MetricsLog(every=3), Checkpoint(keep=2, best="accuracy"),
    ]  # fmt: skip
    return tiny_runner(work_dir, hooks, task=LinearTask, epochs=3, accumulate=2, metrics=[Accuracy()])


class Seen(Metric):
    """Which samples every process was asked about, and how often."""

    def names(self):
        return ("seen", "twice")

    def reset(self):
        self.counts = torch.zeros(EVALUATED)

    def update(self, predictions, batch):
        self.counts.index_add_(0, batch["index"], torch.ones(len(batch["index"])))

    def compute(self):
        counts = dist.total(self.counts)
        return {"seen": float((counts > 0).sum()), "twice": float((counts > 1).sum())}


EVALUATED = 13  # in batches of 4: the last one has a single sample, so that one of two processes has none


def build_with_batch_norm(work_dir):
    """Return a run whose processes have statistics of their own, evaluated on batches that do not divide."""
    val_loader = tiny_loader(train=False, name="uneven", data=tiny_data(EVALUATED, seed=1))
    metrics = [Accuracy(), F1(num_classes=3), Seen()]
    hooks = [MetricsLog(every=3), Checkpoint(keep=2)]
    return tiny_runner(work_dir, hooks, epochs=3, metrics=metrics, val_loader=val_loader)


def main(work_dir, stop="", recipe="hooks"):
    """Train up to a step, or from the latest checkpoint on, as each of the processes does."""
    dist.join(torch.device("cpu"))
    stop = int(stop or 0)
    runner = build_with_batch_norm(work_dir) if recipe == "norm" else build(work_dir, [StopAt(stop)] if stop else [])
    state = resume(work_dir / "checkpoints")
    if state is not None:
        runner.load_state_dict(state)
    runner.train()
    dist.leave()


def in_two_processes(*arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env={
                **os.environ, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(Path(__file__).parent.parent),
            },
            stderr=subprocess.PIPE,
        )
        for rank in "01"
    ]  # fmt: skip
    for process in processes:
        errors = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0, errors


def rows(work_dir):
    return [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", name="two")
def two_processes(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("two")
    in_two_processes(work_dir)
    return work_dir


def test_two_processes_do_what_one_does(two, tmp_path):
    one = build(tmp_path)
    one.train()
    assert [path.name for path in newest(two / "checkpoints")] == ["step_00000015.pt", "step_00000010.pt"]
    state = load(two / "checkpoints" / "step_00000015.pt")
    for name, value in one.task.state_dict().items():
        torch.testing.assert_close(state["task"][name], value)
    for name, value in one.hooks[3].average.items():
        torch.testing.assert_close(state["hooks"][3]["state"]["average"][name], value)
    for row, expected in zip(rows(two), rows(tmp_path), strict=True):
        assert row == {name: pytest.approx(value) for name, value in expected.items()}


def test_what_is_frozen_for_an_epoch_trains_in_both_afterwards(two):
    start, (last, first) = build(two), newest(two / "checkpoints")
    assert not torch.equal(start.task.model.weight, load(last)["task"]["model.weight"])
    assert not torch.equal(load(first)["task"]["model.weight"], load(last)["task"]["model.weight"])


def test_a_run_of_two_processes_that_was_stopped_and_resumed_ends_as_one_that_was_not(two, tmp_path):
    in_two_processes(tmp_path, 7)
    assert newest(tmp_path / "checkpoints")[0].name == "step_00000007.pt"
    in_two_processes(tmp_path)
    one, other = (load(folder / "checkpoints" / "step_00000015.pt") for folder in (two, tmp_path))
    assert_same(one, other)
    assert rows(tmp_path) == rows(two)


def test_batch_norm_and_uneven_batches_in_two_processes(tmp_path):
    """The statistics that are evaluated, and saved, are those of the main process; no sample is counted twice."""
    in_two_processes(tmp_path, "", "norm")
    state = load(tmp_path / "checkpoints" / "step_00000015.pt")
    assert state["scores"]["seen"] == EVALUATED
    assert state["scores"]["twice"] == 0
    one = build_with_batch_norm(tmp_path / "one")
    one.load_task(state)
    assert {**one.evaluate(), "seen": EVALUATED} == state["scores"]
    assert int(state["task"]["model.1.num_batches_tracked"]) == 15
    assert len(state["generators"]) == 2
    assert [row["step"] for row in rows(tmp_path) if "seen" in row] == [5, 10, 15]  # written once


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
