"""Reading one config file and the files it inherits from, and merging them."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import numbers
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import define, evolve, field

from visreg.errors import ConfigError, Location, Problem, nearest, suggest
from visreg.literal import clone, decode, parse_json, parse_path, plain, show_path
from visreg.provenance import BASE, DELETE, REFERENCE, Layer, Origin, Recorder, Rewriter, json_origin, shown

MAX_BASES = 50
_CACHE: dict[Path, _Loaded] = {}  # only saves time: an entry counts while the texts it was made from are the same
_CACHE_SIZE = 1000
_VARIABLE = re.compile(r"\{\{(['\"]?)\s*\$(\w+)\s*(?::\s*(\S*?))?\s*['\"]?\}\}")
_FILE_NAME = re.compile(r"\{\{\s*(fileDirname|fileBasenameNoExtension|fileBasename|fileExtname)\s*\}\}")
_BARE_REFERENCE = re.compile(rf'("(?:[^"\\]|\\.)*")|{REFERENCE.pattern}')


@define(eq=False)
class _Loaded:
    """A file's layer, and what has to be the same for it to be the same."""

    layer: Layer
    text: str
    variables: dict[str, str | None]
    steady: bool  # reads nothing but its bases
    bases: list[_Loaded]


class Loader:
    """Loads one config; reads each file that it consists of once."""

    def __init__(self) -> None:
        self._texts: dict[Path, str] = {}
        self._chain: list[Path] = []

    def load(self, path: str | Path) -> Layer:
        """Return the config file at ``path``, merged with its bases.

        Raises:
            ConfigError: if it or one of its bases cannot be read.
        """
        try:
            return self._load(_absolute(path), None, keep=False).layer
        except RecursionError:
            raise _error(f"{shown(_absolute(path))} is nested too deeply to read; flatten it") from None

    def _load(self, path: Path, asked: Location | None, keep: bool = True) -> _Loaded:
        if path in self._chain:
            names = " -> ".join(shown(file) for file in [*self._chain[self._chain.index(path) :], path])
            raise _error(f"the base files form a circle, {names}; break it", asked)
        if len(self._chain) >= MAX_BASES:
            raise _error(f"more than {MAX_BASES} files inherit from one another; flatten them", asked)
        if path in _CACHE and self._is_fresh(path, _CACHE[path]):
            return _CACHE[path]
        self._chain.append(path)
        loaded = self._read(path, asked)
        self._chain.pop()
        if keep and loaded.steady:
            if len(_CACHE) >= _CACHE_SIZE:
                _CACHE.clear()
            _CACHE[path] = loaded
        return loaded

    def _is_fresh(self, path: Path, loaded: _Loaded) -> bool:
        try:
            same = self._text(path, None) == loaded.text
        except ConfigError:
            return False
        return (
            same
            and all(os.environ.get(name) == value for name, value in loaded.variables.items())
            and all(
                isinstance(base.layer.file, Path) and self._is_fresh(base.layer.file, base) for base in loaded.bases
            )
        )

    def _text(self, path: Path, asked: Location | None) -> str:
        if path not in self._texts:
            self._texts[path] = _read_text(path, asked)
        return self._texts[path]

    def _read(self, path: Path, asked: Location | None) -> _Loaded:
        text = self._text(path, asked)
        variables: dict[str, str | None] = {}
        replaced = _replace_file_names(_replace_variables(text, variables, path), path)
        file: _JSONFile | _PythonFile = (_JSONFile if path.suffix == ".json" else _PythonFile)(path, replaced)
        names, place = file.base_names()
        bases = [self._load(_base_path(name, path, place), place) for name in names]
        inherited = _join([base.layer for base in bases], place)
        layer = file.layer(inherited, tuple(base.layer for base in bases))
        steady = file.steady and all(base.steady for base in bases)
        return _Loaded(layer, text, variables, steady, bases)


def _error(message: str, location: Location | None = None, path: str = "") -> ConfigError:
    return ConfigError([Problem(path, message, location)])


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 — ".." as written, links as they are


