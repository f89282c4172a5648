"""MNIST, read from its own files."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import define, field
from attrs.validators import instance_of, optional
from torch import Tensor

from visreg.data import DataInfo, Dataset, Sample, data_root
from visreg.datasets.files import DamagedError, DataFile, download, fetch_once, reachable
from visreg.errors import DataError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {  # (images, labels), by whether they are for training
    True: (
        DataFile(
            name="train-images-idx3-ubyte",
            size=47_040_016,
            md5="6bbc9ace898e44ae57da46a324031adb",
            packed_md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        DataFile(
            name="train-labels-idx1-ubyte",
            size=60_008,
            md5="a25bea736e30d166cdddb491f175f624",
            packed_md5="d53e105ee54ea40749a09fcbcd1e9432",
        ),
    ),
    False: (
        DataFile(
            name="t10k-images-idx3-ubyte",
            size=7_840_016,
            md5="2646ac647ad5339dbf082846283269ea",
            packed_md5="9fb629c4189551a2d022fa330f9573f3",
        ),
        DataFile(
            name="t10k-labels-idx1-ubyte",
            size=10_008,
            md5="27ae3e4e09519cfbb04c329615203637",
            packed_md5="ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
}
SIZES = {True: 60_000, False: 10_000}
UNSIGNED_BYTE = 0x08


@define(kw_only=True, eq=False)
class MNIST(Dataset):
    """Handwritten digits, grey, 28×28: 60,000 to train on and 10,000 to test.

    A sample has ``image``, uint8 (1, 28, 28), 0 for paper and 255 for ink, and ``label``, int64 ().

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.

    Args:
        root: the folder that holds ``MNIST/raw``, ``raw`` or the files themselves; the data root where not given.
        train: the training images, else the test images.
        download: fetch the files if they are not there.
    """

    root: str | None = field(default=None, validator=optional(instance_of(str)))
    train: bool = field(default=True, validator=instance_of(bool))
    download: bool = field(default=True, validator=instance_of(bool))
    held: dict[str, Tensor] = field(factory=dict, init=False, repr=False)  # the samples as one batch

    @property
    def info(self) -> DataInfo:
        blank = {"image": torch.zeros(1, 28, 28, dtype=torch.uint8), "label": torch.zeros((), dtype=torch.int64)}
        return DataInfo(name="MNIST", classes=tuple("0123456789"), sample=blank)

    def open(self) -> None:
        if self.held:
            return
        root = Path(self.root) if self.root is not None else data_root()
        folders = (root / "MNIST" / "raw", root / "raw", root)
        files = FILES[self.train]
        missing = [file for file in files if file.find(folders) is None]
        fetch_once(bool(missing), lambda: self._fetch(missing, folders[0]))
        images, labels = (_read(file, folders) for file in files)
        if len(images) != len(labels):
            raise DamagedError(f"{root}: {len(images)} images but {len(labels)} labels in {files[0].name} and its kin")
        self.held = {"image": images[:, None], "label": labels.to(torch.int64)}

    def _fetch(self, missing: list[DataFile], folder: Path) -> None:
        """Download what is missing.

        Raises:
            DataError: if that is not possible; tells what to put where.
        """
        try:
            if not self.download:
                raise DataError("download is False")
            mirrors = [mirror for mirror in MIRRORS if reachable(mirror)]
            if not mirrors:
                raise DataError(f"no download, since none of {', '.join(MIRRORS)} can be reached")
            for file in missing:
                download(f"{file.name}.gz", file.packed_md5, mirrors, folder)
        except DataError as error:
            wanted = "\n  ".join(map(str, missing))
            raise DataError(f"MNIST: {error}; put these files into {folder.absolute()}:\n  {wanted}") from error

    def __len__(self) -> int:
        return len(self.held["label"]) if self.held else SIZES[self.train]

    def __getitem__(self, index: int) -> Sample:
        self.open()
        return {name: tensor[index] for name, tensor in self.held.items()}

    def labels(self) -> Tensor | None:
        self.open()
        return self.held["label"]

    @property
    def fixed(self) -> bool:
        return True

    def tensors(self) -> Mapping[str, Tensor] | None:
        self.open()
        return self.held


def _read(file: DataFile, folders: tuple[Path, ...]) -> Tensor:
    path = file.find(folders)
    if path is None:
        raise DataError(f"{file.name} is not in {folders[0]}, though another process has it; give all the same data")
    return parse_idx(file.read(path), path)


def parse_idx(content: bytes, path: Path) -> Tensor:
    """Return the bytes of an IDX file as uint8, in the shape that the file says.

    Source of the format: yann.lecun.com/exdb/mnist.

    Raises:
        DamagedError: if the header or the length is wrong.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), Path("labels")).tolist()
    [7, 9]
    """
    start = content[:4]
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != UNSIGNED_BYTE or not start[3]:
        raise DamagedError(
            f"{path}: expected an IDX file of bytes, which begins with 00 00 08, found {start.hex(' ')!r}"
        )
    header = 4 + 4 * start[3]
    shape = struct.unpack(f">{start[3]}I", content[4:header]) if len(content) >= header else ()
    expected = header + torch.Size(shape).numel()
    if len(content) != expected:
        raise DamagedError(f"{path}: expected {expected:,} bytes for shape {shape}, found {len(content):,}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)
