"""Configs: loading with inheritance, overriding, explaining; every value knows the file and line that set it.

A config file is Python whose top-level names that are plain data are the config, or JSON. It may inherit::

    _base_ = ["../_base_/sgd.py"]           # dict merges into dict; anything else is replaced
    model = dict(type="ConvNet", width=16)  # dict(_delete_=True, ...) replaces a dict too
    lr = _base_.optimizer.lr                # a base's value; {{_base_.optimizer.lr}} works as well

Before anything else, ``{{ fileDirname }}``, ``{{ fileBasename }}``, ``{{ fileBasenameNoExtension }}``,
``{{ fileExtname }}``, ``{{$VARIABLE}}`` and ``{{$VARIABLE:default}}`` are replaced in the text of a file, as mmengine
does. This is mmengine's grammar, except that names that begin with one underscore are dropped too.
"""

from visreg.config.config import Config, apply_overrides, config_from, explain, load_config
from visreg.config.origin import Change
from visreg.config.path import ConfigPath, parse_path, show_path
from visreg.config.text import dump, dumps_json, dumps_python, loads_json

__all__ = [
    "Change",
    "Config",
    "ConfigPath",
    "apply_overrides",
    "config_from",
    "dump",
    "dumps_json",
    "dumps_python",
    "explain",
    "load_config",
    "loads_json",
    "parse_path",
    "show_path",
]