def _read_text(path: Path, asked: Location | None) -> str:
    name = repr(shown(path))
    if path.suffix in (".yml", ".yaml"):
        raise _error(f"{name} is YAML, which visreg does not read; convert it to .py or .json", asked)
    if path.suffix not in (".py", ".json"):
        raise _error(f"{name} is not a config; give a file that ends in .py or .json", asked)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _error(f"no such config file: {name}{_near_files(path)}", asked) from None
    except UnicodeDecodeError as error:
        raise _error(f"{name} is not text in UTF-8 (byte {error.start}); save it as UTF-8", asked) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or str(error)
        raise _error(f"cannot read the config {name}: {reason}", asked) from None


def _near_files(path: Path) -> str:
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix in (".py", ".json")]
    except OSError:
        return f"; nor is there a folder {shown(path.parent)!r}"
    near = [shown(path.parent / name) for name in nearest(path.name, names, limit=3)]
    return suggest(near[0], near) if near else suggest(path.name, names)


def _replace_file_names(text: str, path: Path) -> str:
    if "{{" not in text:
        return text
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
        name, default = match[2], match[3]
        used[name] = os.environ.get(name)
        if used[name] is None and not default:
            begin = text.rfind("\n", 0, match.start()) + 1
            if text[begin : match.start()].lstrip().startswith("#"):
                return match[0]
            place = Location(shown(path), text.count("\n", 0, match.start()) + 1)
            raise _error(
                f"the environment variable {name!r} is not set; set it, or write {{{{${name}:default}}}}", place
            )
        return used[name] or default or ""

    return _VARIABLE.sub(value, text) if "{{" in text else text


def _base_path(name: str, path: Path, place: Location) -> Path:
    package, separator, inner = name.partition("::")
    if not separator:
        return _absolute(path.parent / name)
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise _error(f"{name!r} needs the package {package!r}, which is not installed; install it", place, BASE)
    return _absolute(Path(folders[0], ".mim", "configs", inner))


def _join(bases: Sequence[Layer], place: Location) -> dict[str, Any]:
    """Return the values of all ``bases``, none of which may set what another sets."""
    joined: dict[str, Any] = {}
    problems = []
    for number, base in enumerate(bases):
        for name in base.values.keys() & joined.keys():
            if not name.startswith("_"):
                first = next(other for other in bases[:number] if name in other.values)
                both = f"{first.where((name,))} and {base.where((name,))}"
                problems.append(Problem(name, f"set by two base files, {both}; remove one or inherit from one", place))
        joined.update(base.values)
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: problem.path))
    return joined


