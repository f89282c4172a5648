"""Every value knows the file and line that set it."""

import copy
import pickle
from pathlib import Path

import pytest

from visreg.config import config_from, explain, load_config, parse_path, show_path
from visreg.errors import ConfigError

SGD = """\
optimizer = dict(
    type="SGD",
    lr=0.2,
    groups=[
        dict(bias=0),
        {"norm": 1,
         2: "b"},
    ],
)
hooks = [dict(type="A", patience=1), dict(type="B")]
sizes = [
    1,
    (2,
     [3]),
]
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Load a config of the given text over SGD."""
    monkeypatch.chdir(tmp_path)
    Path("base").mkdir()
    Path("base/sgd.py").write_text(SGD)

    def load(text, overrides=(), name="a.py"):
        Path(name).write_text(text)
        return load_config(name, overrides)

    return load


def places(config, *paths):
    return [str(config.where(parse_path(path))) for path in paths]


def test_displays_and_calls(config):
    loaded = config(SGD)
    assert places(loaded, "optimizer", "optimizer.lr", "optimizer.groups", "optimizer.groups[1].norm") == [
        "a.py:1", "a.py:3", "a.py:4", "a.py:6",
    ]  # fmt: skip
    assert places(loaded, "optimizer.groups[0].bias", "optimizer.groups[1][2]", "optimizer.groups[1]") == [
        "a.py:5", "a.py:7", "a.py:6",
    ]  # fmt: skip
    assert places(loaded, "sizes", "sizes[0]", "sizes[1]", "sizes[1][1]", "sizes[1][1][0]") == [
        "a.py:11", "a.py:12", "a.py:13", "a.py:14", "a.py:14",
    ]  # fmt: skip


