"""A disk that fills up, fails or vanishes: the checkpoint before stays, and no failure is taken for a success."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess

import pytest
import torch
from tiny import at, tiny_runner

from visreg import whole_file
from visreg.checkpoint import load, save
from visreg.errors import CheckpointError, ResourceError
from visreg.hooks.checkpoint import Checkpoint

STATE = {"visreg": "0", "step": 1, "weights": torch.arange(20000.0)}
BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["at once", "in a thread"])


def failure(number):
    return OSError(number, os.strerror(number))


def full_after(monkeypatch, size, number=errno.ENOSPC):
    """Let the disk take so many more bytes, the last write only in part."""
    real, left = os.write, size

    def write(descriptor, data):
        nonlocal left
        if left == 0:
            raise failure(number)
        count = real(descriptor, data[:left])
        left -= count
        return count

    monkeypatch.setattr(whole_file.os, "write", write)


def attempt(folder, state=STATE, path="step_00000002.pt"):
    """Try to save; return whether it failed as it should, and left what was there and nothing else."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ResourceError, match=r"step_00000002\.pt: cannot save the checkpoint: "):
        save(state, folder / path)
    return before == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_at_every_4_kib_of_a_save(tmp_path, monkeypatch, survived, number):
    save(STATE, tmp_path / "step_00000001.pt")
    size = (tmp_path / "step_00000001.pt").stat().st_size
    places = [*range(0, size, 4096), size - 1]
    count = 0
    for place in places:
        with monkeypatch.context() as patch:
            full_after(patch, place, number)
            count += attempt(tmp_path)
    survived(f"disk full while saving ({errno.errorcode[number]})", count, len(places))


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_an_error_of_any_call(tmp_path, monkeypatch, survived, name, number):
    def fail(*_, **__):
        raise failure(number)

    save(STATE, tmp_path / "step_00000001.pt")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        ok = attempt(tmp_path)
    survived("open, fsync or rename fails", ok, 1)


def test_if_the_folder_cannot_be_flushed_the_save_is_none_and_nothing_is_pruned(tmp_path, monkeypatch):
    def fail(folder):
        if steps == [10]:
            raise failure(errno.EIO)
        real(folder)

    real, steps = whole_file.sync_folder, []
    monkeypatch.setattr("visreg.checkpoint.sync_folder", fail)
    note = at(between_steps=lambda runner: steps.__setitem__(slice(None), [runner.step]))
    with pytest.raises(ResourceError, match=r"step_00000010\.pt: cannot save .* Input/output error; look at the disk"):
        tiny_runner(tmp_path, [note, Checkpoint(keep=1)]).train()
    assert load(tmp_path / "checkpoints" / "step_00000005.pt")


@BOTH
def test_the_run_goes_on_and_saves_when_there_is_room_again(tmp_path, monkeypatch, caplog, asynchronous):
    def step(runner):
        if runner.step == 2:
            full_after(monkeypatch, 0)
        if runner.step == 4:
            checkpoint._settle()
            monkeypatch.undo()

    checkpoint = Checkpoint(every_steps=2, every=0, asynchronous=asynchronous)
    with caplog.at_level(logging.WARNING):
        tiny_runner(tmp_path, [at(between_steps=step), checkpoint], total_steps=6).train()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names[-1:] == ["step_00000006.pt"]
    assert len(names) == 3 - caplog.text.count("No space left on device; free some space; training goes on")
    assert "step_00000002.pt" not in names


@BOTH
def test_three_failures_end_the_run_and_the_checkpoint_before_stays(tmp_path, monkeypatch, asynchronous):
    def step(runner):
        if runner.step == 3:
            full_after(monkeypatch, 1000)

    seen = []
    hooks = [
        at(after_step=lambda runner: seen.append(runner.step)),
        Checkpoint(every_steps=1, asynchronous=asynchronous),
    ]
    with pytest.raises(ResourceError, match="No space left on device; free some space") as caught:
        tiny_runner(tmp_path, [at(before_step=step), *hooks], total_steps=20, eval_steps=0).train()
    assert caught.value.exit_code == 6
    folder = tmp_path / "checkpoints"
    saved = [path for path in folder.iterdir() if load(path)["step"] <= 4]
    assert len(saved) == len(list(folder.iterdir())) == 2
    assert seen[-1] <= 8


@BOTH
def test_a_folder_that_vanishes_is_not_made_again_in_silence(tmp_path, asynchronous, caplog):
    def vanish(runner):
        if runner.step == 3:
            checkpoint._settle()
            shutil.rmtree(tmp_path / "checkpoints")

    checkpoint = Checkpoint(every_steps=1, asynchronous=asynchronous)
    with pytest.raises(ResourceError, match=r"No such file or directory; its folder is gone"):
        tiny_runner(tmp_path, [at(before_step=vanish), checkpoint], eval_steps=0).train()
    assert not (tmp_path / "checkpoints").exists()
    assert caplog.text.count("training goes on") == 2


def test_a_limit_on_the_size_of_files(tmp_path, lives):
    save(STATE, tmp_path / "step_00000001.pt")
    assert lives.run("save_within_limit", tmp_path, 9000) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001.pt"]
    assert load(tmp_path / "step_00000001.pt")["step"] == 1


def test_temporary_files_are_on_the_same_disk(tmp_path, monkeypatch):
    opened, real = [], os.open
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "open",
            lambda path, flags, *rest, **more: (opened.append((path, flags)), real(path, flags, *rest, **more))[1],
        )
        save(STATE, tmp_path / "a.pt")
    assert {path.parent for path, flags in opened if flags & os.O_CREAT} == {tmp_path}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB in memory, of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "visreg", folder], capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_small_disk_that_is_full_at_every_4_kib(small_disk, survived):
    save(STATE, small_disk / "step_00000001.pt")
    size = (small_disk / "step_00000001.pt").stat().st_size
    free = os.statvfs(small_disk)
    free = free.f_bavail * free.f_bsize
    places = range(0, size, 4096)
    count = 0
    for place in places:
        (small_disk / "filler").write_bytes(bytes(free - place))
        count += attempt(small_disk)
        (small_disk / "filler").unlink()
    survived("a real disk full while saving", count, len(places))


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(small_disk, caplog):
    def step(runner):
        if runner.step == 3:
            subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(ResourceError, match="Read-only file system; make its folder writable"):
        tiny_runner(small_disk, [at(before_step=step), Checkpoint(every_steps=1)], eval_steps=0).train()
    assert caplog.text.count("training goes on") == 2
    assert load(small_disk / "checkpoints" / "step_00000003.pt")
    with pytest.raises(ResourceError, match="cannot write checkpoints: Read-only file system; choose another work_dir"):
        tiny_runner(small_disk, [Checkpoint()]).train()


@pytest.mark.slow
def test_nothing_that_is_left_of_a_full_disk_is_taken_for_a_checkpoint(small_disk):
    runner = tiny_runner(small_disk, [Checkpoint(every_steps=1, keep=99)], total_steps=200, eval_steps=0)
    with pytest.raises(ResourceError, match="No space left"):
        runner.train()
    for path in (small_disk / "checkpoints").iterdir():
        try:
            load(path)
        except CheckpointError as error:
            pytest.fail(str(error))