def merge(over: Mapping[Any, Any], under: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return ``under`` with ``over`` merged into it: dict into dict, anything else replaced.

    The result holds no ``_delete_``, but shares values with ``under``.

    Raises:
        KeyError: with the path at which a dict meets something else.
    """
    merged = dict(under)
    for key, value in over.items():
        if key == DELETE:
            continue
        if isinstance(value, dict) and key in under and not value.get(DELETE):
            if not isinstance(under[key], dict):
                raise _MeetsError((key,))
            try:
                merged[key] = merge(value, under[key])
            except _MeetsError as error:
                raise _MeetsError((key, *error.path)) from None
        else:
            merged[key] = without_delete(value)
    return merged


class _MeetsError(Exception):
    """A dict cannot be merged into what is not a dict."""

    def __init__(self, path: tuple[Any, ...]) -> None:
        self.path = path
        super().__init__(path)


def without_delete(value: Any) -> Any:
    """Return a copy of plain data without any ``_delete_`` key."""
    kind = type(value)
    if kind is dict:
        return {key: without_delete(item) for key, item in value.items() if key != DELETE}
    if kind is list:
        return [without_delete(item) for item in value]
    return tuple([without_delete(item) for item in value]) if kind is tuple else value


def _layer(
    path: Path, own: dict[str, Any], origin: Origin, inherited: dict[str, Any], bases: tuple[Layer, ...]
) -> Layer:
    layer = Layer(path, own, inherited, origin, bases)
    try:
        layer.values = merge(own, inherited)
    except _MeetsError as error:
        earlier = [base.where(error.path) for base in bases if error.path[0] in base.values]
        message = f"a dict here, but not in {earlier[-1]}, so they cannot be merged; add _delete_=True to replace it"
        raise _error(message, layer.where(error.path), show_path(error.path)) from None
    return layer


@define(eq=False)
class _JSONFile:
    path: Path
    text: str
    steady: bool = True
    values: dict[str, Any] = field(init=False)
    origin: Origin = field(init=False)

    def __attrs_post_init__(self) -> None:
        file = shown(self.path)
        text = _BARE_REFERENCE.sub(lambda match: match[1] or f'"{match[0]}"', self.text)
        self.origin, twice = json_origin(text)
        if twice:
            raise ConfigError(
                [_given_twice(show_path(path), first, Location(file, line)) for path, first, line in twice]
            )
        values = decode(parse_json(text, file))
        if not isinstance(values, dict):
            raise _error(f"expected a JSON object, got {type(values).__name__}; write {{...}}", Location(file, 1))
        self.values = _plain(values, self.origin, file)

    def base_names(self) -> tuple[list[str], Location]:
        place = Location(shown(self.path), self.origin.lines.get(BASE, 0))
        return _base_names(self.values.pop(BASE, []), place), place

    def layer(self, inherited: dict[str, Any], bases: tuple[Layer, ...]) -> Layer:
        own = self._refer(self.values, inherited)
        return _layer(self.path, own, self.origin, inherited, bases)

    def _refer(self, value: Any, inherited: dict[str, Any]) -> Any:
        """Return ``value`` with the strings that refer to base values replaced."""
        if isinstance(value, dict):
            return {key: self._refer(item, inherited) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._refer(item, inherited) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if not isinstance(value, str) or "{{" not in value:
            return value
        whole = REFERENCE.fullmatch(value.strip())
        if whole:
            return clone(self._look_up(whole[1], inherited))
        return REFERENCE.sub(lambda match: str(self._look_up(match[1], inherited)), value)

    def _look_up(self, name: str, inherited: dict[str, Any]) -> Any:
        found: Any = inherited
        for step in name.split("."):
            try:
                found = found[int(step) if isinstance(found, (list, tuple)) else step]
            except (LookupError, TypeError, ValueError):
                line = self.text[: self.text.find(name)].count("\n") + 1
                near = suggest(step, map(str, found)) if isinstance(found, dict) else ""
                raise _error(f"the base files set no {name!r}{near}", Location(shown(self.path), line), BASE) from None
        return found


@define(eq=False)
class _PythonFile:
    path: Path
    text: str
    steady: bool = field(init=False)
    _tree: ast.Module = field(init=False)
    _bases: Any = field(init=False, default=None)
    _rewriter: Rewriter = field(init=False, factory=Rewriter)

    def __attrs_post_init__(self) -> None:
        self._tree = self._parse()
        for statement in self._tree.body:
            if _sets_base(statement):
                self._bases = statement
                self._tree.body.remove(statement)
                break
        self._tree.body = self._rewriter.statements(self._tree.body, top=True)
        self.steady = not self._rewriter.imports
        self._check()

    def _parse(self) -> ast.Module:
        try:
            return ast.parse(self.text, str(self.path))
        except SyntaxError as error:
            raise _error(f"not Python: {error.msg}", self._place(error.lineno)) from None
        except (ValueError, MemoryError) as error:
            raise _error(f"not Python that can be read: {error or 'too large'}", self._place(0)) from None

    def _check(self) -> None:
        twice = self._rewriter.twice
        problems = [_given_twice(show_path((key,)), first, self._place(line)) for key, first, line in twice]
        message = "set it once, unconditionally, and to file names"
        problems += [Problem(BASE, message, self._place(line)) for line in self._rewriter.sets_base]
        if problems:
            raise ConfigError(problems)

    def _place(self, line: int | None) -> Location:
        return Location(shown(self.path), line or 0)

    def base_names(self) -> tuple[list[str], Location]:
        if self._bases is None or self._bases.value is None:
            return [], self._place(0)
        place = self._place(self._bases.lineno)
        try:
            code = compile(ast.Expression(self._bases.value), str(self.path), "eval", dont_inherit=True)
            return _base_names(eval(code, {}), place), place
        except NameError as error:
            raise _error(f"{error}; write the base files as plain strings", place, BASE) from None

    def layer(self, inherited: dict[str, Any], bases: tuple[Layer, ...]) -> Layer:
        recorder = Recorder(self._rewriter)
        view = recorder.view(inherited, ()) if self._rewriter.uses_base else None
        names = self._run({**recorder.hooks(), BASE: recorder.view({}) if view is None else view})
        own = {name: value for name, value in names.items() if name[:2] != "__" and name != BASE and _is_data(value)}
        origin = recorder.origin(own)
        origin.lines = recorder.lines
        file = shown(self.path)
        if view is not None and (edited := _plain(view, origin, file)) != inherited:
            bases = (Layer(self.path, {**edited, DELETE: True}, edited, recorder.origin(view), bases),)
            inherited = edited
        return _layer(self.path, _plain(own, origin, file), origin, inherited, bases)

    def _run(self, names: dict[str, Any]) -> dict[str, Any]:
        names |= {"__file__": str(self.path), "__name__": "config", "__builtins__": builtins}
        try:
            code = compile(self._tree, str(self.path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            line = error.lineno if isinstance(error, SyntaxError) else 0
            raise _error(f"not Python: {getattr(error, 'msg', error)}", self._place(line)) from None
        try:
            with _neighbours(self.path.parent if self._rewriter.imports else None):
                exec(code, names)
        except RecursionError:
            raise
        except (Exception, SystemExit) as error:
            raise _error(
                f"{type(error).__name__}: {error}{_lazy_hint(error)}", self._place(self._line(error))
            ) from error
        return names

    def _line(self, error: BaseException) -> int:
        """Return the last line of this file that led to ``error``."""
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(self.path):
                line = trace.tb_lineno
            trace = trace.tb_next
        return line


def _given_twice(name: str, first: int, place: Location) -> Problem:
    return Problem(name, f"given twice; the first, on line {first}, is lost; remove one", place)


def _lazy_hint(error: BaseException) -> str:
    if isinstance(error, ImportError) and (error.name or "").startswith("mmengine"):
        return "; a config that inherits by read_base() is not supported: list its base files in _base_ = [...]"
    return ""


def _sets_base(statement: ast.stmt) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    is_assign = isinstance(statement, (ast.Assign, ast.AnnAssign))
    return is_assign and isinstance(targets[0], ast.Name) and targets[0].id == BASE


def _base_names(value: Any, place: Location) -> list[str]:
    names = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise _error(f"expected a file name or a list of them, got {value!r}", place, BASE)
    return names


def _is_data(value: Any) -> bool:
    """Tell whether a top-level value is meant as data; what is not is taken for a helper."""
    return value is None or isinstance(value, (dict, list, tuple, str, numbers.Real))


def _plain(values: Any, origin: Origin, file: str) -> dict[str, Any]:
    try:
        copied: dict[str, Any] = plain(values)
    except ConfigError as error:
        raise ConfigError([_placed(problem, origin, file) for problem in error.problems]) from None
    return copied


def _placed(problem: Problem, origin: Origin, file: str) -> Problem:
    line = origin.find(parse_path(problem.path))
    return evolve(problem, location=Location(file, line if isinstance(line, int) else 0))


@contextmanager
def _neighbours(folder: Path | None) -> Iterator[None]:
    """Let a config import the modules beside it, as if it were run as a script; forget them afterwards."""
    if folder is None:
        yield
        return
    finder = _NeighbourFinder(folder)
    unwritten = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # compiled files are told apart by the second, too coarse for edits
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.dont_write_bytecode = unwritten
        for name in [name for name in sys.modules if name.partition(".")[0] in finder.found]:
            del sys.modules[name]


class _NeighbourFinder(PathFinder):
    """Finds modules in one folder, but none that would hide one of the standard library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: set[str] = set()

    def find_spec(  # type: ignore[override]
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        importlib.invalidate_caches() if not self.found else None
        spec = PathFinder.find_spec(fullname, [str(self.folder)], target)
        if spec is None or spec.origin is None:
            return None
        self.found.add(fullname)
        return spec