def test_what_is_not_set_has_the_place_of_what_is_around_it(config):
    loaded = config(SGD)
    assert places(loaded, "optimizer.momentum", "optimizer.groups[0].x.y", "nothing.at.all") == [
        "a.py:1",
        "a.py:5",
        "a.py",
    ]
    assert str(loaded.where(())) == "a.py"


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("x = 1\nx = 2\n", "x", 2),
        ("if 1:\n    x = 1\nelse:\n    x = 2\n", "x", 2),
        ("a, x = 1, \\\n 2\n", "x", 1),
        ("x: dict = dict(\n a=1)", "x.a", 2),
        ("x = {}\nx['a'] = 1\n", "x.a", 2),
        ("x = {'a': {}}\nk = 'a'\nx[k]['b'] = 1\n", "x.a.b", 3),
        ("x = {'a': 1}\nx['a'] += 1\n", "x.a", 2),
        ("x = dict(a=1)\nx.update(b=2,\n c=3)\n", "x.c", 3),
        ("x = dict(a=1)\nx.update({'b': 2,\n 'c': 3})\n", "x.c", 3),
        ("x = []\nx.append(dict(\n a=1))\n", "x[0].a", 3),
        ("x = [0]\nx.append(1)\n", "x[1]", 2),
        ("x = [1,\n 2]\nx.insert(0, dict(\n a=1))\n", "x[0].a", 4),
        ("x = [1,\n {'a': 2}]\ndel x[0]\n", "x[0].a", 2),
        ("x = [1,\n {'a': 2}]\nx.pop(0)\n", "x[0].a", 2),
        ("x = [1]\nx[-1] = 2\n", "x[0]", 2),
        ("x = []\nfor i in range(3):\n  x.append(dict(\n    i=i))\n", "x[2].i", 4),
        ("x = [dict(\n i=i) for i in range(3)]\n", "x[1].i", 2),
        ("def f(n):\n  out = dict(\n    n=n)\n  out['m'] = 2\n  return out\nx = dict(a=f(1))\n", "x.a.n", 3),
        ("def f(n):\n  out = dict(\n    n=n)\n  out['m'] = 2\n  return out\nx = dict(a=f(1))\n", "x.a.m", 4),
        ("def f(n):\n  return dict(\n    n=n)\nx = dict(\na=f(1))\n", "x.a", 5),
        ("y = dict(\n a=1)\nx = dict(y, b=2)\n", "x.a", 2),
        ("y = dict(\n a=1)\nx = dict(\nb=2, **y)\n", "x.a", 2),
        ("y = dict(\n a=1)\nx = {**y,\n'b': 2}\n", "x.b", 4),
        ("y = dict(\n a=1)\nx = {**y,\n'b': 2}\n", "x.a", 2),
        ("y = dict(\n a=dict(\nb=2))\nx = y.copy()\n", "x.a.b", 3),
        ("import copy\ny = dict(\n a=dict(\nb=[2,\n3]))\nx = copy.deepcopy(y)\n", "x.a.b[1]", 5),
        ("from copy import deepcopy\ny = dict(\n a=dict(\nb=2))\nx = deepcopy(y)\n", "x.a.b", 4),
        ("y = [\n 1]\nx = [2] + y + [dict(\nb=2)]\n", "x[2].b", 4),
        ("y = [\n 1]\nx = dict(\nb=y)\n", "x.b", 4),
        ("y = [\n 1]\nx = dict(\nb=y)\n", "x.b[0]", 2),
        ("for x in range(2):\n  pass\n", "x", 1),
        ("try:\n  import nothing\nexcept ImportError:\n  x = dict(\n  a=1)\n", "x.a", 5),
    ],
)
def test_statements(config, text, path, line):
    assert places(config(text), path) == [f"a.py:{line}"]


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        ("", "optimizer.lr", "base/sgd.py:3"),
        ("\noptimizer = dict(lr=1)", "optimizer.lr", "a.py:3"),
        ("\noptimizer = dict(lr=1)", "optimizer", "a.py:3"),
        ("\noptimizer = dict(lr=1)", "optimizer.type", "base/sgd.py:2"),
        ("optimizer = dict(_delete_=True, lr=1)", "optimizer.type", "a.py:2"),
        ("hooks = [1]", "hooks[1].type", "a.py:2"),
        ("x = _base_.optimizer", "x", "a.py:2"),
        ("x = _base_.optimizer", "x.groups[1].norm", "base/sgd.py:6"),
        ("x = dict(a={{_base_.optimizer}})", "x.a.lr", "base/sgd.py:3"),
        ("x = '{{_base_.optimizer.lr}}'", "x", "a.py:2"),
        ("x = dict(_base_.optimizer, lr=3)", "x.lr", "a.py:2"),
        ("x = dict(_base_.optimizer, lr=3)", "x.type", "base/sgd.py:2"),
        ("import copy\nx = copy.deepcopy(_base_.optimizer)\nx.lr = 3", "x.lr", "a.py:4"),
        ("import copy\nx = copy.deepcopy(_base_.optimizer)\nx.lr = 3", "x.groups[0].bias", "base/sgd.py:5"),
        ("x = _base_.hooks + [dict(\ntype=3)]", "x[2].type", "a.py:3"),
        ("x = _base_.hooks + [dict(\ntype=3)]", "x[0].patience", "base/sgd.py:10"),
        ("_base_.optimizer.lr = 3", "optimizer.lr", "a.py:2"),
        ("_base_.optimizer.lr = 3", "optimizer.type", "base/sgd.py:2"),
        ("_base_.optimizer.update(dict(lr=3,\nm=4))", "optimizer.m", "a.py:3"),
        ("_base_.optimizer.groups = [dict(\nk=1)]", "optimizer.groups[0].k", "a.py:3"),
        ("x = dict(o=_base_.pop('optimizer'))", "x.o.lr", "base/sgd.py:3"),
        ("x = _base_.optimizer\ndel _base_.optimizer\ny = [x]", "y[0].lr", "base/sgd.py:3"),
    ],
)
def test_inherited_values(config, text, path, place):
    assert places(config(f"_base_ = 'base/sgd.py'\n{text}\n"), path) == [place]


