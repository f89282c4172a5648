"""Makes torchvision's models download nothing unless a config asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from visreg.options import options_of


def adapt(factory: Callable[..., Any]) -> Callable[..., nn.Module]:
    """Return ``factory``; of one of torchvision's whose backbone has pretrained weights by default, without those."""
    if _is_torchvisions(factory) and "weights_backbone" in options_of(factory):
        return partial(factory, weights_backbone=None)
    return factory


def _is_torchvisions(factory: Callable[..., Any]) -> bool:
    return str(getattr(factory, "__module__", "")).startswith("torchvision.")
