"""What an earlier run left in the work directory: moved out of the way, never deleted."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

from visreg.errors import ResourceError

logger = logging.getLogger("visreg")


def free_name(path: Path) -> Path:
    """Return ``path`` with the first of ``.1``, ``.2``, … after it that is not there yet."""
    return next(free for number in itertools.count(1) if not (free := path.with_name(f"{path.name}.{number}")).exists())


def set_aside(path: Path) -> None:
    """Rename the file or folder ``path``, if there is one, and say so in the log.

    Raises:
        ResourceError: if it cannot be renamed.
    """
    if not path.exists():
        return
    target = free_name(path)
    try:
        path.rename(target)
    except OSError as error:
        raise ResourceError(f"{path}: cannot rename what an earlier run left: {error.strerror}; remove it") from error
    logger.warning("%s is of an earlier run; it is now %s", path, target.name)
