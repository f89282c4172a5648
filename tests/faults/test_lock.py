"""Runs that are pointed at a folder they cannot have."""

from __future__ import annotations

import os
import stat

import pytest

from tests.test_cli import newest, run
from visreg.build_data import DataBuilder
from visreg.run_lock import RunLock


def contents(folder):
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def test_a_second_run_is_refused_before_it_writes_and_a_test_is_not(small, capsys):
    work = small.parent / "work"
    assert run("train", small, "--set", "run.epochs=1") == 0
    with RunLock(work):
        before = contents(work)
        capsys.readouterr()
        for arguments in ([], ["--resume"]):
            assert run("train", small, *arguments) == 2
            out, err = capsys.readouterr()
            assert "training" not in out
            assert err.startswith(f"error: {work} is in use by process {os.getpid()} on ")
            assert err.count("\n") == 1
        assert {name: value for name, value in contents(work).items() if name != str(work)} == {
            name: value for name, value in before.items() if name != str(work)
        }
        assert run("test", newest(small)) == 0
    assert run("train", small, "--resume") == 0


def test_a_second_run_is_refused_before_its_data_is_read(small, capsys, monkeypatch):
    monkeypatch.setattr(DataBuilder, "dataset", lambda self, split: pytest.fail(f"{split} is read"))
    with RunLock(small.parent / "work"):
        assert run("train", small) == 2
    assert "is in use by process" in capsys.readouterr().err


@pytest.mark.parametrize(
    "mistake",
    ["optimizer.lr=-1", "train.dataset={'type': 'ImageFolder', 'root': 'nowhere'}", "run.device='cuda:99'"],
)
def test_a_run_that_cannot_begin_leaves_no_folder_and_no_lock(small, tmp_path, mistake):
    work = tmp_path / "runs" / "mine"
    for _ in range(2):
        assert run("train", small, "--work-dir", work, "--set", mistake) in (2, 3, 6)
        assert not work.parent.exists()
    work.mkdir(parents=True)
    assert run("train", small, "--work-dir", work, "--set", mistake) in (2, 3, 6)
    with RunLock(work):
        assert work.is_dir()


@pytest.mark.parametrize("place", ["/proc/self/work", "/dev/null", "/dev/null/work"])
def test_a_folder_that_cannot_be_written_is_found_before_training(small, capsys, place):
    assert run("train", small, "--work-dir", place) == 6
    out, err = capsys.readouterr()
    assert "training" not in out
    assert err.startswith(f"error: {place}: cannot write the run's folder: ")
    assert err.endswith("; set run.work_dir\n")


def test_a_folder_that_all_can_write_is_warned_of(small, capsys):
    work = small.parent / "work"
    work.mkdir()
    work.chmod(0o777)
    assert run("train", small, "--set", "run.epochs=1") == 0
    assert f"{work}: every user of this machine can write what is in it; chmod o-w" in capsys.readouterr().out
    work.chmod(0o755)
    assert run("train", small, "--set", "run.epochs=1") == 0
    assert "every user" not in capsys.readouterr().out


@pytest.mark.parametrize(("me", "told"), [(0, False), (12345, True)])
def test_a_folder_of_another_user_is_warned_of(small, capsys, monkeypatch, me, told):
    work = small.parent / "work"
    work.mkdir()
    assert stat.S_IMODE(work.stat().st_mode) & 0o002 == 0
    monkeypatch.setattr(os, "geteuid", lambda: me)
    assert run("train", small, "--set", "run.epochs=1") == 0
    assert ("belongs to another user" in capsys.readouterr().out) == told
