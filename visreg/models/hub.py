"""torchvision's pretrained weights: in torch's cache, or downloaded to it, and taken up by a model of any classes."""

from __future__ import annotations

import hashlib
import re
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn
from torchvision.models import WeightsEnum

from visreg import dist
from visreg.errors import CheckpointError, ResourceError, VisregError
from visreg.weights import InitialWeights, load_weights
from visreg.weights_file import Weights, load_plain

TIMEOUT = 30.0  # seconds without an answer, after which a download is given up
COUNTED = {"categories": "num_classes", "keypoint_names": "num_keypoints"}  # what torchvision counts, by what sets it


class _Pretrained(OrderedDict[str, Any]):
    """A state dict that stands for weights, for as long as torchvision hands it from one function to another."""

    weights: WeightsEnum
    _metadata: Mapping[str, Any]  # as torch's own have


@contextmanager
def pretrained(start: InitialWeights, main: WeightsEnum | None, options: Mapping[str, Any]) -> Iterator[None]:
    """Let torchvision's builders take their weights from `read`, as far as they fit, for as long as this lasts.

    Left to themselves, they refuse weights for another number of classes; read, with ``pickle``, what anyone may have
    put into the cache; and cannot make the model that weights go with, frozen batch norms and all, without the weights,
    which a checkpoint may be about to replace. They offer no place to change that, but these methods.

    Args:
        start: whether to read any, and where to report.
        main: the weights of the whole model, whose outputs may be others.
        options: of the model.
    """
    load_state_dict = nn.Module.load_state_dict

    def own_meta(weights: WeightsEnum) -> Mapping[str, Any]:
        found: Mapping[str, Any] = weights.value.meta
        counts = {key: options.get(name) for key, name in COUNTED.items() if weights is main}
        return {**found, **{key: [""] * count for key, count in counts.items() if isinstance(count, int)}}

    def get_state_dict(weights: WeightsEnum, *arguments: Any, **keywords: Any) -> _Pretrained:
        state = read(weights) if start.mode == "read" else _Pretrained()
        state.weights = weights
        return state

    def take_up(module: nn.Module, state: Any, *arguments: Any, **keywords: Any) -> Any:
        if not isinstance(state, _Pretrained):
            return load_state_dict(module, state, *arguments, **keywords)
        if start.mode == "read":
            start.reports.append(load_weights(module, _described(state)))
        return None

    with (
        _replaced(WeightsEnum, "meta", property(own_meta)),
        _replaced(WeightsEnum, "get_state_dict", get_state_dict),
        _replaced(nn.Module, "load_state_dict", take_up),
    ):
        yield


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    before = vars(owner)[name]
    type.__setattr__(owner, name, value)  # an Enum's own __setattr__ looks up its members first
    try:
        yield
    finally:
        type.__setattr__(owner, name, before)


def _described(state: _Pretrained) -> Weights:
    """Return weights with the mean and standard deviation that the images of their training had."""
    preset = state.weights.transforms()
    mean, std = (getattr(preset, name, None) for name in ("mean", "std"))
    return Weights(full_name(state.weights), dict(state), state._metadata, (), mean, std)


def full_name(weights: WeightsEnum) -> str:
    """Return how torchvision calls them: ``ResNet18_Weights.IMAGENET1K_V1``."""
    return f"{type(weights).__name__}.{weights.name}"


def cached(weights: WeightsEnum) -> tuple[Path, str]:
    """Return where torch keeps the file of some weights, and what its SHA-256 begins with."""
    name = Path(urlparse(weights.url).path).name
    digits = re.search(r"-([a-f0-9]{8,64})\.", name)
    return Path(torch.hub.get_dir()) / "checkpoints" / name, digits[1] if digits else ""


def read(weights: WeightsEnum) -> _Pretrained:
    """Return the state dict of some of torchvision's weights, which is downloaded if it is not in torch's cache.

    Raises:
        ResourceError: if it cannot be downloaded; says which file to put where.
        CheckpointError: if the file in the cache is another, damaged or only part of it.
    """
    path, digits = cached(weights)
    _once(lambda: None if path.exists() else _download(weights, path, digits))
    found = _sha256(path)
    if not found.startswith(digits):
        problem = f"damaged, or only part of what it should be: its SHA-256 begins with {found[:8]}, and not {digits}"
        raise CheckpointError(f"{path}: {problem}; delete it, and download {weights.url} anew to its place")
    state = load_plain(path)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: no state dict, but a {type(state).__name__}")
    kept = _Pretrained(state)
    kept._metadata = getattr(state, "_metadata", {})
    return kept


def _download(weights: WeightsEnum, path: Path, digits: str) -> None:
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT)  # torch would wait for ever
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), digits or None)
    except (OSError, RuntimeError, ValueError) as error:
        hash_of = f", whose SHA-256 begins with {digits}" if digits else ""
        raise ResourceError(
            f"{full_name(weights)} cannot be downloaded ({error}): get {weights.url}{hash_of}, from where there is a "
            f"network, and put it at {path} ($TORCH_HOME/hub/checkpoints, where that is set){_leftovers(path)}; or let "
            "weights name a file that is here"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _leftovers(path: Path) -> str:
    parts = sorted(path.parent.glob(f"{path.name}.*")) if path.parent.is_dir() else []
    return f"; what is at {', '.join(map(str, parts))} is but a part of it, and can be deleted" if parts else ""


def _once(download: Callable[[], None]) -> None:
    """Let the main process download what the others wait for."""
    failure: VisregError | None = None
    if dist.is_main():
        try:
            download()
        except VisregError as error:
            failure = error
    message = next(iter(dist.gather(str(failure) if failure else "")))
    if message:
        raise failure or ResourceError(message)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the weights: {error.strerror or error}") from None
