"""A plugin package to start from, written out under a name of one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

from visreg.errors import RegistryError, ResourceError
from visreg.registry import HOOKS, MODELS

TEMPLATE = Path(__file__).parent / "templates" / "plugin"
SUFFIX = ".tmpl"  # so that nobody takes the templates for code


def write_plugin(name: str, folder: Path) -> Path:
    """Write a package with a model, a hook, an example and tests, and return its folder.

    Args:
        name: of the package, such as ``"visreg-tiny"``; its module is then ``visreg_tiny``, and its model ``TinyNet``.
        folder: where to put the package's folder.

    Raises:
        RegistryError: if the name cannot be a package's, is taken by an installed module, or the folder exists.
        ResourceError: if the folder cannot be written.
    """
    words = _names(name)
    target = folder / name
    if target.exists() or target.is_symlink():
        raise RegistryError(f"{target}: exists already, and nothing in it was touched; choose another name or --folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}-") as unfinished:  # never leave half a package
            whole = Path(unfinished) / name
            _fill(whole, words)
            shutil.move(whole, target)
    except OSError as error:
        raise ResourceError(
            f"{target}: cannot be written ({error.strerror or error}); choose another --folder"
        ) from error
    return target


def _fill(target: Path, words: Mapping[str, str]) -> None:
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        relative = source.relative_to(TEMPLATE).with_name(source.name.removesuffix(SUFFIX))
        parts = [part.replace("module", words["module"]).replace("gitignore", ".gitignore") for part in relative.parts]
        file = target.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")


def _names(name: str) -> dict[str, str]:
    """Return what the templates need to know, from the package's name.

    >>> _names("visreg-my-net")
    {'name': 'visreg-my-net', 'module': 'visreg_my_net', 'stem': 'My'}
    """
    if not re.fullmatch(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]", name):
        raise RegistryError(
            f"{name!r}: not a package's name; use letters, digits, '-', '_' and '.', none of these at an end"
        )
    module = re.sub(r"[-_.]+", "_", name).lower()
    if not module.isidentifier() or keyword.iskeyword(module):
        raise RegistryError(
            f"{name!r}: its module would be {module!r}, which Python cannot import; choose another name"
        )
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise RegistryError(f"{name!r}: a module {module!r} is installed already; choose another name")
    return {"name": name, "module": module, "stem": _stem(module)}


def _stem(module: str) -> str:
    """Return what the names of the package's classes begin with: the module's name without visreg's, or a final net.

    >>> _stem("visreg_tiny"), _stem("my_resnet"), _stem("visreg_3d"), _stem("visreg_conv")  # there is a ConvNet
    ('Tiny', 'MyRes', 'My3d', 'MyConv')
    """
    words = "".join(word.capitalize() for word in module.removeprefix("visreg_").split("_"))
    stem = words.removesuffix("Net").removesuffix("net") or "Visreg"
    while not stem.isidentifier() or MODELS.claims(f"{stem}Net") or HOOKS.claims(f"{stem}Log"):
        stem = f"My{stem}"
    return stem
