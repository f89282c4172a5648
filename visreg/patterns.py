"""Which parameters and modules of a task some patterns mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from visreg.errors import ConfigError, Problem, nearest, suggest
from visreg.task import Task


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a pattern names the parameter or module ``name``, or a module that it is in.

    A pattern is a name, in which ``*``, ``?`` and ``[...]`` stand for others as in a shell; ``*`` matches dots too. The
    names are those of the model's ``named_parameters()``; in front of them, the task's own ``model.`` may be left out.

    >>> matches("model.layer1.0.weight", ["layer1"]), matches("model.layer10.weight", ["layer1"])
    (True, False)
    >>> matches("model.layer1.0.bias", ["*.bias"]), matches("model.layer2.bias", ["layer[1-3]"])
    (True, True)
    """
    names = (name, name.removeprefix("model."))
    return any(fnmatchcase(each, form) for each in names for pattern in patterns for form in (pattern, f"{pattern}.*"))


def matching_parameters(task: Task, patterns: Sequence[str], who: str) -> dict[str, nn.Parameter]:
    """Return the task's parameters that any of the patterns means, by name.

    Args:
        task: the task.
        patterns: see `matches`.
        who: whose option the patterns are, for the error.

    Raises:
        ConfigError: if a pattern means no parameter at all; offers the nearest names.
    """
    found = dict(task.named_parameters())
    unused = [pattern for pattern in patterns if not any(matches(name, [pattern]) for name in found)]
    if unused:
        modules = [name for name, module in task.named_modules() if name and any(True for _ in module.parameters())]
        known = [name.removeprefix("model.") for name in (*modules, *found)]
        raise ConfigError([_no_match(who, pattern, "parameter", known) for pattern in unused])
    return {name: parameter for name, parameter in found.items() if matches(name, patterns)}


def matching_modules(model: nn.Module, patterns: Sequence[str], who: str) -> dict[str, nn.Module]:
    """Return the modules of a model that any of the patterns means, by name, without those inside of others.

    A list of modules computes nothing, so that what it holds is meant.

    Raises:
        ConfigError: if a pattern means no module at all; offers the nearest names.
    """
    known = {name: module for name, module in model.named_modules() if name and _computes(module)}
    patterns = [pattern.removeprefix("model.") for pattern in patterns]
    unused = [pattern for pattern in patterns if not any(matches(name, [pattern]) for name in known)]
    if unused:
        raise ConfigError([_no_match(who, pattern, "module", [*known]) for pattern in unused])
    found: dict[str, nn.Module] = {}
    for name, module in known.items():
        if matches(name, patterns) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def _computes(module: nn.Module) -> bool:
    """Return whether a module has a forward of its own, in Python: those of TorchScript have none."""
    return getattr(type(module), "forward", None) not in (None, nn.Module.forward)


def _no_match(who: str, pattern: str, what: str, known: Sequence[str]) -> Problem:
    hint = suggest(pattern, nearest(pattern, known, limit=3) or known)
    return Problem("", f"{who}: the pattern {pattern!r} matches no {what} of the model{hint}")