def test_json(config):
    text = """{
  "_base_": "base/sgd.py",
  "optimizer": {"lr": 1,
    "size": {"__tuple__": [1,
      {"a": 2}]}},
  "map": {"__items__": [[1, 2]]},
  "hooks": [1, [2],
    {"type": "\\"{,["}]
}"""
    loaded = config(text, name="a.json")
    assert places(loaded, "optimizer", "optimizer.lr", "optimizer.size[1]", "optimizer.size[1].a", "map[1]") == [
        "a.json:3", "a.json:3", "a.json:5", "a.json:5", "a.json:6",
    ]  # fmt: skip
    assert places(loaded, "optimizer.type", "hooks[0]", "hooks[1][0]", "hooks[2].type") == [
        "base/sgd.py:2", "a.json:7", "a.json:7", "a.json:8",
    ]  # fmt: skip


def test_history_lists_every_setting(config):
    loaded = config("_base_ = 'base/sgd.py'\noptimizer = dict(lr=0.1)\n", ["optimizer.lr=0.01", "optimizer={'lr': 5}"])
    assert [(str(change.location), change.value) for change in loaded.history(("optimizer", "lr"))] == [
        ("base/sgd.py:3", "0.2"),
        ("a.py:2", "0.1"),
        ("--set optimizer.lr=0.01", "0.01"),
        ("--set optimizer={'lr': 5}", "5"),
    ]
    assert loaded.history(("optimizer", "type")) == []
    assert str(loaded.where(("optimizer", "type"))) == "--set optimizer={'lr': 5}"


def test_explain_a_value(config):
    loaded = config("_base_ = 'base/sgd.py'\n\noptimizer = dict(lr=0.1)\n", ["optimizer.lr=0.01"])
    assert explain(loaded, parse_path("optimizer.lr")).splitlines() == [
        "optimizer.lr = 0.01",
        "  set by --set optimizer.lr=0.01",
        "  overrode 0.1 from a.py:3",
        "  overrode 0.2 from base/sgd.py:3",
    ]


def test_explain_a_section(config):
    loaded = config("_base_ = 'base/sgd.py'\n\noptimizer = dict(lr=0.1, groups=(1, []))\n", ["optimizer.type=Adam"])
    assert explain(loaded, ("optimizer",)).splitlines() == [
        "optimizer = {",
        "    'type': 'Adam',  # --set optimizer.type=Adam",
        "    'lr': 0.1,       # a.py:3",
        "    'groups': (",
        "        1,           # a.py:3",
        "        [],          # a.py:3",
        "    ),",
        "}",
    ]


def test_explain_what_is_not_there(config):
    with pytest.raises(ConfigError, match=r"^optimizer\.lrr: no such key; did you mean 'optimizer\.lr'\?$"):
        explain(config(SGD), ("optimizer", "lrr"))
    with pytest.raises(ConfigError, match=r"^hooks\[2\]: no such index; hooks has 0 to 1$"):
        explain(config(SGD), ("hooks", 2))


def test_a_copied_config_still_knows(config):
    loaded = config("_base_ = 'base/sgd.py'")
    for copied in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert places(copied, "optimizer.lr") == ["base/sgd.py:3"]


def test_files_outside_the_current_folder_are_shown_whole(config, tmp_path, monkeypatch):
    loaded = config("x = 1")
    monkeypatch.chdir(Path(__file__).parent)
    assert places(loaded, "x") == [f"{tmp_path / 'a.py'}:1"]


def test_every_value_of_a_config_has_a_line(config):
    loaded = config("_base_ = 'base/sgd.py'\nx = [_base_.optimizer, dict(_base_.hooks[0], y=_base_.sizes)]\n")

    def leaves(value, path=()):
        yield path
        if isinstance(value, (dict, list, tuple)):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from leaves(item, (*path, key))

    for path in list(leaves(loaded.values))[1:]:
        assert loaded.where(path).line, show_path(path)


def test_values_from_elsewhere_have_its_name():
    assert str(config_from({"a": [1]}, "last.pt").where(("a", 0))) == "last.pt"
