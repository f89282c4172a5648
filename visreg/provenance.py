"""Who set what: the file and line of every value of a config, however deeply it is nested.

A config file is rewritten a little before it runs: each dict, list or tuple that it writes down is handed to a
`Recorder`, which remembers the line of each entry. What the file computes stays the same.
"""

from __future__ import annotations

import ast
import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field, frozen

from visreg.errors import Location, suggest
from visreg.literal import ConfigPath

T = TypeVar("T", bound=ast.AST)

BASE = "_base_"
DELETE = "_delete_"
REFERENCE = re.compile(r"\{\{\s*_base_\.([\w.]+)\s*\}\}")  # "{{ _base_.model.depth }}" in a string


@define(eq=False)
class Origin:
    """Where a dict, list or tuple was written, and each of its entries.

    Attributes:
        line: where the container itself begins; 0 if unknown.
        lines: the line of each entry, as far as known.
        base: the path in the base files that it was taken from, if it was.
        inside: the same for the containers among its entries.
    """

    line: int = 0
    lines: dict[Any, int] = field(factory=dict)
    base: ConfigPath | None = None
    inside: dict[Any, Origin] = field(factory=dict)

    def find(self, path: ConfigPath) -> int | ConfigPath:
        """Return the line of the value at ``path``, or its path in the base files; else what encloses it."""
        found: int | ConfigPath = self.line
        node = self
        for depth, step in enumerate(path):
            entry = node.inside.get(step)
            if step in node.lines:
                found = node.lines[step]
            elif node.base is not None:
                found = (*node.base, *path[depth:])
            elif entry is not None and entry.line:
                found = entry.line
            if entry is None:
                break
            node = entry
        return found


@frozen
class Change:
    """One setting of a value: by which line or flag, and to what."""

    location: Location
    value: str


@define(eq=False)
class Layer:
    """One config file: what it says itself, and what it makes of its base files.

    Attributes:
        file: the file.
        own: what it says itself, ``_delete_`` included.
        values: its bases with ``own`` merged into them.
        origin: where each of its own values was written.
        bases: the files it inherits from.
    """

    file: str | Path
    own: dict[str, Any]
    values: dict[str, Any]
    origin: Origin = field(factory=Origin)
    bases: tuple[Layer, ...] = ()

    def history(self, path: ConfigPath) -> list[Change]:
        """Return every setting of the value at ``path``, oldest first; nothing if it is not set."""
        earlier = [change for base in self.bases for change in base.history(path)]
        own, replaced = self.own_value(path)
        if own is _ABSENT:
            return [] if replaced else earlier
        change = Change(self._location(path), repr(own))
        return earlier if change in earlier else [*earlier, change]

    def where(self, path: ConfigPath) -> Location:
        """Return where the value at ``path`` was set, or the nearest value around it that is known."""
        for end in range(len(path), 0, -1):
            changes = self.history(path[:end])
            if changes:
                return changes[-1].location
        return Location(shown(self.file))

    def own_value(self, path: ConfigPath) -> tuple[Any, bool]:
        """Return this file's own value at ``path``, and whether it replaces what the bases say there."""
        value: Any = self.own
        replaced = False
        for step in path:
            replaced = replaced or not isinstance(value, dict) or bool(value.get(DELETE))
            try:
                value = value[step]
            except (LookupError, TypeError):
                return _ABSENT, replaced
        return value, replaced

    def _location(self, path: ConfigPath) -> Location:
        found = self.origin.find(path)
        if isinstance(found, int):
            return Location(shown(self.file), found)
        for base in reversed(self.bases):
            if found[0] in base.values:
                return base.where(found)
        return Location(shown(self.file))


_ABSENT = object()


def shown(file: str | Path) -> str:
    """Return ``file`` as messages show it: relative where it lies under the current folder."""
    if isinstance(file, Path) and file.is_relative_to(here := Path.cwd()):
        return str(file.relative_to(here))
    return str(file)


