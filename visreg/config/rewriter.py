"""Rewrites a config file so that, as it runs, it reports where it writes what.

Each dict, list or tuple that the file writes down is handed to a `Recorder` with the lines of its entries, and each
statement that changes one is followed by a report. What the file computes stays the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from visreg.config.origin import Origin

T = TypeVar("T", bound=ast.AST)

BASE = "_base_"
REFERENCE = re.compile(r"\{\{\s*_base_\.([\w.]+)\s*\}\}")  # "{{ _base_.model.depth }}" in a string
MADE, PUT, LINES = "__visreg_made__", "__visreg_put__", "__visreg_lines__"
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

    def __init__(self, source: str) -> None:
        self._source = source
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
        if len(parts) == 1 or not REFERENCE.search(ast.get_source_segment(self._source, node) or ""):
            return node  # none, or one that was escaped
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
        return _call(MADE, [node, _at(ast.Constant(len(self.sites) - 1), node), *again], node)

    def _reports(self, statement: ast.stmt, top: bool) -> Iterator[ast.stmt]:
        """Yield the reports that follow a statement that sets something."""
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield from self._method_reports(statement.value)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            self.imports = True
        elif isinstance(statement, ast.For) and top:
            names = [node for node in ast.walk(statement.target) if isinstance(node, ast.Name)]
            self.lines.update((node.id, node.lineno) for node in names)
        targets = _targets(statement)
        for target in targets:
            if isinstance(target, ast.Name) and top:
                place = ast.Subscript(_name(LINES, target), _at(ast.Constant(target.id), target), ast.Store())
                line = _at(ast.Constant(statement.lineno), target)
                yield _at(ast.Assign([_at(place, target)], line), target)
            elif isinstance(target, (ast.Subscript, ast.Attribute)) and len(targets) == 1 and _is_pure(target):
                gone = isinstance(statement, ast.Delete)
                key = target.slice if isinstance(target, ast.Subscript) else _at(ast.Constant(target.attr), target)
                if not gone or isinstance(target, ast.Subscript):
                    yield _put(target.value, _at(ast.Constant(None), target) if gone else key, statement.lineno)

    def _method_reports(self, call: ast.Call) -> Iterator[ast.stmt]:
        """Yield the reports that follow ``x.update(...)``, ``x.append(...)`` and their like."""
        if not isinstance(call.func, ast.Attribute) or not _is_pure(call.func.value):
            return
        container, method = call.func.value, call.func.attr
        if method == "update":
            for key, line in {**self._lines_of(call.args), **_keyword_lines(call)}.items():
                yield _put(container, _at(ast.Constant(key), call), line)
        elif method == "append":
            yield _put(container, _at(ast.Constant(-1), call), call.lineno)
        elif method in _MOVES:
            yield _put(container, _at(ast.Constant(None), call), call.lineno)

    def _lines_of(self, args: list[ast.expr]) -> dict[Any, int]:
        """Return the lines of what the first of ``args``, already rewritten, writes down."""
        made = args[0] if args else None
        if isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == MADE:
            site = made.args[1]
            return self.sites[site.value].lines if isinstance(site, ast.Constant) else {}  # type: ignore[index]
        return {}


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


def _targets(statement: ast.stmt) -> list[ast.expr]:
    if isinstance(statement, (ast.Assign, ast.Delete)):
        targets = statement.targets
    else:
        targets = [statement.target] if isinstance(statement, (ast.AugAssign, ast.AnnAssign)) else []
    return [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]


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
    call = _call(PUT, [container, key, _at(ast.Constant(line), key)], key)
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
