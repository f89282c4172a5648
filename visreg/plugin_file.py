"""Files of components that are no package: those that a config lists under ``plugins``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from visreg.component import raised_at
from visreg.errors import PluginError, RegistryError
from visreg.registry import KINDS

PREFIX = "visreg_file_"  # of the module names of plugin files


def loaded_files() -> list[Path]:
    """Return the plugin files that this process has run."""
    modules = [module for name, module in sys.modules.items() if name.startswith(PREFIX)]
    return [Path(module.__file__) for module in modules if module.__file__]


def load_file(path: Path) -> None:
    """Run a plugin file, whose decorators register what it has; a second call does nothing until the file changes.

    Raises:
        PluginError: if it fails, with the line; what it registered before that is forgotten.
    """
    path = path.resolve()
    name = _module_name(path)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    if name in sys.modules and sys.modules[name].__dict__.get("__visreg_stamp__") == stamp:
        return
    for registry in KINDS.values():
        registry.forget(str(path))
    before = {registry.kind: dict(registry.files) for registry in KINDS.values()}
    spec = importlib.util.spec_from_file_location(name, path)
    if not stamp or spec is None or spec.loader is None:
        raise PluginError(f"plugin file {path} does not exist or is not a .py file")
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__visreg_stamp__"] = stamp
    sys.modules[name] = module  # where dataclasses and pickle of worker processes look for it
    try:
        # Bytecode that Python keeps is of an older version, if the file was changed within a second to as many bytes.
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        for kind, files in before.items():
            KINDS[kind].files = files
        if isinstance(error, RegistryError):
            raise
        raise PluginError(f"plugin file {path} failed: {type(error).__name__}: {error}{raised_at(error)}") from error


def _module_name(path: Path) -> str:
    """Return what a file's module is called, in every process, so that what another one pickles can be found here."""
    import hashlib  # takes longer than all else here

    return f"{PREFIX}{path.stem}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