class Recorder:
    """Remembers, while one config file runs, where each container it makes was written."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._sites = rewriter.sites
        self._marks: dict[int, tuple[Any, Origin]] = {}  # by id; the object is kept, so that no other gets its id
        self.lines: dict[str, int] = dict(rewriter.lines)

    def hooks(self) -> dict[str, Any]:
        """Return what the rewritten file calls."""
        return {_MADE: self.made, _PUT: self.put, _LINES: self.lines}

    def made(self, value: Any, site: int, *sources: Any) -> Any:
        """Remember where ``value`` was written and return it; ``sources`` are what it was copied from."""
        if isinstance(value, (dict, list, tuple)):
            self._marks[id(value)] = (value, self._sites[site])
            for source in sources:
                self._inherit(value, source)
        return value

    def put(self, container: Any, key: Any, line: int) -> None:
        """Remember that ``container[key]`` was set on ``line``; without a key, that entries have moved."""
        origin = self.mark(container)
        if isinstance(container, list) and isinstance(key, int) and key < 0:
            key += len(container)
        if isinstance(key, (str, int)) and isinstance(container, (dict, list)):
            lines = {**origin.lines, key: line}
        elif key is None and isinstance(container, list):
            lines = {}
        else:
            return
        self._marks[id(container)] = (container, Origin(origin.line, lines, origin.base))

    def mark(self, container: Any) -> Origin:
        """Return what is known of ``container`` itself."""
        return self._marks[id(container)][1] if id(container) in self._marks else Origin()

    def origin(self, container: Any) -> Origin:
        """Return what is known of ``container`` and all containers inside it."""
        mark = self.mark(container)
        inside = {key: self.origin(item) for key, item in _entries(container) if isinstance(item, (dict, list, tuple))}
        return Origin(mark.line, mark.lines, mark.base, inside)

    def view(self, value: Any, path: ConfigPath | None = None) -> Any:
        """Return a copy of ``value`` whose dicts are `View` s; it is the base files' value at ``path``, if given."""
        if isinstance(value, View) or not isinstance(value, (dict, list, tuple)):
            return value
        below = [(key, self.view(item, None if path is None else (*path, key))) for key, item in _entries(value)]
        if isinstance(value, dict):
            copied: Any = View(self, below)
        else:
            copied = (list if isinstance(value, list) else tuple)([item for _, item in below])
        self._marks[id(copied)] = (copied, self.mark(value) if path is None else Origin(base=path))
        return copied

    def _inherit(self, value: Any, source: Any) -> None:
        mine, theirs = self.mark(value), self.mark(source)
        known = Origin(mine.line, {**theirs.lines, **mine.lines}, mine.base or theirs.base)
        self._marks[id(value)] = (value, known)
        for key, item in _entries(value):
            if isinstance(item, (dict, list, tuple)) and id(item) not in self._marks:
                try:
                    self._inherit(item, source[key])
                except (LookupError, TypeError):
                    self._marks[id(item)] = (item, Origin())


