"""The names that torch and torchvision offer, read from their source, so that neither is imported to list them."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

# What these modules list beside components: helpers, base classes, and what works only as part of something else.
NOT_COMPONENTS = frozenset(
    {"Optimizer", "LRScheduler", "Transform", "Compose", "Lambda", "ToTensor", "DatasetFolder", "VisionDataset"}
)
REGISTERED_MODEL = re.compile(r"^@register_model\(\)\n(?:[@ \n)][^\n]*\n|\n)*?def (\w+)\(", re.MULTILINE)
ALL = re.compile(r"^__all__\s*=\s*(\[[^]]*\]|\([^)]*\))", re.MULTILINE)


@cache
def version(distribution: str) -> str:
    """Return a distribution's name with its version: ``"torch 2.11.0"``."""
    beside = list(_file(distribution).parent.parent.glob(f"{distribution}-*.dist-info"))
    if len(beside) == 1:  # its name tells, sooner than importing importlib.metadata would
        return beside[0].stem.replace("-", " ", 1)
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"{distribution} {installed(distribution)}"
    except PackageNotFoundError:
        return distribution


def exported(module: str) -> Callable[[], Mapping[str, str]]:
    """Return a function that tells the CamelCase names ``module`` exports: name to ``"module:name"``."""

    @cache
    def names() -> Mapping[str, str]:
        source = _file(module).read_text(encoding="utf-8")
        return {
            name: f"{module}:{name}"
            for name in dict.fromkeys(_in_all(source) or _imported(source))
            if name[:1].isupper() and name not in NOT_COMPONENTS and not name.endswith("Policy")
        }

    return names


def registered_models(package: str) -> Callable[[], Mapping[str, str]]:
    """Return a function that tells the model builders of a folder of torchvision, by their ``@register_model()``."""

    @cache
    def names() -> Mapping[str, str]:
        folder = _file(package).parent
        return {
            name: f"{package}:{name}"
            for file in sorted(folder.glob("*.py"))
            for name in REGISTERED_MODEL.findall(file.read_text(encoding="utf-8"))
        }

    return names


def _in_all(source: str) -> Collection[str]:
    """Return what ``__all__`` lists; it is cut out first, since parsing a long module whole takes ten times as long."""
    found = ALL.search(source)
    names: Collection[str] = ast.literal_eval(found[1]) if found else ()
    return names


def _imported(source: str) -> Iterator[str]:
    """Yield what a package's ``__init__`` imports from its own modules, where it has no ``__all__``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            yield from (alias.asname or alias.name for alias in node.names)


def _file(module: str) -> Path:
    """Return the source file of ``module`` without importing it, nor the packages it is in."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{top} is not installed", name=top)
    path = Path(spec.origin).parent.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
