"""Makes a transform of samples of any transform; torchvision is imported by those who name one of its own only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from visreg.data import Transform


def adapt(factory: Callable[..., Any]) -> Callable[..., Transform]:
    """Return what makes a transform of samples: ``factory`` itself, or for torchvision's one that makes a `Moving`."""
    v2 = sys.modules.get("torchvision.transforms.v2")  # where nobody has imported it, nothing is derived from it
    if v2 is None or not isinstance(factory, type) or not issubclass(factory, v2.Transform):
        return factory
    from visreg.transforms.adopted import adopt

    return partial(adopt, factory)