def _entries(container: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(container, dict):
        return dict.items(container)
    return enumerate(container) if isinstance(container, (list, tuple)) else ()


class View(dict[Any, Any]):
    """The base files' values as a config file sees them: a dict whose keys are attributes too.

    Behaves like mmengine's ``ConfigDict``: ``update`` and ``|`` merge, ``pop`` needs no default, and dicts put into it
    become views.
    """

    def __init__(self, recorder: Recorder, items: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(items)
        object.__setattr__(self, "_recorder", recorder)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the base files set no {name!r} here{suggest(name, map(str, self))}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self.__getattr__(name)
        del self[name]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, self._recorder.view(value))

    def __deepcopy__(self, memo: dict[int, Any]) -> View:
        copied = View(self._recorder)
        memo[id(self)] = copied
        dict.update(copied, {key: copy.deepcopy(item, memo) for key, item in self.items()})
        return copied

    def __copy__(self) -> View:
        return View(self._recorder, self.items())

    def copy(self) -> View:
        return self.__copy__()

    def deepcopy(self) -> View:
        return copy.deepcopy(self)

    def __reduce__(self) -> tuple[type[dict[Any, Any]], tuple[dict[Any, Any]]]:
        return dict, (dict(self),)

    def __or__(self, other: Any) -> View:
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> View:
        merged = View(self._recorder)
        merged.update(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Any) -> View:
        self.update(other)
        return self

    def pop(self, key: Any, default: Any = None) -> Any:
        return super().pop(key, default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, other: Any = (), /, **named: Any) -> None:
        lines = self._recorder.mark(other).lines
        for key, value in {**dict(other), **named}.items():
            if isinstance(self.get(key), View) and isinstance(value, dict):
                self[key].update(value)
            else:
                self[key] = value
            if key in lines:
                self._recorder.put(self, key, lines[key])

    def to_dict(self) -> dict[Any, Any]:
        """Return the same as plain dicts."""
        return {key: item.to_dict() if isinstance(item, View) else item for key, item in self.items()}


_MADE, _PUT, _LINES = "__visreg_made__", "__visreg_put__", "__visreg_lines__"
_LEAVES = (ast.Constant, ast.Name, ast.expr_context, ast.operator, ast.alias, ast.Pass, ast.arg)
_COPIES = ("copy", "deepcopy")
_MOVES = ("insert", "remove", "reverse", "sort", "pop", "clear")


class Rewriter:
    """Rewrites a parsed config file so that it reports to a `Recorder` where it writes what.

    Attributes:
        sites: the place of each container that is written down, by the number it reports.
        lines: lines of top-level names that need no report.
        twice: each key that a dict display gives twice, as the key and the lines of both.
        imports: whether the file reads anything else, so that it may do something new each time.
        uses_base: whether it refers to its bases' values.
        sets_base: the lines on which it assigns ``_base_`` itself.
    """

    def __init__(self) -> None:
        self.sites: list[Origin] = []
        self.lines: dict[str, int] = {}
        self.twice: list[tuple[Any, int, int]] = []
        self.imports = False
        self.uses_base = False
        self.sets_base: list[int] = []

    def statements(self, body: list[ast.stmt], top: bool) -> list[ast.stmt]:
        """Return ``body`` rewritten; ``top``: its names are the config's."""
        rewritten: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                rewritten.append(statement)  # a docstring
                continue
            rewritten.append(self._node(statement, top and not isinstance(statement, _SCOPES)))
            rewritten.extend(self._reports(statement, top))
        return rewritten

    def _node(self, node: Any, top: bool = False) -> Any:
        kind = type(node)
        if kind is ast.Name:
            if node.id == BASE:
                self.uses_base = True
                self.sets_base += [node.lineno] if isinstance(node.ctx, ast.Store) else []
            self.imports = self.imports or node.id in _IMPURE
            return node
        if kind is ast.Constant:
            return self._references(node) if type(node.value) is str and "{{" in node.value else node
        if isinstance(node, _LEAVES):
            return node
        if kind is ast.Set and (inner := _base_reference(node)) is not None:
            self.uses_base = True
            return inner
        if kind is ast.JoinedStr:
            node.values = [part if type(part) is ast.Constant else self._node(part) for part in node.values]
            return node
        self._inside(node, top)
        wrap = _WRAPS.get(kind)
        return wrap(self, node) if wrap else node

    def _inside(self, node: ast.AST, top: bool) -> None:
        for name in node._fields:
            child = getattr(node, name, None)
            if isinstance(child, ast.AST):
                setattr(node, name, self._node(child, top))
            elif type(child) is list and child:
                if isinstance(child[0], ast.stmt):
                    setattr(node, name, self.statements(child, top))
                else:
                    child[:] = [self._node(item, top) if isinstance(item, ast.AST) else item for item in child]

    def _references(self, node: ast.Constant) -> ast.expr:
        """Return a string with ``{{ _base_.a.b }}`` in it as an expression: the value itself where it is the whole."""
        parts = REFERENCE.split(str(node.value))
        if len(parts) == 1:
            return node
        self.uses_base = True
        exprs = [_chain(part, node) if index % 2 else _at(ast.Constant(part), node) for index, part in enumerate(parts)]
        if len(parts) == 3 and not parts[0] and not parts[2]:
            return exprs[1]
        formatted = [_at(ast.FormattedValue(e, -1), node) if i % 2 else e for i, e in enumerate(exprs)]
        return _at(ast.JoinedStr(formatted), node)

    def _dict(self, node: ast.Dict) -> ast.expr:
        lines: dict[Any, int] = {}
        for key in node.keys:
            if isinstance(key, ast.Constant):
                if key.value in lines:
                    self.twice.append((key.value, lines[key.value], key.lineno))
                lines[key.value] = key.lineno
        return self._made(node, lines, [value for key, value in zip(node.keys, node.values, strict=True) if not key])

    def _list(self, node: ast.List | ast.Tuple) -> ast.expr:
        if not isinstance(node.ctx, ast.Load) or not node.elts:
            return node
        if isinstance(node, ast.Tuple) and all(isinstance(item, ast.Constant) for item in node.elts):
            return node  # one constant, shared by all who write it
        if any(isinstance(item, ast.Starred) for item in node.elts):
            return self._made(node, {})
        return self._made(node, {index: item.lineno for index, item in enumerate(node.elts)})

    def _call(self, node: ast.Call) -> ast.expr:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name == "dict":
            starred = [keyword.value for keyword in node.keywords if not keyword.arg]
            return self._made(node, _keyword_lines(node), [*node.args, *starred])
        if name in _COPIES and isinstance(function, ast.Attribute) and not node.args:
            return self._made(node, {}, [function.value])
        if name in (*_COPIES, "list", "tuple") and len(node.args) == 1:
            return self._made(node, {}, node.args)
        return node

    def _comprehension(self, node: ast.ListComp | ast.DictComp) -> ast.expr:
        return self._made(node, {})

    def _made(self, node: ast.expr, lines: dict[Any, int], sources: Iterable[ast.expr] = ()) -> ast.expr:
        self.sites.append(Origin(node.lineno, lines))
        again = [source for source in sources if _is_pure(source)]  # no harm in evaluating them twice
        return _call(_MADE, [node, _at(ast.Constant(len(self.sites) - 1), node), *again], node)

    def _reports(self, statement: ast.stmt, top: bool) -> Iterator[ast.stmt]:
        """Yield the reports that follow a statement that sets something."""
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield from _method_reports(statement.value)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            self.imports = True
        elif isinstance(statement, ast.For) and top:
            names = [node for node in ast.walk(statement.target) if isinstance(node, ast.Name)]
            self.lines.update((node.id, node.lineno) for node in names)
        for target in _targets(statement):
            if isinstance(target, ast.Name) and top:
                place = ast.Subscript(_name(_LINES, target), _at(ast.Constant(target.id), target), ast.Store())
                line = _at(ast.Constant(statement.lineno), target)
                yield _at(ast.Assign([_at(place, target)], line), target)
            elif isinstance(target, (ast.Subscript, ast.Attribute)) and _is_pure(target):
                gone = isinstance(statement, ast.Delete)
                key = target.slice if isinstance(target, ast.Subscript) else _at(ast.Constant(target.attr), target)
                if not gone or isinstance(target, ast.Subscript):
                    yield _put(target.value, _at(ast.Constant(None), target) if gone else key, statement.lineno)


_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPURE = frozenset({"open", "__import__", "exec", "eval", "input"})
_WRAPS: dict[type, Callable[[Rewriter, Any], ast.expr]] = {
    ast.Dict: Rewriter._dict,
    ast.List: Rewriter._list,
    ast.Tuple: Rewriter._list,
    ast.Call: Rewriter._call,
    ast.ListComp: Rewriter._comprehension,
    ast.DictComp: Rewriter._comprehension,
}


def _targets(statement: ast.stmt) -> Iterator[ast.expr]:
    if isinstance(statement, (ast.Assign, ast.Delete)):
        targets = statement.targets
    else:
        targets = [statement.target] if isinstance(statement, (ast.AugAssign, ast.AnnAssign)) else []
    for target in targets:
        yield from target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]


