from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import stat
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import assert_same

import visreg
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


def written(path, state, protocol=2):
    """Write what `save` would if it took anything."""
    buffer = io.BytesIO()
    torch.save(state, buffer, pickle_protocol=protocol)
    return sealed(path, buffer.getvalue())


def sealed(path, body):
    """Write ``body`` with a right checksum, which anyone can."""
    path.write_bytes(body + checkpoint.MARK + hashlib.sha256(body).digest())
    return path


def test_nothing_is_executed(tmp_path, capsys):
    with pytest.raises(CheckpointError, match=r"not made of tensors and plain data: it holds a __builtin__\.print"):
        load(written(tmp_path / "evil.pt", {"visreg": Evil()}))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("thing", [np.ones(3), np.float64(1), Path("x"), range(3), bytearray(9)], ids=repr)
def test_what_could_not_be_loaded_is_not_saved(path, thing):
    with pytest.raises(CheckpointError, match=r"cannot save a .*; the state must be tensors and plain data"):
        save({"visreg": "0", "x": thing}, path)
    assert torch.equal(load(path)["weights"], STATE["weights"])
    assert list(path.parent.iterdir()) == [path]


def test_all_kinds_of_plain_data_and_tensors_are_loaded(tmp_path):
    shared = torch.arange(12.0)
    plain = [None, True, -1, 1 << 40, 1 << 400, 2.5, "ü\n", b"\0\xff", (1,), {2}, 1j, {"a": {3: []}}, Counter("aab")]
    dtypes = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint16, torch.bool, torch.complex64]
    tensors = [torch.zeros(2, 3, dtype=dtype) for dtype in [*dtypes, torch.float8_e4m3fn]]
    views = [
        shared[3:7],
        shared.view(3, 4).t(),
        shared[::2],
        torch.tensor(1.0),
        torch.zeros(0, 5),
        shared[:1].expand(9),
    ]
    others = [torch.nn.Parameter(shared), torch.Size([1]), torch.float32, OrderedDict(a=1)]
    state = {"visreg": "0", "plain": plain, "tensors": tensors, "views": views, "others": others}
    save(state, tmp_path / "a.pt")
    assert_same(load(tmp_path / "a.pt"), state)


def test_a_further_name_is_of_the_same_file(path):
    save({"visreg": "0.0"}, path, path.with_name("best.pt"))
    assert path.with_name("best.pt").samefile(path)
    save({"visreg": "0"}, path)
    assert load(path.with_name("best.pt")) == {"visreg": "0.0"}


def test_where_a_disk_knows_no_links_the_file_is_copied(path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    save({"visreg": "0.0"}, path, path.with_name("best.pt"))
    assert load(path.with_name("best.pt")) == load(path) == {"visreg": "0.0"}
    assert sorted(path.parent.iterdir()) == sorted([path, path.with_name("best.pt")])


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    nameless = os.fsdecode(bytes(tmp_path) + b"/\xff")
    for name in ("", "fifo", "endless", "loop", "huge", "a" * 300, "x\0y", nameless):
        with pytest.raises(CheckpointError, match=r"cannot read|cut short"):
            load(tmp_path / name)


def test_one_of_a_newer_visreg_is_refused(tmp_path):
    save({"visreg": "1999.1"}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"made by visreg 1999\.1; this is {visreg.__version__}, so update it"):
        load(tmp_path / "a.pt")


def tampered(path, change):
    """Write a checkpoint whose pickle is changed, and whose checksums are all right."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["archive/data.pkl"] = change(entries["archive/data.pkl"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return sealed(path, buffer.getvalue())


def test_a_tensor_must_have_its_memory_in_the_file(path):
    tampered(path, lambda pickled: pickled)
    load(path)
    tampered(path, lambda pickled: pickled.replace(b"M\x58\x02", b"M\x59\x02"))  # 600 and 601
    with pytest.raises(CheckpointError, match="it holds a tensor of 601 elements in 2400 bytes"):
        load(path)


def test_a_tensor_must_stay_within_its_memory(path):
    save({"visreg": "0", "x": torch.zeros(7)[2:5]}, path)
    tampered(path, lambda pickled: pickled.replace(b"K\x02K\x03\x85", b"K\x05K\x03\x85"))
    with pytest.raises(CheckpointError, match=r"it holds a tensor of shape \(3,\) in 28 bytes"):
        load(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
        b"\x80\x02ccollections\nCounter\n(Nccollections\nCounter\ntb.",
        b"\x80\x02" + b"(" * 1000 + b".",
        b"",
    ],
    ids=["bytearray", "memo", "bytearray8", "setattr", "marks", "nothing"],
)
def test_a_hostile_pickle_is_refused_and_takes_no_memory(path, pickled):
    tampered(path, lambda _: pickled)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"not made of tensors and plain data|not a checkpoint"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_an_archive_must_not_stand_for_more_than_the_file(tmp_path):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100 << 20))
    for data in (body.getvalue(), b"no archive, and long enough to be one", body.getvalue()[1:]):
        with pytest.raises(CheckpointError, match=r"it holds (an archive that is compressed|no archive)"):
            load(sealed(tmp_path / "bomb.pt", data))


def test_a_file_of_something_else_is_refused(tmp_path):
    written(tmp_path / "other.pt", {"weights": 1})
    with pytest.raises(CheckpointError, match="not a checkpoint of a visreg run"):
        load(tmp_path / "other.pt")


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        save({"visreg": "0.0"}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "mode"), [(0, 0o640), (0o022, 0o640), (0o077, 0o600)])
def test_the_world_may_neither_read_nor_change_it(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        save(STATE, tmp_path / "a.pt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.pt").stat().st_mode) == mode


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
