"""Checkpoints of every version so far can be resumed, and those of one to come are refused by their version."""

from __future__ import annotations

import json

import pytest
import torch
from golden.make import digest

from tests.conftest import ROOT
from visreg.build import build_runner
from visreg.checkpoint import load, save
from visreg.errors import CheckpointError
from visreg.resume import check_config

FILES = sorted((ROOT / "tests" / "golden").glob("*.pt"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return request.param


def test_there_is_one_and_it_is_small():
    assert FILES
    assert all(path.stat().st_size < 50_000 for path in FILES)


def test_it_is_resumed(golden, tmp_path, caplog):
    facts = json.loads(golden.with_suffix(".json").read_text())
    state = load(golden)
    assert digest(state) == facts["sha256"]
    config = {**facts["config"], "run": {**facts["config"]["run"], "work_dir": str(tmp_path)}}
    check_config(state, config)
    runner = build_runner(config)
    runner.load_state_dict(state)
    assert (runner.step, runner.scores) == (facts["step"], facts["scores"])
    assert digest(runner.state_dict()) == facts["sha256"]
    assert "which starts afresh" not in caplog.text
    runner.train()
    assert runner.step == facts["config"]["run"]["steps"]
    assert all(value.isfinite().all() for value in runner.task.state_dict().values())


@pytest.mark.parametrize("version", ["99.0.0", "0.100.0"])
def test_one_of_a_newer_version_is_refused(golden, tmp_path, version):
    path = tmp_path / "newer.pt"
    save({**load(golden), "visreg": version}, path)
    with pytest.raises(CheckpointError, match=f"made by visreg {version}"):
        load(path)


def test_it_holds_tensors_and_plain_data_only(golden):
    state = torch.load(golden, weights_only=True)
    assert state["visreg"] == golden.stem.removeprefix("visreg-")


def test_one_of_before_the_names_of_all_classes_is_resumed(golden, tmp_path):
    facts = json.loads(golden.with_suffix(".json").read_text())
    state = load(golden)
    del state["class_names"]
    runner = build_runner({**facts["config"], "run": {**facts["config"]["run"], "work_dir": str(tmp_path)}})
    runner.load_state_dict(state)
    assert runner.step == facts["step"]