def _method_reports(call: ast.Call) -> Iterator[ast.stmt]:
    """Yield the reports that follow ``x.update(...)``, ``x.append(...)`` and their like."""
    if not isinstance(call.func, ast.Attribute) or not _is_pure(call.func.value):
        return
    container, method = call.func.value, call.func.attr
    if method == "update":
        for key, line in _keyword_lines(call).items():
            yield _put(container, _at(ast.Constant(key), call), line)
    elif method == "append":
        yield _put(container, _at(ast.Constant(-1), call), call.lineno)
    elif method in _MOVES:
        yield _put(container, _at(ast.Constant(None), call), call.lineno)


def _keyword_lines(call: ast.Call) -> dict[Any, int]:
    return {keyword.arg: keyword.lineno for keyword in call.keywords if keyword.arg}


def _is_pure(node: ast.expr) -> bool:
    """Tell whether ``node`` only looks something up, so that looking twice changes nothing."""
    if isinstance(node, ast.Attribute):
        return _is_pure(node.value)
    if isinstance(node, ast.Subscript):
        index = node.slice.operand if isinstance(node.slice, ast.UnaryOp) else node.slice
        return isinstance(index, (ast.Constant, ast.Name)) and _is_pure(node.value)
    return isinstance(node, ast.Name)


