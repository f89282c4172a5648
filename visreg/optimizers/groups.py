"""Parameter groups, as few as can be: weight decay and learning rates that differ between parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from visreg.errors import suggest
from visreg.patterns import matches
from visreg.task import Task

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def param_groups(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    no_decay: Sequence[str] = (),
    lr_scale: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Return the parameters of ``module`` as optimizer groups, one for each pair of learning rate and weight decay.

    Frozen parameters are among them, since they may be thawed later; a shared one is there once, under its first name.

    A pattern is a parameter's name as the model spells it, such as ``features.0.weight``, with ``*``, ``?`` and ``[…]``
    as in file names, or the name of a module for all that is inside it; see `visreg.patterns`.

    Args:
        module: the task, or a model.
        lr: the base learning rate.
        weight_decay: of the parameters that have any.
        no_decay: what has none: ``"norm"`` for the parameters of every normalisation layer, ``"bias"`` for every bias,
            or patterns.
        lr_scale: pattern to factor of the learning rate; of several that match, the longest counts.
        layer_decay: factor of the learning rate for every layer further from the output, above 0 and up to 1. The
            layers are the model's blocks, in the order they are defined; normalisation counts with the layer before
            it, and embeddings with the first layer.

    Sources: Clark et al., "ELECTRA", 2020, and Bao et al., "BEiT", 2022, for the layer-wise rates; He et al., "Bag of
    tricks for image classification", 2019, for the decay.

    Raises:
        ValueError: if a pattern matches no parameter.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    >>> groups = param_groups(model, lr=0.1, weight_decay=0.01, no_decay=["norm", "bias"])
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    [(2, 0.1, 0.01), (4, 0.1, 0.0)]
    """
    lr_scale = lr_scale or {}
    names = dict(module.named_parameters())
    _check_patterns("no_decay", [word for word in no_decay if word not in ("norm", "bias")], names)
    _check_patterns("lr_scale", lr_scale, names)
    norms = {id(parameter) for norm in _norms(module) for parameter in norm.parameters(recurse=False)}
    depths = _depths(module) if layer_decay is not None else {}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in names.items():
        decays = not _is_spared(name, id(parameter) in norms, no_decay)
        factor = _scale(name, lr_scale) * (layer_decay or 1.0) ** depths.get(id(parameter), 0)
        key = (lr * factor, weight_decay if decays else 0.0)
        group = groups.setdefault(key, {"params": [], "lr": key[0], "weight_decay": key[1]})
        group["params"].append(parameter)
    return list(groups.values())


def _is_spared(name: str, in_norm: bool, no_decay: Sequence[str]) -> bool:
    if ("norm" in no_decay and in_norm) or ("bias" in no_decay and "bias" in name.rpartition(".")[2]):
        return True
    return any(matches(name, [pattern]) for pattern in no_decay)


def _scale(name: str, lr_scale: Mapping[str, float]) -> float:
    fitting = [pattern for pattern in lr_scale if matches(name, [pattern])]
    return lr_scale[max(fitting, key=len)] if fitting else 1.0


def _check_patterns(option: str, patterns: Sequence[str] | Mapping[str, float], names: Mapping[str, Any]) -> None:
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            parts = [name.removeprefix("model.").split(".") for name in names]
            known = {".".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}
            near = suggest(pattern.removeprefix("model."), known)
            raise ValueError(f"{option}: {pattern!r} matches no parameter{near}")


def _norms(module: nn.Module) -> Iterator[nn.Module]:
    # By name too: other libraries' normalisation layers have no base class in common.
    return (part for part in module.modules() if isinstance(part, NORMS) or "Norm" in type(part).__name__)


def _depths(module: nn.Module) -> dict[int, int]:
    """Return how many layers each of the model's parameters is away from the output, by id; others are at it."""
    model = module.model if isinstance(module, Task) else module
    norms = {id(norm) for norm in _norms(model)}
    layers: list[list[int]] = []
    placed: set[int] = set()
    for block in _blocks(model):
        ids = [id(parameter) for parameter in block.parameters() if id(parameter) not in placed]
        placed.update(ids)
        if ids and layers and id(block) in norms:
            layers[-1].extend(ids)
        elif ids:
            layers.append(ids)
    embeddings = [id(parameter) for parameter in model.parameters() if id(parameter) not in placed]
    if layers:
        layers[0].extend(embeddings)
    return {each: len(layers) - 1 - number for number, ids in enumerate(layers) for each in ids}


def _blocks(module: nn.Module, top: bool = True) -> Iterator[nn.Module]:
    """Yield the model's layers or blocks: its children, and in place of a plain container what is in it.

    A child that is itself made around a container, such as a transformer's encoder or a backbone, is looked into once.
    """
    for child in module.children():
        if type(child) in CONTAINERS or (top and any(type(part) in CONTAINERS for part in child.children())):
            yield from _blocks(child, top=False)
        else:
            yield child
