"""One process of several: what each learns from its environment, and from the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from tests.conftest import ROOT
from visreg import dist
from visreg.errors import DistributedError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture
def alone(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def second_of_four(monkeypatch):
    for name, value in zip(VARIABLES, "312", strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "4")


@pytest.mark.usefixtures("alone")
def test_alone():
    assert (dist.launched(), dist.rank(), dist.local_rank(), dist.world_size(), dist.is_main()) == (
        False,
        0,
        0,
        1,
        True,
    )
    value = torch.arange(3)
    assert dist.total(value) is dist.largest(value) is dist.reducible(value) is value
    assert dist.gather("a") == ["a"]
    dist.join(torch.device("cpu"))
    assert not distributed.is_initialized()
    dist.leave()
    dist.share([value])
    assert value.tolist() == [0, 1, 2]


@pytest.mark.usefixtures("second_of_four")
def test_the_environment_of_torchrun():
    assert (dist.launched(), dist.rank(), dist.local_rank(), dist.world_size(), dist.is_main()) == (
        True,
        3,
        1,
        4,
        False,
    )


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
@pytest.mark.usefixtures("second_of_four")
def test_half_an_environment_is_none(monkeypatch, missing):
    monkeypatch.delenv(missing)
    assert (dist.rank(), dist.local_rank(), dist.world_size()) == (0, 0, 1)


@pytest.mark.usefixtures("second_of_four")
def test_processes_that_cannot_meet_are_an_error(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(DistributedError, match=r"process 3 of 4 cannot join the others: .*MASTER_ADDR"):
        dist.join(torch.device("cpu"))
    dist.leave()  # which does nothing then


@pytest.fixture
def group(monkeypatch, tmp_path):
    """A group that is said to be of two processes, though there is only this one in it."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    for name, value in zip(VARIABLES, "002", strict=True):
        monkeypatch.setenv(name, value)
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_reductions_leave_their_argument_alone():
    value = torch.arange(3)
    for reduce in (dist.total, dist.largest):
        assert torch.equal(reduce(value), value)
        assert reduce(value) is not value
    assert dist.reducible(value).device.type == "cpu"


@pytest.mark.usefixtures("group")
def test_joining_twice_is_joining_once_and_leaving_twice_leaving_once():
    group = distributed.group.WORLD
    dist.join(torch.device("cpu"))
    assert distributed.group.WORLD is group
    dist.share([torch.zeros(2)])
    dist.leave()
    assert not distributed.is_initialized()
    dist.leave()


SCRIPT = """
from pathlib import Path
from tiny import tiny_config
from visreg import build_runner, dist

def threads():
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

runner = build_runner(tiny_config())
runner.train()
before = threads()
dist.leave()
print(f"of {before > 0} {threads()} left;")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux lists them")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that frees a tensor while Python shuts down aborts its process, and torchrun calls the run a failure."""
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "script.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of True 0 left;") == 2


def test_where_tensors_meet(monkeypatch):
    for name, value in zip(VARIABLES, "002", strict=True):
        monkeypatch.setenv(name, value)
    moved = []
    monkeypatch.setattr(distributed, "get_backend_config", lambda: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: moved.append(device) or self)
    dist.reducible(torch.zeros(1))
    assert moved == [torch.device("cuda", 1)]


@pytest.mark.usefixtures("alone")
def test_one_process_agrees_with_itself_at_once():
    agreement = dist.Agreement()
    assert [agreement.largest(value) for value in (0, 15, 0)] == [0, 15, 0]


@pytest.mark.usefixtures("group")
def test_several_agree_one_call_later():
    agreement = dist.Agreement()
    assert [agreement.largest(value) for value in (0, 15, 2, 0)] == [0, 0, 15, 2]
    agreement.close()
    assert agreement.largest(1) == 0
