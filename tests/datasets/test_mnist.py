"""MNIST's files: found, checked, and refused with words that help."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import subprocess
import sys

import pytest
import torch

from visreg.datasets import mnist
from visreg.datasets.files import DamagedError, DataFile
from visreg.datasets.mnist import MNIST, parse_idx
from visreg.errors import DataError


def idx(*shape):
    count = torch.Size(shape).numel()
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(n % 251 for n in range(count))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Three training images in place of MNIST's, written to ``tmp_path / "MNIST/raw"``."""
    contents = {"train-images-idx3-ubyte": idx(3, 28, 28), "train-labels-idx1-ubyte": idx(3)}
    files = tuple(
        DataFile(
            name=name,
            size=len(content),
            md5=hashlib.md5(content).hexdigest(),
            packed_md5=hashlib.md5(gzip.compress(content, mtime=0)).hexdigest(),
        )
        for name, content in contents.items()
    )
    monkeypatch.setattr(mnist, "FILES", {True: files})
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def test_is_torchvisions_bit_for_bit(real_data):
    torchvision = pytest.importorskip("torchvision")
    for train in (True, False):
        ours = MNIST(train=train)
        ours.open()
        theirs = torchvision.datasets.MNIST(real_data, train=train)
        assert torch.equal(ours.tensors()["image"][:, 0], theirs.data)
        assert torch.equal(ours.tensors()["label"], theirs.targets)


def test_samples_are_as_its_info_says(real_data):
    dataset = MNIST(train=False)
    assert len(dataset) == 10_000
    dataset.open()
    assert len(dataset) == 10_000
    blank, sample = dataset.info.sample, dataset[3]
    assert {key: (value.shape, value.dtype) for key, value in sample.items()} == {
        key: (value.shape, value.dtype) for key, value in blank.items()
    }
    assert torch.equal(dataset.tensors()["image"][3], sample["image"])
    assert dataset.info.classes == tuple("0123456789")


def test_importing_it_does_not_import_torchvision():
    code = "import sys, visreg.datasets.mnist, visreg.datasets.digits; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("place", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_packed_or_not(tiny, tmp_path, place, packed):
    root = tmp_path / "elsewhere"
    (root / place).mkdir(parents=True)
    for file in tiny.iterdir():
        if packed:
            (root / place / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        else:
            shutil.copy(file, root / place)
    dataset = MNIST(root=str(root))
    dataset.open()
    assert dataset.tensors()["label"].tolist() == [0, 1, 2]
    assert len(dataset) == 3


def test_the_data_root_is_looked_at_when_it_is_opened(tiny, tmp_path, monkeypatch):
    dataset = MNIST()
    monkeypatch.setenv("VISREG_DATA", str(tmp_path))
    dataset.open()
    assert len(dataset) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-5], r"train-images-idx3-ubyte: expected 2,368 bytes unpacked, found 2,363"),
        (lambda content: content + b"x", r"expected 2,368 bytes unpacked, found more"),
        (lambda content: content[:-1] + b"\xff", r"expected md5 \w{32} unpacked, found \w{32}; delete it"),
        (lambda content: b"", r"expected 2,368 bytes unpacked, found 0"),
    ],
)
def test_damaged_files_are_refused(tiny, tmp_path, damage, message):
    file = tiny / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DamagedError, match=message):
        MNIST(root=str(tmp_path)).open()


@pytest.mark.parametrize("cut", [5, 200])
def test_damaged_packed_files_are_refused(tiny, tmp_path, cut):
    file = tiny / "train-images-idx3-ubyte"
    (tiny / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes())[:-cut])
    file.unlink()
    with pytest.raises(DamagedError, match=r"ubyte\.gz: cannot be read"):
        MNIST(root=str(tmp_path)).open()


def test_a_file_that_is_not_packed_is_refused(tiny, tmp_path):
    file = tiny / "train-images-idx3-ubyte"
    file.rename(tiny / f"{file.name}.gz")
    with pytest.raises(DamagedError, match="cannot be read"):
        MNIST(root=str(tmp_path)).open()


def test_missing_files_are_named_with_size_and_md5(tmp_path):
    with pytest.raises(DataError) as caught:
        MNIST(root=str(tmp_path), download=False).open()
    message = str(caught.value)
    assert "train-images-idx3-ubyte (47,040,016 bytes, md5 6bbc9ace898e44ae57da46a324031adb)" in message
    assert "train-labels-idx1-ubyte.gz (md5 d53e105ee54ea40749a09fcbcd1e9432)" in message
    assert str(tmp_path / "MNIST" / "raw") in message


def test_without_network_it_gives_up(tmp_path, no_network):
    with pytest.raises(DataError, match=r"none of https://.* can be reached; put these files into"):
        MNIST(root=str(tmp_path)).open()
    assert list(tmp_path.iterdir()) == []


def test_it_downloads_what_is_missing(tiny, tmp_path, monkeypatch):
    fetched = []

    def download(name, md5, mirrors, folder):
        fetched.append(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress((tiny / name.removesuffix(".gz")).read_bytes(), mtime=0))

    monkeypatch.setattr(mnist, "reachable", lambda mirror: True)
    monkeypatch.setattr(mnist, "download", download)
    dataset = MNIST(root=str(tmp_path / "new"))
    dataset.open()
    dataset.open()
    assert fetched == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert len(dataset) == 3


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"\0\0\x08\0", b"\0\0\x0d\x01\0\0\0\0", b"<html>", b"\0\0\x08\x03\0\0"]
)
def test_what_is_not_idx_is_refused(content, tmp_path):
    with pytest.raises(DamagedError, match=r"file: expected"):
        parse_idx(content, tmp_path / "file")


def test_idx_of_wrong_length_is_refused(tmp_path):
    with pytest.raises(DamagedError, match=r"expected 14 bytes for shape \(2, 1\), found 13"):
        parse_idx(idx(2, 1)[:-1], tmp_path / "file")
