"""Signals to a run of two processes: they stop at one and the same step, whichever of them was told."""

from __future__ import annotations

import importlib
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.faults.test_signals_anywhere import CONFIG, assert_ends_as, newest
from tests.test_signals import ended
from visreg.cli import main


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("processes") / "config.py"
    path.write_text(CONFIG)
    return path


def in_two(config, folder, *arguments, kill=("", ""), fail=("", "")):
    """Run ``visreg train`` in two processes, forked from this one; return their exit codes and all they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log = folder.with_name(folder.name + ".txt")
    pids = [
        forked(
            config, folder, arguments, log, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=port, KILL=kill[rank] or "none 0 0 0", RAISE=fail[rank],
        )
        for rank in range(2)
    ]  # fmt: skip
    return [ended(pid, 60) for pid in pids], log.read_text()


def forked(config, folder, arguments, log, **environment):
    """Begin ``visreg train`` in a process forked from this one, in a group of its own; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ.update(NOW="0", **environment)
        main(["train", str(config), "--work-dir", str(folder), *arguments])
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code)


@pytest.fixture(scope="module")
def whole(config):
    importlib.import_module("torch._dynamo")  # as DistributedDataParallel does, once and not in every fork
    folder = config.with_name("whole")
    codes, text = in_two(config, folder)
    assert codes == [0, 0], text
    return folder


PLACES = [("", "forward 3"), ("", "update 5"), ("between_steps 9", ""), ("", "after_train 10")]
MORE = [
    ("forward 3", ""), ("", "after_backward 4"), ("forward 4", "forward 5"), ("before_eval 5", ""),
    ("", "after_eval 5"), ("save:opened 5", ""), ("", "before_train 0"), ("", "after_step 10"),
]  # fmt: skip
PLACES = [pytest.param(*places) for places in PLACES] + [pytest.param(*more, marks=pytest.mark.slow) for more in MORE]


@pytest.mark.parametrize(("first", "second"), PLACES)
def test_both_stop_at_one_step_whichever_was_told(config, whole, tmp_path, first, second):
    kill = [f"{place} {int(signal.SIGTERM)} 1" if place else "" for place in (first, second)]
    codes, text = in_two(config, tmp_path / "run", kill=kill)
    told_too_late = "after_train" in second  # then there was nothing left to agree on
    assert codes == ([0, 143] if told_too_late else [143, 143]), text
    assert "Traceback" not in text
    codes, text = in_two(config, tmp_path / "run", "--resume")
    assert codes == [0, 0], text
    assert_ends_as(whole, tmp_path / "run")


def launched(config, folder, *arguments):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command = [*launcher, str(ROOT / "tools" / "train.py"), str(config), "--work-dir", str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
def test_a_launcher_that_is_told_to_end_ends_a_run_that_is_saved(config, tmp_path, attempt):
    many, folder = ["--set", "run.epochs=4000"], tmp_path / "run"
    with launched(config, folder, *many) as process:
        while "epoch 2/" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(random.Random(attempt).uniform(0, 0.5))
        process.terminate()
        rest = process.communicate(timeout=60)[0]
    assert rest.count("interrupted at step") == 1, rest
    step = newest(folder)["step"]
    assert f"interrupted at step {step} of" in rest
    assert step > 0
    assert process.returncode not in (0, None)


@pytest.mark.slow
def test_a_run_that_is_stopped_and_continued_goes_on_as_if_nothing_had_happened(config, tmp_path):
    ends = []
    for name in ("whole", "stopped"):
        command = [sys.executable, "-m", "visreg", "train", str(config), "--work-dir", str(tmp_path / name)]
        command += ["--set", "run.epochs=150", "train.workers=2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            while "epoch 2/" not in process.stdout.readline():
                assert process.poll() is None
            for _ in range(5 if name == "stopped" else 0):
                process.send_signal(signal.SIGSTOP)
                time.sleep(1)
                process.send_signal(signal.SIGCONT)
                time.sleep(0.2)
            process.communicate(timeout=120)
        assert process.returncode == 0
        ends.append(tmp_path / name)
    assert_ends_as(*ends)


def test_what_all_processes_find_is_told_once_and_what_one_finds_ends_all(config, tmp_path):
    codes, text = in_two(config, tmp_path / "both", fail=("open", "open"))
    assert (codes, text) == ([3, 3], "error: no data\n")
    codes, text = in_two(config, tmp_path / "one", fail=("", "open"))
    assert codes == [7, 3]
    errors = [line for line in text.splitlines() if line.startswith("error")]
    assert sorted(errors) == ["error: no data", "error: process 1 could not begin"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["forward 3", "after_eval 5"])
def test_workers_that_get_the_signal_as_well_do_not_end_the_run(config, tmp_path, number, where):
    """Ctrl-C goes to all processes in the terminal, and so does the SIGTERM of many a job scheduler."""
    workers = ["--set", "train.workers=2"]
    for folder, kill in [("whole", ""), ("run", f"{where} {int(number)} 1")]:
        pid = forked(config, tmp_path / folder, workers, tmp_path / "log", KILL=kill or "none 0 0 0", TO_GROUP="1")
        assert ended(pid) == (128 + number if kill else 0), (tmp_path / "log").read_text()
    pid = forked(config, tmp_path / "run", [*workers, "--resume"], tmp_path / "log", KILL="none 0 0 0")
    assert ended(pid) == 0
    assert_ends_as(tmp_path / "whole", tmp_path / "run")
