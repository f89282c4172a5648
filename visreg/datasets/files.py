"""The files of a dataset: found, checked, and fetched once for all processes."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from attrs import frozen

from visreg import dist
from visreg.data import data_root, printable
from visreg.errors import DataError, nearest, suggest

logger = logging.getLogger("visreg")

PATIENCE = 3.0  # seconds that a host may take to answer
CHUNK = 1 << 20


class DamagedError(DataError):
    """Data is there but is not what it should be; nothing else may silently stand in for it."""


@frozen
class DataFile:
    """A file of a dataset, of which the packed form (``.gz``) will do as well.

    Attributes:
        size: bytes, unpacked.
        md5: of the unpacked file.
        packed_md5: of the packed file that the mirrors hold.
    """

    name: str
    size: int
    md5: str
    packed_md5: str

    def find(self, folders: Iterable[Path]) -> Path | None:
        """Return where the file or its packed form is, or None."""
        places = (folder / name for folder in folders for name in (self.name, f"{self.name}.gz"))
        return next((place for place in places if place.is_file()), None)

    def read(self, path: Path) -> bytes:
        """Return the unpacked content of the file found at ``path``.

        Raises:
            DamagedError: if it is not the file it should be.
        """
        content = unpacked(path, limit=self.size)
        if len(content) != self.size:
            more = "more" if len(content) > self.size else f"{len(content):,}"
            raise DamagedError(
                f"{path}: expected {self.size:,} bytes unpacked, found {more}; delete it and fetch it again"
            )
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != self.md5:
            raise DamagedError(f"{path}: expected md5 {self.md5} unpacked, found {found}; delete it and fetch it again")
        return content

    def __str__(self) -> str:
        return f"{self.name} ({self.size:,} bytes, md5 {self.md5}) or {self.name}.gz (md5 {self.packed_md5})"


def open_file(path: str | Path, kind: str) -> BinaryIO:
    """Open an ordinary file; of anything else, reading might never end, nor might opening it.

    Args:
        path: where it is.
        kind: what it is to be, for the message, such as ``"an image"``.

    Raises:
        DamagedError: if it is not one.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115  the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DamagedError(f"{printable(path)}: cannot be read as {kind}: it is not an ordinary file")
    return file


def unpacked(path: Path, limit: int) -> bytes:
    """Return the content of ``path``, unpacked if it is a ``.gz``; of more than ``limit`` bytes, ``limit`` + 1.

    Raises:
        DamagedError: if it cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedError(f"{path}: cannot be read: {error}; delete it and fetch it again") from error


def located(path: str, *, file: bool = False) -> Path:
    """Return where a folder or file is: ``path`` as it is, else under the data root.

    Raises:
        DataError: if it is at neither place; offers near names, or says where to put it.
    """
    given, under_root = Path(path), data_root() / path
    begun = given.parent != Path() and given.parent.is_dir() and not under_root.parent.is_dir()
    place = given if given.exists() or begun else under_root
    if place.is_file() if file else place.is_dir():
        return place
    beside = [item.name for item in place.parent.iterdir()] if place.parent.is_dir() else []
    near = suggest(place.name, beside) if nearest(place.name, beside) else "; put it there, or set VISREG_DATA"
    raise DataError(f"{printable(place.absolute())}: no such {'file' if file else 'folder'}{near}")


def fetch_once(missing: bool, fetch: Callable[[], None]) -> None:
    """Call ``fetch`` in one process of each machine that misses something; every process must enter, and waits for it.

    Raises:
        DataError: in every process, if it failed in any.
    """
    if not any(dist.gather(missing)):
        return
    reason = ""
    if missing and dist.local_rank() == 0:
        try:
            fetch()
        except DataError as error:
            reason = str(error)
    reasons = [each for each in dist.gather(reason) if each]
    if reasons:
        raise DataError(reasons[0])


def reachable(url: str) -> bool:
    """Return whether the host of ``url``, or the proxy on the way to it, answers within a few seconds.

    It does not wait longer for a name service that does not answer, as a download by ``urllib`` would.
    """
    answered = threading.Event()
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urlsplit(proxy)

    def knock() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), PATIENCE).close()
            answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def download(name: str, md5: str, mirrors: Sequence[str], folder: Path) -> None:
    """Fetch ``name`` from the first mirror that has it whole; other processes never see half a file.

    Raises:
        DataError: if none does, with each one's reason.
    """
    reasons = []
    for mirror in mirrors:
        try:
            _download_from(mirror + name, md5, folder / name)
        except (OSError, ValueError) as error:
            reasons.append(f"{mirror}: {error}")
        else:
            return
    raise DataError(f"{name} cannot be downloaded: " + "; ".join(reasons))


def _download_from(url: str, md5: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    digest = hashlib.md5(usedforsecurity=False)
    started = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer, partial.open("wb") as file:
            while chunk := answer.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != md5:
            raise ValueError(f"expected md5 {md5}, got {digest.hexdigest()}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    logger.info("downloaded %s in %.0f s", url, time.monotonic() - started)
