"""Loading a config file with all that it inherits from; each file is read once, and bases are remembered."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from attrs import define

from visreg.config.json_file import JSONFile
from visreg.config.merge import join
from visreg.config.origin import Layer, mistake, shown
from visreg.config.python_file import PythonFile
from visreg.config.rewriter import BASE
from visreg.errors import ConfigError, Location, nearest, suggest

MAX_BASES = 50
_REMEMBERED = 1000
_MEMORY: dict[Path, _Loaded] = {}  # saves time, nothing else: what it holds counts only while the texts are the same
_VARIABLE = re.compile(r"\{\{['\"]?\s*\$(\w+)\s*(?::\s*(\S*?))?\s*['\"]?\}\}")
_FILE_NAME = re.compile(r"\{\{\s*(fileDirname|fileBasenameNoExtension|fileBasename|fileExtname)\s*\}\}")


@define(eq=False)
class _Loaded:
    """A file's layer, and what has to be the same for it to be the same."""

    path: Path
    layer: Layer
    text: str
    variables: dict[str, str | None]
    steady: bool
    bases: list[_Loaded]


class Loader:
    """Loads one config."""

    def __init__(self) -> None:
        self._texts: dict[Path, str] = {}
        self._chain: list[Path] = []

    def load(self, path: str | Path) -> Layer:
        """Return the config file at ``path``, merged with its bases; its values are not to be changed.

        Raises:
            ConfigError: if it or one of its bases cannot be read.
        """
        file = _absolute(path)
        try:
            return self._load(file, None).layer
        except RecursionError:
            raise mistake("nested too deeply to read; flatten it", Location(shown(file))) from None

    def _load(self, path: Path, asked: Location | None) -> _Loaded:
        if path in self._chain:
            circle = [*self._chain[self._chain.index(path) :], path]
            raise mistake(f"the files inherit in a circle, {' -> '.join(map(shown, circle))}; break it", asked, BASE)
        if len(self._chain) >= MAX_BASES:
            raise mistake(f"more than {MAX_BASES} files inherit from one another; flatten them", asked, BASE)
        known = _MEMORY.get(path)
        if known is not None and self._is_fresh(known):
            return known
        self._chain.append(path)
        loaded = self._read(path, asked)
        self._chain.pop()
        if asked and loaded.steady:
            if len(_MEMORY) >= _REMEMBERED:
                _MEMORY.clear()
            _MEMORY[path] = loaded
        return loaded

    def _is_fresh(self, loaded: _Loaded) -> bool:
        try:
            same = self._text(loaded.path, None) == loaded.text
        except ConfigError:
            return False
        same = same and all(os.environ.get(name) == value for name, value in loaded.variables.items())
        return same and all(map(self._is_fresh, loaded.bases))

    def _text(self, path: Path, asked: Location | None) -> str:
        if path not in self._texts:
            self._texts[path] = _read_text(path, asked)
        return self._texts[path]

    def _read(self, path: Path, asked: Location | None) -> _Loaded:
        text = self._text(path, asked)
        variables: dict[str, str | None] = {}
        replaced = text
        if "{{" in text:
            replaced = _replace_variables(_replace_file_names(text, path), variables, path)
        file = JSONFile(path, replaced) if path.suffix == ".json" else PythonFile(path, replaced)
        names, place = file.base_names()
        bases = [self._load(_base_path(name, path, place), place) for name in names]
        layers = tuple([base.layer for base in bases])
        layer = file.layer(join(layers, place), layers)
        return _Loaded(path, layer, text, variables, file.steady and all(base.steady for base in bases), bases)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 — links stay as they are written


def _read_text(path: Path, asked: Location | None) -> str:
    if path.suffix in (".yml", ".yaml"):
        raise mistake(f"{shown(path)!r} is YAML, which visreg does not read; convert it to .py or .json", asked)
    if path.suffix not in (".py", ".json"):
        raise mistake(f"{shown(path)!r} is not a config; give a file that ends in .py or .json", asked)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise mistake(f"no such config file: {shown(path)!r}{_near_files(path)}", asked) from None
    except UnicodeDecodeError as error:
        raise mistake(f"{shown(path)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8", asked) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise mistake(f"cannot read the config {shown(path)!r}: {reason}; give a readable file", asked) from None


def _near_files(path: Path) -> str:
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix in (".py", ".json")]
    except OSError:
        return f"; there is no folder {shown(path.parent)!r}"
    near = nearest(path.name, names, limit=3)
    return (
        f"; did you mean {' or '.join(repr(shown(path.parent / name)) for name in near)}?"
        if near
        else suggest("", names)
    )


def _replace_file_names(text: str, path: Path) -> str:
    names = {
        "fileDirname": str(path.parent),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }
    quotes = '"' if path.suffix == ".json" else "[\"']"
    return _FILE_NAME.sub(lambda match: re.sub(quotes, r"\\\g<0>", names[match[1]].replace("\\", "/")), text)


def _replace_variables(text: str, used: dict[str, str | None], path: Path) -> str:
    """Return ``text`` with ``{{$NAME:default}}`` replaced, as plain text, and note in ``used`` what was looked up."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        used[name] = found = os.environ.get(name)
        if found is None and not default:
            begin = text.rfind("\n", 0, match.start()) + 1
            if text[begin : match.start()].lstrip().startswith("#"):
                return match[0]
            place = Location(shown(path), text.count("\n", 0, match.start()) + 1)
            advice = f"set it, or write {{{{${name}:default}}}}"
            raise mistake(f"the environment variable {name!r} is not set; {advice}", place)
        return default if found is None else found

    return _VARIABLE.sub(value, text)


def _base_path(name: str, path: Path, place: Location) -> Path:
    package, separator, inner = name.partition("::")
    if not separator:
        return _absolute(path.parent / name)
    try:
        found = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ValueError, ImportError):
        found = None
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise mistake(f"{name!r} needs the package {package!r}, which is not installed; install it", place, BASE)
    return _absolute(Path(folders[0], ".mim", "configs", inner))
