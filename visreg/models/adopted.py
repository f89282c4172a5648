"""What every model has beside its own options: ``weights`` to begin from. torchvision's download none by themselves."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import partial
from typing import Any

from torch import nn

from visreg.annotations import choices
from visreg.errors import suggest
from visreg.options import options_of
from visreg.weights import InitialWeights
from visreg.weights_file import SUFFIXES, is_file_name


def adapt(factory: Callable[..., Any], initial_weights: InitialWeights | None = None) -> Callable[..., nn.Module]:
    """Return ``factory`` with the option ``weights``: torchvision's by their name, or a file that `read_weights` reads.

    Those of a model's backbone are an option of its own, ``weights_backbone``, and none unless they are asked for.

    Args:
        factory: makes a model.
        initial_weights: what to do about weights; by default they are read.
    """
    return partial(_make, factory, initial_weights or InitialWeights())


def takes_weights(factory: Callable[..., Any]) -> bool:
    """Return whether ``weights`` of a model is visreg's option, and not one that the model, a plugin's, has itself."""
    return _is_torchvisions(factory) or "weights" not in options_of(factory)


def _make(factory: Callable[..., Any], start: InitialWeights, **options: Any) -> nn.Module:
    known = options_of(factory)
    weights = options.pop("weights", None) if takes_weights(factory) else None
    if _is_torchvisions(factory) and "weights_backbone" in known:
        options.setdefault("weights_backbone", None)
    if isinstance(weights, Enum):
        options["weights"] = weights
    elif weights is not None and not is_file_name(weights):
        known_names = known["weights"].annotation if "weights" in known else None
        names = [name for choice in choices(known_names) for name in getattr(choice, "__members__", ())]
        files = f"a file's name has a / in it, or ends in {', '.join(SUFFIXES)}"
        raise ValueError(f"weights: {factory.__name__} has none of this name{suggest(weights, names)}; {files}")
    with _pretrained(start, weights, options), warnings.catch_warnings():
        # of what torchvision may do some day, to everybody who leaves init_weights as it is
        warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
        model: nn.Module = factory(**options)
    if _is_torchvisions(factory):
        vars(model)["given_options"] = frozenset(options)  # so that a task can tell what is meant from a default
    if isinstance(weights, str):
        start.take_file(model, weights)
    return model


def _pretrained(start: InitialWeights, weights: Any, options: dict[str, Any]) -> AbstractContextManager[None]:
    if "torchvision.models" not in sys.modules:  # a second's wait, for models that have nothing to do with it
        return nullcontext()
    from visreg.models.hub import pretrained

    return pretrained(start, weights if isinstance(weights, Enum) else None, options)


def _is_torchvisions(factory: Callable[..., Any]) -> bool:
    return str(getattr(factory, "__module__", "")).startswith("torchvision.")
