"""One Python config file: parsed, rewritten and run."""

from __future__ import annotations

import ast
import builtins
import numbers
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import evolve

from visreg.config.merge import layer, names_of_bases
from visreg.config.origin import Layer, Origin, given_twice, mistake, shown
from visreg.config.path import ConfigPath, parse_path
from visreg.config.plain import DELETE, plain
from visreg.config.recorder import Recorder
from visreg.config.rewriter import BASE, Rewriter
from visreg.errors import ConfigError, Location, Problem

LAZY = "not inherited by read_base(), which is not supported; list the base files in _base_ = [...]"


class PythonFile:
    """A Python config, parsed; it is run by `layer`.

    Args:
        path: the file.
        text: its text.

    Attributes:
        steady: whether it reads nothing but its bases, and so means the same next time.

    Raises:
        ConfigError: if it does not parse.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._tree = self._parse(text)
        self._base, self._constants = self._take_base()
        self._rewriter = Rewriter(text)
        self._tree.body = self._rewriter.statements(self._tree.body, top=True)
        self.steady = not self._rewriter.imports
        message = "set it once, unconditionally, to a file name or a list of them"
        problems = [Problem(BASE, message, self._place(line)) for line in self._rewriter.sets_base]
        problems += [Problem(BASE, LAZY, self._place(line)) for line in _read_bases(self._tree)]
        if self._rewriter.twice:
            twice = [found for statement in self._parse(text).body for found in _keys_twice(statement, ())]
            problems += [given_twice(key, first, self._place(line)) for key, first, line in twice]
        if problems:
            raise ConfigError(problems)

    def base_names(self) -> tuple[list[str], Location]:
        """Return the base files it names, and where."""
        if self._base is None:
            return [], self._place(0)
        place = self._place(self._base.lineno)
        try:
            code = compile(ast.Expression(self._base), str(self._path), "eval", dont_inherit=True)
            return names_of_bases(eval(code, self._constants), place), place
        except ConfigError:
            raise
        except Exception as error:  # whatever the expression raises
            raise mistake(f"{type(error).__name__}: {error}; write plain strings", place, BASE) from None

    def layer(self, inherited: dict[str, Any], bases: tuple[Layer, ...]) -> Layer:
        """Run it over the ``inherited`` values of its ``bases`` and return what it makes of them."""
        recorder = Recorder(self._rewriter)
        uses_base = self._rewriter.uses_base
        view = recorder.view(inherited if uses_base else {}, ())
        names = self._run({**recorder.hooks(), BASE: view})
        own = {name: value for name, value in names.items() if name[:2] != "__" and name != BASE and _is_data(value)}
        origin = recorder.origin(own, lines=recorder.lines)
        values = self._plain(own, origin)
        if uses_base and (edited := self._plain(view, recorder.origin(view))) != inherited:
            # The file changed its bases' values in place: what it left of them replaces them.
            bases = (Layer(self._path, {**edited, DELETE: True}, edited, recorder.origin(view), bases),)
            inherited = edited
        return layer(self._path, values, origin, inherited, bases)

    def _parse(self, text: str) -> ast.Module:
        try:
            return ast.parse(text, str(self._path))
        except SyntaxError as error:
            raise mistake(f"not Python: {error.msg}", self._place(error.lineno)) from None
        except (ValueError, MemoryError) as error:
            raise mistake(
                f"cannot be read as Python: {str(error) or 'nested too deeply'}; simplify it", self._place(0)
            ) from None

    def _take_base(self) -> tuple[ast.expr | None, dict[str, Any]]:
        """Take ``_base_ = ...`` out of the file; return its value, and the plain constants it may be made of."""
        constants: dict[str, Any] = {}
        for statement in self._tree.body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
            if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or not isinstance(target, ast.Name):
                continue
            if target.id == BASE:
                self._tree.body.remove(statement)
                return statement.value, constants
            if isinstance(statement.value, ast.Constant):
                constants[target.id] = statement.value.value
        return None, constants

    def _run(self, names: dict[str, Any]) -> dict[str, Any]:
        names |= {"__file__": str(self._path), "__name__": "config", "__builtins__": builtins}
        try:
            code = compile(self._tree, str(self._path), "exec", dont_inherit=True)
        except SyntaxError as error:
            raise mistake(f"not Python: {error.msg}", self._place(error.lineno)) from None
        try:
            with _neighbours(self._path.parent if self._rewriter.imports else None):
                exec(code, names)
        except (Exception, SystemExit) as error:
            place = self._place(self._line(error))
            raise mistake(f"{type(error).__name__}: {error}", place) from error
        return names

    def _line(self, error: BaseException) -> int:
        """Return the innermost line of this file that led to ``error``."""
        line, trace = 0, error.__traceback__
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == str(self._path) else line
            trace = trace.tb_next
        return line

    def _plain(self, values: Any, origin: Origin) -> dict[str, Any]:
        try:
            copied: dict[str, Any] = plain(values)
        except ConfigError as error:
            lines = [origin.find(parse_path(problem.path)) for problem in error.problems]
            places = [self._place(line if isinstance(line, int) else 0) for line in lines]
            placed = [evolve(p, location=place) for p, place in zip(error.problems, places, strict=True)]
            raise ConfigError(placed) from None
        return copied

    def _place(self, line: int | None) -> Location:
        return Location(shown(self._path), line or 0)


def _is_data(value: Any) -> bool:
    """Tell whether a top-level value is meant as data; anything else is taken for a helper of the file."""
    return value is None or isinstance(value, (dict, list, tuple, str, numbers.Real))


def _read_bases(tree: ast.Module) -> list[int]:
    """Return the lines that import mmengine's other way to inherit."""
    imports = [statement for statement in tree.body if isinstance(statement, ast.ImportFrom)]
    return [each.lineno for each in imports if any(alias.name == "read_base" for alias in each.names)]


