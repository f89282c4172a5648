"""Which device a process computes on."""

from __future__ import annotations

import torch

from visreg import dist
from visreg.errors import ResourceError


def find_device(name: str) -> torch.device:
    """Return the device of this process: of several on one machine, each takes the GPU of its number.

    Raises:
        ResourceError: if a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        index = dist.local_rank() if device.index is None else device.index
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ResourceError(
                f"run.device: {name!r} asks for GPU {index}, and torch {torch.__version__} sees "
                f"{torch.cuda.device_count()}; use 'auto' or 'cpu'"
            )
        device = torch.device("cuda", index)
    return device
