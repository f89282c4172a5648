"""The way to a value inside a config, and how it is written."""

from __future__ import annotations

import ast
import re

from visreg.errors import ConfigError, Problem

ConfigPath = tuple[str | int, ...]
"""The way to a value: ``("hooks", 0, "patience")``, shown as ``hooks[0].patience``."""

_WORD = re.compile(r"[^.\[\]'\"=\s]+")
_INDEX = re.compile(r"-?[0-9]{1,9}")
_STEP = re.compile(
    r"""\[(?P<index>-?[0-9]{1,9})\]
      | \[(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\]
      | (?P<dot>\.?)(?P<word>[^.\[\]'"=\s]+)""",
    re.VERBOSE,
)


def show_path(path: ConfigPath) -> str:
    """Return ``path`` as a reader writes it.

    >>> show_path(("hooks", 0, "patience"))
    'hooks[0].patience'
    >>> show_path(("custom_keys", "backbone.conv1", "lr_mult"))
    "custom_keys['backbone.conv1'].lr_mult"
    """
    shown = ""
    for step in path:
        if isinstance(step, str) and _WORD.fullmatch(step) and not _INDEX.fullmatch(step):
            shown += f".{step}" if shown else step
        else:
            shown += f"[{step!r}]"
    return shown


def parse_path(text: str) -> ConfigPath:
    """Return the path that ``text`` names; the opposite of `show_path`.

    >>> parse_path("hooks[0].patience") == parse_path("hooks.0.patience") == ("hooks", 0, "patience")
    True
    >>> parse_path("hooks.-1.patience")
    ('hooks', -1, 'patience')

    Raises:
        ConfigError: if ``text`` is not a path.
    """
    path, end = _read_path(text)
    if end < len(text) or not path:
        raise ConfigError([Problem("", f"{text!r} is not a path; write it like hooks[0].patience")])
    return path


def partition_override(text: str) -> tuple[ConfigPath, str]:
    """Return the path and the value of ``path=value``; a quoted key may hold a ``=`` of its own.

    Raises:
        ConfigError: if ``text`` is anything else.
    """
    begin = len(text) - len(text.lstrip())
    path, end = _read_path(text, begin)
    rest = text[end:].lstrip()
    if not path or not rest.startswith("="):
        raise ConfigError([Problem("", "expected KEY=VALUE, such as optimizer.lr=0.01")])
    return path, rest[1:]


def _read_path(text: str, end: int = 0) -> tuple[ConfigPath, int]:
    """Return the path that begins at ``end``, and where it ends."""
    path: list[str | int] = []
    while step := _STEP.match(text, end):
        if step["word"] and bool(step["dot"]) != bool(path):
            break
        path.append(_step(step))
        end = step.end()
    return tuple(path), end


def _step(step: re.Match[str]) -> str | int:
    if step["quoted"]:
        return str(ast.literal_eval(step["quoted"]))
    text: str = step["index"] or step["word"]
    return int(text) if _INDEX.fullmatch(text) else text
