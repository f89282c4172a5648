"""Weights read out of a file that anyone may have made: of visreg, of torch.save or of safetensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from visreg.archive import UnfitError, inspect
from visreg.checkpoint import MARK, TRAILER, given, load, opened
from visreg.errors import CheckpointError, first, suggest

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
MALFORMED = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, OverflowError,
)  # fmt: skip
# Where training scripts keep a model's state beside other things; an average of it is better than the latest.
INSIDE = (
    "model_ema", "state_dict_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "module", "net",
    "network", "weights",
)  # fmt: skip


@frozen(eq=False)
class Weights:
    """The tensors of a model by name, and what is known of where they are from.

    Attributes:
        name: what to call them: the file, and what of it was taken.
        tensors: by the names that ``state_dict`` gave them.
        metadata: what ``state_dict`` noted of each module, as its ``_metadata``.
        classes: the names of the classes that the outputs stand for; empty where not known.
        mean: of the pixels that the model was trained on, on the scale 0..1; None where not known.
        std: their standard deviation, likewise.
    """

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(factory=dict)
    classes: Sequence[str] = ()
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


def is_file_name(text: str) -> bool:
    """Return whether ``text`` names a file, and not weights that a library knows by that name.

    >>> is_file_name("best.pt"), is_file_name("work/best"), is_file_name("IMAGENET1K_V1")
    (True, True, False)
    """
    return "/" in text or text.endswith(SUFFIXES)


def read_weights(path: str | Path, device: torch.device | str = "cpu") -> Weights:
    """Return the weights in a file: a visreg checkpoint, a state dict, or a training script's state with one inside.

    Of a visreg checkpoint it is the model's weights, the average that the hook EMA kept if there is one. Nothing in a
    file is executed: only tensors and plain data are read, and no more of them than the file is long.

    Args:
        path: the file, or the folder of a run of visreg's, of which it is the newest checkpoint; ``.safetensors`` needs
            ``pip install "visreg[safetensors]"``.
        device: where to put the tensors.

    Raises:
        CheckpointError: if it is missing, damaged, or holds something else.
    """
    path = Path(path).expanduser()
    if (path / "checkpoints").is_dir():
        return _of_checkpoint(path, given(path))
    is_checkpoint = _is_checkpoint(path)
    if path.suffix == ".safetensors":
        return Weights(str(path), _safetensors(path, device))
    if is_checkpoint:
        return _of_checkpoint(path, load(path, device))
    found = _state_dict_in(path, load_plain(path, device))
    noted = getattr(found, "_metadata", None)
    metadata = {_plain(str(name)): value for name, value in noted.items()} if isinstance(noted, Mapping) else {}
    return Weights(str(path), _named(found), metadata)


def load_plain(path: Path, device: torch.device | str = "cpu") -> Any:
    """Return what ``torch.save`` wrote, in the form of today or that of before PyTorch 1.6.

    Raises:
        CheckpointError: if it cannot be read, or holds more than tensors and plain data.
    """
    try:
        with opened(path) as file:
            start = file.read(4)
            size = file.seek(0, 2)
            file.seek(0)
            if start == b"PK\x03\x04":
                inspect(file, size)
            return torch.load(file, map_location=device, weights_only=True)
    except UnfitError as error:
        raise CheckpointError(f"{path}: not made of tensors and plain data, or cut short: it holds {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the weights: {error.strerror or error}") from None
    except pickle.UnpicklingError:  # PyTorch's advice would be to execute what is in the file
        what = "neither what torch.save wrote of tensors and plain data, nor a checkpoint"
        raise CheckpointError(f"{path}: no weights, or damaged: it is {what}") from None
    except (
        RuntimeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: no weights, or damaged: {reason}") from None


def _is_checkpoint(path: Path) -> bool:
    try:
        with opened(path) as file:
            file.seek(max(file.seek(0, 2) - TRAILER, 0))
            return file.read(len(MARK)) == MARK
    except (OSError, ValueError) as error:  # a ValueError is of a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot read the weights: {reason}{_beside(path)}") from None


def _beside(path: Path) -> str:
    """Return which weights are in the folder of a file that is not there."""
    with suppress(OSError, ValueError):
        found = sorted(item.name for item in path.parent.iterdir() if item.suffix in SUFFIXES)
        return "" if path.exists() else suggest(path.name, found)
    return f"; looked for from {Path.cwd()}"


def _of_checkpoint(path: Path, state: Mapping[str, Any]) -> Weights:
    """Return the weights in what `visreg.checkpoint.load` returned; anyone may have written it."""
    task = state.get("task")
    task = task if isinstance(task, Mapping) else {}
    hooks = state.get("hooks")
    averages = [
        hook["state"].get("average")
        for hook in (hooks if isinstance(hooks, list) else ())
        if isinstance(hook, Mapping) and hook.get("type") == "EMA" and isinstance(hook.get("state"), Mapping)
    ]
    average = next((item for item in averages if isinstance(item, Mapping) and item.keys() == task.keys()), None)
    found = _named(average or task)
    model = {name.removeprefix("model."): value for name, value in found.items() if name.startswith("model.")}
    which = f"{'its EMA, ' if average else ''}step {state.get('step')}"
    classes = state.get("classes")
    names = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    mean, std = (
        found[name].flatten().tolist() if name in found and not found[name].is_meta else None
        for name in ("mean", "std")
    )
    if not model and not found:
        raise CheckpointError(f"{path}: a checkpoint without weights")
    noted = getattr(task, "_metadata", None)
    metadata = {
        name.removeprefix("model").removeprefix("."): value
        for name, value in (noted.items() if isinstance(noted, Mapping) else ())
        if isinstance(name, str) and name.startswith("model")
    }
    return Weights(f"{path} ({which})", model or found, metadata if model else {}, names, mean, std)


def _state_dict_in(path: Path, found: Any) -> Mapping[str, Any]:
    """Return the state dict that was saved, by itself or inside a dict with other things."""
    if isinstance(found, Mapping):
        for inner in [*(found.get(name) for name in INSIDE), found]:
            if isinstance(inner, Mapping) and _named(inner):
                return inner
        keys = ", ".join(first(map(str, found), 6))
        raise CheckpointError(f"{path}: no weights: it holds no tensors by name, only {keys or 'nothing'}")
    raise CheckpointError(f"{path}: no weights: it holds no tensors by name, but a {type(found).__name__}")


def _named(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name."""
    return {_plain(name): value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _plain(name: str) -> str:
    """Return a name without what `torch.compile` and data parallelism put into it.

    >>> _plain("module._orig_mod.conv.weight")
    'conv.weight'
    """
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _safetensors(path: Path, device: torch.device | str) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{path}: needs the package safetensors; pip install "visreg[safetensors]"') from error
    try:
        return _named({name: value.to(device) for name, value in load_file(path).items()})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: no weights, or damaged: {error}") from None
