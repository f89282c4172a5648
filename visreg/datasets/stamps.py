"""What differs once a file does, so that what was made of it is not taken for what it would be now."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def stamp(path: str | Path) -> str:
    """Return a file's path, size and time; of a folder those of all that is in it; of what is not there its path."""
    path = Path(path)
    try:
        found = path.stat()
    except OSError:  # it may be another day's file
        return str(path.absolute())
    if stat.S_ISDIR(found.st_mode):
        return " ".join(stamp(inside) for inside in sorted(path.iterdir()))
    return f"{path.absolute()} {found.st_size} {found.st_mtime_ns}"


def stamps_of(source: Any) -> Sequence[str] | None:
    """Return the stamps of the samples of one of torchvision's datasets; None unless its lists name their files."""
    lists = {id(value): value for value in vars(source).values() if isinstance(value, list)}
    items = [*zip(*(value for value in lists.values() if len(value) == len(source)), strict=True)]
    found = []
    for item in items:
        parts = [*_parts(item)]
        files = [part for part in parts if isinstance(part, (str, Path)) and Path(part).is_file()]
        if not files:
            return None
        found.append(" ".join([*map(stamp, files), *(repr(part) for part in parts if part not in files)]))
    return found or None


def _parts(value: Any) -> Iterator[Any]:
    """Yield what is in lists in lists."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item)
    else:
        yield value
