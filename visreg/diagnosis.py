"""What a failure in a dry run means: where it happened, and in which words to say so."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visreg.config import ConfigPath
from visreg.data import pixels
from visreg.errors import BLAMES_PLUGIN, ConfigError, VisregError
from visreg.options import options_of
from visreg.registry import Registry, kind_of
from visreg.specs import Spec, outer_specs

LIBRARIES = frozenset({"visreg", "torch", "torchvision", "attr", "attrs", "numpy", "PIL", "scipy", "faster_coco_eval"})
CLEAR = (ValueError, TypeError, RuntimeError)  # what is raised with words that say enough
BUGS = (AttributeError, NameError)  # what no option of a config can be the cause of


def shape_of(values: Any) -> str:
    """Return the shape of a sample's or batch's image or clip, as text; of anything else, its type."""
    if not isinstance(values, Mapping):
        return type(values).__name__
    image = pixels(values)
    return str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__


def kept(value: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a transform made, if it is a sample or batch with all that was in it before."""
    if not isinstance(value, Mapping):
        raise TypeError(f"it returns a {type(value).__name__}; it must return the dict it got, changed")
    if lost := sorted(set(before) - set(value)):
        raise ValueError(f"it loses {', '.join(map(repr, lost))}; it must return the dict it got, changed")
    return dict(value)


def check_image(values: Mapping[str, Any]) -> None:
    """Make sure that the image or clip is still a tensor.

    Raises:
        TypeError: if a transform made something else of it.
    """
    image = pixels(values)
    if not isinstance(image, Tensor):
        raise TypeError(f"it leaves the image as a {type(image).__name__}; end with dict(type='ToImage'), or remove it")


def advice(values: Any, error: Exception) -> str:
    """Return what to do about a transform that fails on ``values``, where that is known."""
    image = pixels(values) if isinstance(values, Mapping) else None
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and "float" in str(error).lower():
        return "; put dict(type='ToDtype', dtype='float32', scale=True) before it"
    return "; write a whole number with a point, such as 1.0" if "not implemented for 'Long'" in str(error) else ""


def full_name(kind: type) -> str:
    """Return a base class as a user imports it."""
    return f"{'visreg' if kind.__module__.startswith('visreg.') else 'torch.nn'}.{kind.__name__}"


def call_of(spec: Spec) -> str:
    """Return the call that a spec stands for, as text."""
    return f"{spec['type']}({shortened(', '.join(f'{key}={value!r}' for key, value in spec.items() if key != 'type'))})"


def shortened(text: str, length: int = 100) -> str:
    """Return text that is no longer than ``length``.

    >>> shortened("momentum", 4)
    'mom…'
    """
    return text if len(text) <= length else f"{text[: length - 1]}…"


def own_paths(error: Exception, within: ConfigPath = ()) -> list[tuple[ConfigPath, str]]:
    """Return (path, message) of an exception that says itself where in the config the mistake is."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    return [((*within, *_steps(problem.path)), problem.message) for problem in problems if problem.path]


def _steps(path: str) -> Iterator[str | int]:
    """Yield the steps of a path such as ``heads.digit.0``."""
    return (int(step) if step.isdigit() else step for step in path.split("."))


def failing_part(
    registry: Registry[Any], spec: Spec, make: Callable[[Registry[Any], Spec], Any]
) -> tuple[ConfigPath, Registry[Any], Spec]:
    """Return the path, kind and spec of the innermost part of a spec that cannot be made; of the spec itself if none.

    Args:
        registry: of which the spec is.
        spec: one that cannot be made.
        make: makes a part, or raises.
    """
    known = options_of(registry.get(spec["type"]))
    for option, value in spec.items():
        kind = kind_of(known[option].annotation if option in known else Any, registry, option)
        for path, part in outer_specs(value, (option,)):
            try:
                make(kind, part)
            except Exception:  # whatever a constructor raises, the config named it
                inside, inner_kind, inner = failing_part(kind, part, make)
                return (*path, *inside), inner_kind, inner
    return (), registry, spec


def message_of(error: Exception) -> str:
    """Return what an exception says, in one line; with its type where that says more than the words.

    What is raised in a plugin's code, or in a user's file, is said with its place there.
    """
    if isinstance(error, ConfigError):
        return "; ".join(problem.message for problem in error.problems)
    text = (str(error.args[0]) if error.args else str(error)).strip().splitlines()
    first = text[0] if text else ""
    if isinstance(error, VisregError):
        return first
    said = first if isinstance(error, CLEAR) else f"{type(error).__name__}: {first}"
    frames = foreign_frames(error)
    if not frames or isinstance(error, BUGS):  # of which `blamed` tells more
        return said
    return f"{said} (at {frames[-1].filename}:{frames[-1].lineno}: {shortened(frames[-1].line or '')})"


def place_of_class(kind: type) -> str:
    """Return where a class is defined, as a message ends, if that is outside visreg."""
    try:
        file, line = inspect.getsourcefile(kind) or "<unknown>", inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return ""
    return f" (at {_short(file)}:{line})" if _is_foreign(file) else ""


def blamed(path: ConfigPath, message: str, error: Exception) -> tuple[ConfigPath, str]:
    """Return a mistake as it is to be told: if it is one in code outside visreg, with the traceback there."""
    frames = foreign_frames(error)
    if not frames or not isinstance(error, BUGS):
        return path, message
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    indented = "".join(lines).rstrip().replace("\n", "\n  ")
    return path, f"{BLAMES_PLUGIN}{message}\n  Traceback (most recent call last):\n  {indented}"


def foreign_frames(error: Exception) -> list[traceback.FrameSummary]:
    """Return the frames that an exception passed in a plugin's code or a user's file, the innermost last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    for frame in frames:
        frame.filename = _short(frame.filename)
    return frames


def _short(file: str) -> str:
    return min(file, os.path.relpath(file), key=len)


def _is_foreign(file: str) -> bool:
    parts = Path(file).parts
    packages = next((place for place, part in enumerate(parts) if part in ("site-packages", "dist-packages")), None)
    if packages is not None:
        return parts[packages + 1].removesuffix(".py") not in LIBRARIES
    inside = (Path(__file__).parent, Path(sysconfig.get_paths()["stdlib"]))
    return not file.startswith("<") and not any(Path(file).is_relative_to(folder) for folder in inside)
