"""One run at a time in a run's folder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import time

import pytest

from visreg.errors import InUseError, ResourceError
from visreg.run_lock import RunLock


def acquire(folder):
    with RunLock(folder):
        pass


@pytest.fixture
def holder():
    """Fork processes that hold the lock of a folder until they are killed."""
    pids = []

    def hold(folder, also=lambda: None):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            with RunLock(folder):
                also()
                os.write(writer, b".")
                time.sleep(60)
            os._exit(0)
        pids.append(pid)
        os.close(writer)
        assert os.read(reader, 1) == b"."
        os.close(reader)
        return pid

    yield hold
    for pid in pids:
        end(pid)


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path, holder):
    pid = holder(tmp_path)
    before = (tmp_path / ".lock").read_bytes()
    with pytest.raises(InUseError, match=rf"is in use by process {pid} on .+, since \d{{4}}-.*--work-dir") as caught:
        acquire(tmp_path)
    assert caught.value.exit_code == 2
    assert (tmp_path / ".lock").read_bytes() == before
    assert json.loads(before)["pid"] == pid


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path, holder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("visreg"), "propagate", True)
    pid = holder(tmp_path)
    end(pid)
    with caplog.at_level(logging.INFO):
        acquire(tmp_path)
    assert f"its last run, process {pid} on" in caplog.text


def test_a_run_that_ends_leaves_no_trace_of_itself(tmp_path, caplog):
    acquire(tmp_path)
    assert (tmp_path / ".lock").read_bytes() == b""
    acquire(tmp_path)
    assert not caplog.records


def test_a_worker_that_outlives_its_run_holds_nothing(tmp_path, holder):
    workers = []
    reader, writer = os.pipe()

    def start_worker():
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        os.write(writer, f"{pid}\n".encode())

    try:
        end(holder(tmp_path, start_worker))
        workers.append(int(os.read(reader, 20)))
        acquire(tmp_path)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("text", [b"", b"not JSON", b"[]", b'{"pid": 1}', b"\xff" * 5000])
def test_a_text_that_says_nothing_is_no_trouble(tmp_path, text):
    (tmp_path / ".lock").write_bytes(text)
    with RunLock(tmp_path):
        (tmp_path / ".lock").write_bytes(text)
        with pytest.raises(InUseError, match="another run"):
            acquire(tmp_path)


def test_where_files_cannot_be_locked_it_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("visreg"), "propagate", True)

    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    acquire(tmp_path)
    assert "cannot be locked (No locks available); see to it that no other run uses it" in caplog.text


@pytest.mark.parametrize("place", ["file/work", "file"])
def test_a_folder_that_cannot_be_made_has_one_message(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=rf"{place}: cannot write the run's folder: .+; set run\.work_dir"):
        acquire(tmp_path / place)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_folders_that_were_made_are_removed_if_nothing_is_put_into_them(tmp_path):
    folder = tmp_path / "runs" / "mine"
    acquire(folder)
    assert not list(tmp_path.iterdir())
    with RunLock(folder):
        (folder / "log.txt").touch()
    assert sorted(each.name for each in folder.iterdir()) == [".lock", "log.txt"]
    acquire(folder)
    assert folder.is_dir()
    (tmp_path / "empty").mkdir()
    acquire(tmp_path / "empty")
    assert (tmp_path / "empty").is_dir()


def test_what_another_run_has_removed_is_no_lock(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    other, flock = RunLock(folder).__enter__(), fcntl.flock

    def late(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        other.__exit__()
        return flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with RunLock(folder), pytest.raises(InUseError):
        acquire(folder)
    assert not folder.exists()


@pytest.mark.parametrize("step", ["open", "mkdir"])
def test_a_folder_that_another_run_removes_meanwhile_is_made_again(tmp_path, monkeypatch, step):
    folder = tmp_path / "runs" / "mine"
    other, real = RunLock(folder).__enter__(), getattr(os, step)

    def late(path, *args, **options):
        monkeypatch.setattr(os, step, real)
        if step == "open":
            other.__exit__()
            return real(path, *args, **options)
        try:
            return real(path, *args, **options)
        finally:  # it is there, says the system; when one looks, it is not
            other.__exit__()

    monkeypatch.setattr(os, step, late)
    with RunLock(folder), pytest.raises(InUseError):
        acquire(folder)
    assert not any(tmp_path.iterdir())


def test_a_run_that_cannot_open_the_lock_leaves_it_to_its_holder(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    with RunLock(tmp_path / "work"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(ResourceError, match="Permission denied"):
                acquire(tmp_path / "work")
        with pytest.raises(InUseError):
            acquire(tmp_path / "work")