def _keys_twice(node: ast.AST, path: ConfigPath) -> Iterator[tuple[ConfigPath, int, int]]:
    """Yield each key that a dict display at or below ``node`` gives twice: its path and the lines of both."""
    children: list[tuple[ast.AST, ConfigPath]] = [(child, path) for child in ast.iter_child_nodes(node)]
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        children = [(node.value, (node.targets[0].id,))]
    elif isinstance(node, ast.keyword) and node.arg:
        children = [(node.value, (*path, node.arg))]
    elif isinstance(node, (ast.List, ast.Tuple)):
        children = [(item, (*path, index)) for index, item in enumerate(node.elts)]
    elif isinstance(node, ast.Dict):
        children, lines = [], dict[Any, int]()
        for key, value in zip(node.keys, node.values, strict=True):
            name: Any = key.value if isinstance(key, ast.Constant) else None
            if isinstance(key, ast.Constant) and name in lines:
                yield (*path, name), lines[name], key.lineno
            lines[name] = value.lineno if key is None else key.lineno
            children.append((value, path if name is None else (*path, name)))
    for child, deeper in children:
        yield from _keys_twice(child, deeper)


@contextmanager
def _neighbours(folder: Path | None) -> Iterator[None]:
    """Let a config import the modules beside it, as a script can; forget them afterwards."""
    if folder is None:
        yield
        return
    finder = _NeighbourFinder(folder)
    kept = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a compiled file is told from an old one by the second, too coarse for edits
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.dont_write_bytecode = kept
        for name in [name for name in sys.modules if name.partition(".")[0] in finder.found]:
            del sys.modules[name]


class _NeighbourFinder:
    """Finds modules in one folder, but none that would hide one of the standard library."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.found: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        PathFinder.invalidate_caches()
        spec = PathFinder.find_spec(fullname, [str(self._folder)], target)
        if spec is None or spec.origin is None:
            return None
        self.found.add(fullname)
        return spec
