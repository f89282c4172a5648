"""Everything visreg raises on purpose, each with the exit code that a command line ends with.

VisregError
├── ConfigError        2  a config that cannot be built; lists every problem found
├── RegistryError      2  a name that nobody, or two owners, registered
├── InUseError         2  a run's folder that another run is using
├── DataError          3  data that is missing, damaged or empty
├── CheckpointError    4  a checkpoint that is damaged or does not fit the run loading it
├── NotFiniteError     5  a loss or gradient that is NaN or infinite
├── ResourceError      6  disk, memory or device that is not there
├── DistributedError   7  processes that do not agree or do not answer
└── PluginError        8  a plugin that fails to import
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

LONGEST = 4000  # characters of one mistake, which may be about a value of any length
BLAMES_PLUGIN = "\0"  # opens, between the parts of a check, a message about the code of a plugin or a user's file
LONGEST_NAME = 200  # characters of what may be a name that is misspelt


class VisregError(Exception):
    """Base class of every error visreg raises on purpose."""

    exit_code: int = 1


class RegistryError(VisregError, LookupError):
    """A name is unknown, or is registered twice."""

    exit_code = 2


class InUseError(VisregError):
    """The run's folder belongs to a run that is still going."""

    exit_code = 2


class DataError(VisregError):
    """Data is missing, damaged or empty.

    Attributes:
        mistakes: each thing that is wrong, where several were looked for; the message tells of the first.
    """

    exit_code = 3

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = mistakes
        several = [f"{len(mistakes)} things are wrong:"] * (len(mistakes) > 1)
        super().__init__("\n  ".join([*several, *first(mistakes)]))


class CheckpointError(VisregError):
    """A checkpoint is damaged, or does not fit the run that is loading it."""

    exit_code = 4


class NotFiniteError(VisregError):
    """A loss or a gradient is NaN or infinite; no weight has been changed by it.

    Attributes:
        step: the number of the optimizer step that was not taken, from 1.
    """

    exit_code = 5

    def __init__(self, message: str, step: int = 0) -> None:
        self.step = step
        super().__init__(message)


class ResourceError(VisregError):
    """A disk, memory or device that the run needs is not there."""

    exit_code = 6


class DistributedError(VisregError):
    """Processes of one run do not agree or do not answer."""

    exit_code = 7


