from __future__ import annotations

import json
import logging
import math

import pytest
from tiny import STEPS, Scripted, StopAt, at, snapshot, tiny_runner

from visreg.errors import ResourceError
from visreg.hooks.metrics_log import MetricsLog


def rows(work_dir, name="metrics.jsonl"):
    def refuse(word):
        raise ValueError(word)

    return [json.loads(line, parse_constant=refuse) for line in (work_dir / name).read_text().splitlines()]


def test_the_lines(tmp_path):
    losses = []
    watch = at(after_step=lambda runner: losses.append(float(runner.losses["loss"])))
    runner = tiny_runner(tmp_path, [MetricsLog(every=4), watch])
    runner.train()
    means = [sum(losses[start : start + 4]) / len(losses[start : start + 4]) for start in (0, 4, 8)]
    found = rows(tmp_path)
    assert [list(row) for row in found] == [
        ["step", "epoch", "lr", "loss"], ["step", "epoch", "data", "accuracy"], ["step", "epoch", "lr", "loss"],
        ["step", "epoch", "data", "accuracy"], ["step", "epoch", "lr", "loss"],
    ]  # fmt: skip
    assert [(row["step"], row["epoch"]) for row in found] == [(4, 0), (5, 1), (8, 1), (10, 2), (10, 2)]
    assert [row["loss"] for row in found if "loss" in row] == pytest.approx(means)
    assert found[0]["lr"] == pytest.approx(0.09)
    assert found[3] == {"step": 10, "epoch": 2, "data": "tiny val", **runner.scores}


def test_what_is_not_finite_is_null(tmp_path):
    tiny_runner(tmp_path, [MetricsLog()], metrics=[Scripted(math.nan, math.inf)]).train()
    assert [row["accuracy"] for row in rows(tmp_path) if "data" in row] == [None, None]


def test_a_row_is_in_the_file_at_once(tmp_path):
    seen = []
    watch = at(between_steps=lambda runner: seen.append(len(rows(tmp_path))))
    tiny_runner(tmp_path, [MetricsLog(every=2), watch], epochs=1).train()
    assert seen == [0, 1, 1, 2, 3]


def test_a_score_cannot_pass_for_the_step(tmp_path):
    class Step(Scripted):
        def compute(self):
            return {"step": -1.0}

    tiny_runner(tmp_path, [MetricsLog()], metrics=[Step(0)], epochs=1).train()
    assert rows(tmp_path)[0]["step"] == STEPS


def test_a_fresh_run_keeps_the_file_of_the_one_before(tmp_path, caplog):
    for _ in range(3):
        with caplog.at_level(logging.WARNING):
            tiny_runner(tmp_path, [MetricsLog(every=5)]).train()
    one, two, three = (rows(tmp_path, f"metrics.jsonl{end}") for end in ("", ".1", ".2"))
    assert one == two == three
    assert "is now metrics.jsonl.2" in caplog.text


def test_a_finished_run_that_is_given_more_epochs_completes_its_last_line(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_runner(whole, [MetricsLog(every=4)], epochs=4).train()
    first = tiny_runner(parts, [MetricsLog(every=4)], epochs=2)
    first.train()
    assert rows(parts)[-1]["step"] == 10
    state = snapshot(first)
    again = tiny_runner(parts, [MetricsLog(every=4)], epochs=4)
    again.load_state_dict(state)
    again.train()
    assert rows(parts) == rows(whole)


def test_a_resume_without_the_file_starts_one_and_says_so(tmp_path, caplog):
    first = tiny_runner(tmp_path / "a", [StopAt(6), MetricsLog(every=2)])
    first.train()
    state = snapshot(first)
    again = tiny_runner(tmp_path / "b", [MetricsLog(every=2)])
    again.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        again.train()
    assert [row["step"] for row in rows(tmp_path / "b")] == [8, 10, 10]
    assert "lines from before step 6 are missing" in caplog.text


class FullDisk:
    """A file on a disk that has room for some more bytes only."""

    name = "metrics.jsonl"

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def close(self):
        self.file.close()


def test_lines_that_a_full_disk_refuses_are_written_when_there_is_room_again(tmp_path, caplog):
    log = MetricsLog(every=1)

    def fill(runner):
        if runner.step == 2:
            log._file = FullDisk(log._file, room=30)
        if runner.step == 7:
            log._file.room = 10**6

    with caplog.at_level(logging.WARNING):
        tiny_runner(tmp_path / "full", [at(before_step=fill), log]).train()
    tiny_runner(tmp_path / "free", [MetricsLog(every=1)]).train()
    assert rows(tmp_path / "full") == rows(tmp_path / "free")
    assert "No space left on device; the next line tries again" in caplog.text


def test_an_evaluation_outside_training_writes_nothing(tmp_path):
    tiny_runner(tmp_path, [MetricsLog()]).evaluate()
    assert list(tmp_path.iterdir()) == []


def test_a_work_dir_that_cannot_be_written_is_an_error_before_training(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="choose another work_dir"):
        tiny_runner(tmp_path / "file", [MetricsLog()]).train()
