from __future__ import annotations

import logging
import os

import pytest
import torch

from visreg import checkpoint
from visreg.checkpoint import differences, load, newest, resume, save
from visreg.errors import CheckpointError, ResourceError

STATE = {"visreg": "0", "weights": torch.arange(600.0), "nested": {"list": [1, 2.5, None, "a", True]}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "step_00000002.pt"
    save(STATE, path)
    return path


def test_what_is_saved_is_loaded(path):
    state = load(path)
    assert torch.equal(state["weights"], STATE["weights"])
    assert state["nested"] == STATE["nested"]


def test_torch_itself_reads_the_file(path):
    assert torch.equal(torch.load(path, weights_only=True)["weights"], STATE["weights"])


def test_only_the_file_itself_is_left(path):
    save(STATE, path)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_cut_anywhere_is_found_out(path):
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"cut short|damaged"):
            load(path)


def test_a_flipped_bit_anywhere_is_found_out(path):
    data = path.read_bytes()
    for place in range(0, len(data), 53):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=r"cut short|damaged"):
            load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: cannot read the checkpoint: No such file"):
        load(tmp_path / "none.pt")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_is_executed(tmp_path, capsys):
    save({"visreg": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="not made of tensors and plain data"):
        load(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


def test_a_file_of_something_else_is_refused(tmp_path):
    save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of a visreg run"):
        load(tmp_path / "other.pt")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        save({"visreg": "1"}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_on_the_disk_before_it_has_its_name_and_the_folder_after(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, checkpoint.Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(checkpoint.Path, "replace", lambda a, b: (done.append("rename"), replace(a, b))[1])
    save(STATE, tmp_path / "a.pt")
    assert done == ["fsync", "rename", "fsync"]


def test_others_may_read_it_as_they_may_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save(STATE, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_decide_which_is_newest(tmp_path):
    for step in (9, 100, 20):
        (tmp_path / f"step_{step:08d}.pt").touch()
    for other in ("best.pt", "step_x.pt", ".step_00000300.pt.tmp"):
        (tmp_path / other).touch()
    assert [path.name for path in newest(tmp_path)] == ["step_00000100.pt", "step_00000020.pt", "step_00000009.pt"]


def test_a_damaged_checkpoint_falls_back_to_the_one_before_it_and_is_named(path, caplog):
    save({"visreg": "0", "step": 1}, path.with_name("step_00000001.pt"))
    path.write_bytes(path.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert resume(path.parent)["step"] == 1
    assert "step_00000002.pt: not a visreg checkpoint, or one that was cut short" in caplog.text
    assert "of step 1" in caplog.text


def test_if_all_are_damaged_each_is_named(path):
    path.with_name("step_00000001.pt").touch()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"(?s)every checkpoint is damaged.*00000002\.pt.*00000001\.pt"):
        resume(path.parent)


def test_no_checkpoints_are_no_error(tmp_path):
    assert resume(tmp_path) is None
    assert resume(tmp_path / "missing") is None


def test_differences_are_listed_up_to_a_limit():
    one, other = {"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.zeros(3), "c": torch.zeros(1)}
    assert differences(one, other) == [
        "a: (3,) in the checkpoint, (2,) in the model",
        "b: missing in the checkpoint, (1,) in the model",
        "c: (1,) in the checkpoint, missing in the model",
    ]
    many = {str(number): torch.zeros(1) for number in range(30)}
    assert differences(many, {})[-1] == "... and 11 more"
    assert len(differences(many, {})) == 20
