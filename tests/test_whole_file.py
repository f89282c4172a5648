from __future__ import annotations

import os

import pytest

from visreg.whole_file import write_whole


def test_the_parts_are_written_in_order(tmp_path):
    write_whole(tmp_path / "file", b"one ", memoryview(b"two"))
    assert (tmp_path / "file").read_bytes() == b"one two"


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_link_stays_one_and_a_device_is_written_to(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    (tmp_path / "null").symlink_to("/dev/null")
    write_whole(tmp_path / "null", b"new")
    assert (tmp_path / "null").is_char_device()


def test_no_folder_is_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "file", b"new")