class PluginError(VisregError):
    """A plugin fails to import."""

    exit_code = 8


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether ``error`` is that of a machine or a GPU without enough memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's, not imported here
        return True
    # PyTorch's allocator on the CPU, and what CUDA's own libraries say.
    words = ("DefaultCPUAllocator: ", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def first(lines: Iterable[str], limit: int = 20) -> list[str]:
    """Return up to ``limit`` lines, the last of which says how many more there were.

    >>> first(["a", "b", "c"], 2)
    ['a', '... and 2 more']
    """
    found = list(lines)
    return found if len(found) <= limit else [*found[: limit - 1], f"... and {len(found) - limit + 1} more"]


def module_of(error: BaseException) -> str:
    """Return the module of a model that ``error`` came out of, such as ``model.pool (MaxUnpool2d)``, else ""."""
    modules: list[Any] = []
    trace = error.__traceback__
    while trace is not None:
        modules.append(trace.tb_frame.f_locals.get("self"))
        trace = trace.tb_next
    modules = [module for module in modules if hasattr(module, "named_modules")]
    if not modules:
        return ""
    name = next((name for name, module in modules[0].named_modules() if module is modules[-1]), "")
    return f"{name} ({type(modules[-1]).__name__})" if name else ""


@frozen
class Location:
    """A line of a config file, or the flag that set a value.

    >>> print(Location("configs/cnn_mnist.py", 12), Location("--set optimizer.lr=1"))
    configs/cnn_mnist.py:12 --set optimizer.lr=1
    """

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@frozen
class Problem:
    """One mistake in a config.

    Attributes:
        path: where in the config, such as ``model.num_clases`` or ``hooks[0].patience``; empty for the whole.
        message: what is wrong and what to do.
        location: the file and line that set the value, if known.
        exit_code: 8 if a plugin is to blame rather than the config.

    >>> print(Problem("model.num_clases", "no such option", Location("cnn.py", 12)))
    cnn.py:12: model.num_clases: no such option
    """

    path: str
    message: str
    location: Location | None = None
    exit_code: int = 2

    def __str__(self) -> str:
        text = ": ".join(str(part) for part in (self.location, self.path, self.message) if part)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


class ConfigError(VisregError, ValueError):
    """A config cannot be built.

    Attributes:
        problems: every mistake found.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        self.exit_code = max((problem.exit_code for problem in problems), default=2)
        super().__init__("\n".join(str(problem) for problem in problems))


# What other frameworks call things, written as `_fold` leaves it, and what they are called here.
ALIASES = {
    "amp": "precision", "arch": "model", "architecture": "model", "backbone": "model", "net": "model",
    "network": "model", "criterion": "loss", "lossfn": "loss", "objective": "loss", "optim": "optimizer",
    "optimwrapper": "optimizer", "callbacks": "hooks", "evaluator": "metrics", "valevaluator": "metrics",
    "testevaluator": "metrics", "datapreprocessor": "task", "traincfg": "run", "trainer": "run", "runner": "run",
    "paramscheduler": "schedule", "lrconfig": "schedule", "pipeline": "transforms", "augment": "transforms",
    "augmentations": "transforms", "samplespergpu": "batch_size", "maxiters": "steps", "iters": "steps",
    "iterations": "steps", "maxepochs": "epochs", "evalinterval": "eval_every", "valinterval": "eval_every",
    "checkvaleverynepoch": "eval_every", "gpus": "device", "accelerator": "device", "interval": "every",
    "learningrate": "lr", "wd": "weight_decay", "prob": "p", "probability": "p", "imgsz": "image_size",
    "inputsize": "image_size", "inputchannels": "in_channels", "outfeatures": "num_classes", "cls": "type",
    "target": "type", "name": "type",
}  # fmt: skip


def suggest(name: str, known: Iterable[str], limit: int = 12) -> str:
    """Return ``"; did you mean 'near'?"``, or the choices where none is near.

    >>> suggest("num_clases", ["num_classes", "width"])
    "; did you mean 'num_classes'?"
    >>> suggest("x", ["num_classes", "width"])
    '; choose from num_classes, width'
    """
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return "; did you mean " + " or ".join(repr(other) for other in near) + "?"
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"; choose from {', '.join(names[:limit])}{more}"


def nearest(name: str, known: Iterable[str], limit: int = 1) -> list[str]:
    """Return up to ``limit`` of the ``known`` names that ``name`` may be a misspelling of, best first.

    Case is ignored, and so are ``-`` and ``_``: ``convnet``, ``Conv_Net`` and ``ConvNet`` are one word here. The order
    of words is too, and the modules in front of a name; and what other frameworks say is known (`ALIASES`).

    >>> nearest("rl", ["lr", "nesterov"]), nearest("Conv_net", ["ConvNet"]), nearest("x", ["momentum"])
    (['lr'], ['ConvNet'], [])
    >>> nearest("classes_num", ["num_classes"]), nearest("torch.optim.SGD", ["SGD"]), nearest("criterion", ["loss"])
    (['num_classes'], ['SGD'], ['loss'])
    """
    if len(name) > LONGEST_NAME:
        return []
    folded: dict[str, str] = {}
    for other in known:
        folded.setdefault(_fold(other), other)
    wanted = _fold(name)
    same = {_fold(ALIASES.get(wanted, "")), _fold(name.rpartition(".")[2])}
    same |= {other for other, whole in folded.items() if _words(whole) == _words(name)}
    near = same & set(folded)
    near |= set(difflib.get_close_matches(wanted, folded, n=limit + 3, cutoff=0.6))
    near |= {other for other in folded if abs(len(other) - len(wanted)) < 2 and distance(wanted, other) == 1}
    near |= {other for other in folded if min(len(other), len(wanted)) > 2 and _begins(other, wanted)}

    def rank(other: str) -> tuple[bool, int, float, str]:
        return other not in same, distance(wanted, other), -_similarity(wanted, other), other

    return [folded[match] for match in sorted(near, key=rank)[:limit]]


def _fold(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _words(name: str) -> list[str]:
    return sorted(name.lower().split("_"))


def _begins(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def distance(one: str, other: str) -> int:
    """Return how many letters must be added, dropped, replaced or swapped with the next to turn one into the other.

    The optimal string alignment distance (Damerau 1964).

    >>> distance("lr", "rl"), distance("momentum", "momntum"), distance("adam", "sgd")
    (1, 1, 4)
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        above, before, row = before, row, [i]
        for j, match in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != match))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == match:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