def _base_reference(node: ast.Set) -> ast.expr | None:
    """Return ``_base_.a.b`` of ``{{_base_.a.b}}``, which Python takes for a set in a set."""
    inner = node.elts[0]
    if len(node.elts) > 1 or not isinstance(inner, ast.Set) or len(inner.elts) > 1:
        return None
    root: ast.expr = inner.elts[0]
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    return inner.elts[0] if isinstance(root, ast.Name) and root.id == BASE else None


def _chain(path: str, where: ast.AST) -> ast.expr:
    """Return the expression ``_base_.a.b``."""
    node: ast.expr = _name(BASE, where)
    for step in path.split("."):
        index = _at(ast.Constant(int(step) if step.isdecimal() else step), where)
        node = _at(ast.Subscript(node, index, ast.Load()), where)
    return node


def _put(container: ast.expr, key: ast.expr, line: int) -> ast.stmt:
    call = _call(_PUT, [container, key, _at(ast.Constant(line), key)], key)
    return _at(ast.Expr(call), key)


def _call(name: str, args: list[ast.expr], where: ast.AST) -> ast.expr:
    return _at(ast.Call(_name(name, where), args, []), where)


def _name(name: str, where: ast.AST) -> ast.expr:
    return _at(ast.Name(name, ast.Load()), where)


def _at(node: T, where: Any) -> T:
    node.lineno = where.lineno  # type: ignore[attr-defined]
    node.col_offset = where.col_offset  # type: ignore[attr-defined]
    node.end_lineno, node.end_col_offset = where.end_lineno, where.end_col_offset  # type: ignore[attr-defined]
    return node


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,\n]|[^\s\[\]{}:,"]+')


def json_origin(text: str) -> tuple[Origin, list[tuple[ConfigPath, int, int]]]:
    """Return where each value of JSON text is, and each key given twice: its path and the lines of both.

    Text that is not JSON is not refused here.
    """
    root = Origin()
    stack: list[tuple[Origin, bool]] = [(root, True)]  # what is open, and whether it is a list
    steps: list[Any] = [0]  # the key or index that is being read in each
    twice: list[tuple[ConfigPath, int, int]] = []
    line, string = 1, ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        origin, is_list = stack[-1]
        if token == "\n":
            line += 1
        elif token == ":" and not is_list and string:
            steps[-1] = json.loads(string, strict=False)
            if steps[-1] in origin.lines:
                twice.append((tuple(steps[1:]), origin.lines[steps[-1]], line))
            origin.lines[steps[-1]] = line
        elif token == "," and is_list:
            steps[-1] += 1
        elif token in "]}" and len(stack) > 1:
            stack.pop()
            steps.pop()
        elif token not in ",:]}":
            string = token if token[0] == '"' else ""
            if is_list:
                origin.lines.setdefault(steps[-1], line)
            if token in "[{":
                stack.append((origin.inside.setdefault(steps[-1], Origin(line)), token == "["))
                steps.append(0)
    return _decoded(root.inside.get(0, root)), twice


def _decoded(origin: Origin) -> Origin:
    """Return the origin of parsed JSON as that of what it encodes."""
    if origin.lines.keys() == {"__tuple__"} and "__tuple__" in origin.inside:
        return _decoded(origin.inside["__tuple__"])
    if origin.lines.keys() == {"__items__"}:
        return Origin(origin.line)
    return Origin(origin.line, origin.lines, None, {key: _decoded(item) for key, item in origin.inside.items()})
