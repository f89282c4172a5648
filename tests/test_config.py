"""Loading and inheritance; each expected value of the grammar is what mmengine 0.10.7 gives, unless said otherwise."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visreg.config import config_from, load_config
from visreg.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files):
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")


def load(files, name="a.py", overrides=()):
    write(files)
    return load_config(name, overrides).values


def refusal(files, name="a.py"):
    write(files)
    with pytest.raises(ConfigError) as caught:
        load_config(name)
    return str(caught.value)


def same(one, other):
    """Compare values with their types, and dicts with their order."""
    return repr(one) == repr(other)


def test_top_level_data_is_the_config(folder):
    text = """
import math, os.path
from collections import OrderedDict
def double(x): return 2 * x
class Helper: pass
_private = 1
model = dict(type="A", sizes=(1, (2, [3, (4,)]), ()), none=None, on=True)
width = double(math.floor(4.5))
ordered = OrderedDict(a=1, b=OrderedDict(c=2))
hooks = [dict(type=t, index=i) for i, t in enumerate("ab")]
for _step in range(2):
    hooks.append(dict(type="X", step=_step))
keys = {0: "a", "b": {1.5: None}}
"""
    expected = {
        "model": {"type": "A", "sizes": (1, (2, [3, (4,)]), ()), "none": None, "on": True},
        "width": 8,
        "ordered": {"a": 1, "b": {"c": 2}},
        "hooks": [*({"type": t, "index": i} for i, t in enumerate("ab")), *({"type": "X", "step": i} for i in (0, 1))],
        "keys": {0: "a", "b": {1.5: None}},
    }
    assert same(load({"a.py": text}), expected)


BASE = """
item4 = "test"
item5 = dict(a=0, b=[dict(c=dict(a=1))])
item6 = [dict(a=0), dict(b=1)]
item7 = dict(a={0: 0, 1: 1}, b=dict(c="x"))
"""


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ("item7 = dict(b=dict(d=1))", {"item7": {"a": {0: 0, 1: 1}, "b": {"c": "x", "d": 1}}}),
        ("item7 = dict(a={1: 5})", {"item7": {"a": {0: 0, 1: 5}, "b": {"c": "x"}}}),
        ("item6 = [1]", {"item6": [1]}),
        ("item6 = (1,)", {"item6": (1,)}),
        ("item7 = 3", {"item7": 3}),
        ("item7 = dict(_delete_=True, z=1)", {"item7": {"z": 1}}),
        ("item7 = dict(_delete_=False, z=1)", {"item7": {"a": {0: 0, 1: 1}, "b": {"c": "x"}, "z": 1}}),
        ("item7 = dict(b=dict(_delete_=True))", {"item7": {"a": {0: 0, 1: 1}, "b": {}}}),
        ("item6 = dict(_delete_=True, a=1)", {"item6": {"a": 1}}),
        # mmengine leaves these _delete_ for a constructor to find
        ("new = dict(_delete_=True, a=[dict(_delete_=True, b=(dict(_delete_=1),))])", {"new": {"a": [{"b": ({},)}]}}),
        ("item7 = dict(_delete_=True, b=dict(_delete_=True, z=1))", {"item7": {"b": {"z": 1}}}),
        # references to the bases
        ("x = {{_base_.item5}}", {"x": {"a": 0, "b": [{"c": {"a": 1}}]}}),
        ("x = dict(a=[{{ _base_.item7.b.c }}])", {"x": {"a": ["x"]}}),
        ("x = _base_.item5.b[0].c.a", {"x": 1}),
        ("x = _base_['item5']['b'][0].c['a']", {"x": 1}),
        ("x = f'{_base_.item4}!'", {"x": "test!"}),
        ("x = _base_.get('nothing', 4)", {"x": 4}),
        ("x = dict(_base_.item7, y=2)", {"x": {"a": {0: 0, 1: 1}, "b": {"c": "x"}, "y": 2}}),
        ("x = {**_base_.item7, 'b': 1}", {"x": {"a": {0: 0, 1: 1}, "b": 1}}),
        ("x = _base_.item7 | dict(b=dict(e=5))", {"x": {"a": {0: 0, 1: 1}, "b": {"c": "x", "e": 5}}}),
        ("x = dict(b=dict(e=5)) | _base_.item7", {"x": {"b": {"e": 5, "c": "x"}, "a": {0: 0, 1: 1}}}),
        ("x = _base_.item6[:1] + [dict(a=1)]", {"x": [{"a": 0}, {"a": 1}]}),
        ("import copy\nx = copy.deepcopy(_base_.item5)\nx.b.append(1)", {"x": {"a": 0, "b": [{"c": {"a": 1}}, 1]}}),
        ("x = _base_.item5.copy()\nx.a = 9\nx.b.append(1)", {"x": {"a": 9, "b": [{"c": {"a": 1}}, 1]}}),
        # in a string: mmengine leaves a placeholder there
        ("x = '{{_base_.item4}}'", {"x": "test"}),
        ("x = 'a {{ _base_.item4 }} b'", {"x": "a test b"}),
        # changes of the bases' values in place
        ("_base_.item5.b[0].c.a = 7", {"item5": {"a": 0, "b": [{"c": {"a": 7}}]}}),
        ("_base_.item7.update(dict(b=dict(d=1)), a=5)", {"item7": {"a": 5, "b": {"c": "x", "d": 1}}}),
        ("_base_.new = dict(a=dict(b=1))\n_base_.new.a.b = 2", {"new": {"a": {"b": 2}}}),
        ("y = _base_.item5\ny.a = [dict(q=1)]\ny.a[0].q = 2", {"item5": {"a": [{"q": 2}], "b": [{"c": {"a": 1}}]}}),
        ("_base_.item7.setdefault('a', 1); _base_.item7.setdefault('k', dict(v=1)).v = 2",
         {"item7": {"a": {0: 0, 1: 1}, "b": {"c": "x"}, "k": {"v": 2}}}),
        ("_base_.item7 |= dict(b=dict(d=1))", {"item7": {"a": {0: 0, 1: 1}, "b": {"c": "x", "d": 1}}}),
        ("x = _base_.item7.to_dict()\nx['b']['c'] = 2", {"x": {"a": {0: 0, 1: 1}, "b": {"c": 2}}}),
    ],
)  # fmt: skip
def test_inheritance_gives_what_mmengine_gives(folder, child, expected):
    values = load({"base.py": BASE, "a.py": f"_base_ = 'base.py'\n{child}\n"})
    assert same({name: values[name] for name in expected}, expected)


@pytest.mark.parametrize("child", ["del _base_.item6", "_base_.pop('item6')", "del _base_['item6']"])
def test_a_value_of_the_bases_can_be_removed(folder, child):
    assert set(load({"base.py": BASE, "a.py": f"_base_ = 'base.py'\n{child}\n"})) == {"item4", "item5", "item7"}


def test_what_a_file_does_to_its_bases_stays_in_that_file(folder):
    write({"base.py": BASE, "a.py": "_base_ = 'base.py'\n_base_.item5.b.append(1)\n", "b.py": "_base_ = 'base.py'"})
    assert load_config("a.py").values["item5"]["b"][1:] == [1]
    assert load_config("b.py").values["item5"]["b"][1:] == load_config("base.py").values["item5"]["b"][1:] == []


def test_several_and_recursive_bases_of_both_kinds(folder):
    files = {
        "one.py": "item1 = [1, 2]",
        "two.json": '{"item2": {"a": 0}}',
        "three.py": "item7 = dict(b=dict(c='x'))",
        "middle.py": """
_base_ = ['./one.py', 'two.json', "three.py"]
item8 = '{{fileBasename}}'
item9 = {{_base_.item2}}
item10 = {{_base_.item7.b.c}}
""",
        "sub/a.py": "_base_ = '../middle.py'\nitem1 = _base_.item8\nitem11 = {{_base_.item9}}\nitem2 = dict(b=1)",
    }
    expected = {
        "item1": "middle.py",
        "item2": {"a": 0, "b": 1},
        "item7": {"b": {"c": "x"}},
        "item8": "middle.py",
        "item9": {"a": 0},
        "item10": "x",
        "item11": {"a": 0},
    }
    assert same(load(files, "sub/a.py"), expected)


def test_bases_may_be_put_together_from_constants(folder):
    files = {"one.py": "x = 1", "two.py": "y = 2", "a.py": "name = 'one'\n_base_ = (f'./{name}.py', 'tw' + 'o.py')"}
    assert load(files) == {"x": 1, "y": 2, "name": "one"}


def test_private_names_are_dropped_but_known_to_those_who_inherit(folder):
    files = {"base.py": "_width = 4\nx = 1", "a.py": "_base_ = 'base.py'\ny = _base_._width"}
    assert load(files) == {"x": 1, "y": 4}


def test_file_variables(folder):
    text = (
        "a = '{{fileBasename}}'\nb = '{{ fileDirname}}'\nc = './w/{{ fileBasenameNoExtension }}'\nd = '{{fileExtname}}'"
    )
    assert load({"it's/x.y.py": text}, "it's/x.y.py") == {
        "a": "x.y.py", "b": str(folder / "it's"), "c": "./w/x.y", "d": ".py"
    }  # fmt: skip


def test_environment_variables(folder, monkeypatch):
    monkeypatch.setenv("VISREG_TEST", "12")
    monkeypatch.delenv("VISREG_UNSET", raising=False)
    text = """
a = '{{ $VISREG_UNSET:/default }}/images'
b = {{'$VISREG_UNSET:80'}}
c = {{ $VISREG_TEST:80 }}
d = '{{$VISREG_TEST}}'
# e = '{{$VISREG_UNSET}}'
"""
    assert same(load({"a.py": text}), {"a": "/default/images", "b": 80, "c": 12, "d": "12"})
    message = refusal({"a.py": "\nx = '{{$VISREG_UNSET}}'"})
    assert message.startswith("a.py:2: the environment variable 'VISREG_UNSET' is not set")


def test_a_remembered_base_follows_the_environment_and_its_text(folder, monkeypatch):
    write({"base.py": "x = '{{$VISREG_TEST:none}}'", "a.py": "_base_ = 'base.py'"})
    assert load_config("a.py").values == {"x": "none"}
    monkeypatch.setenv("VISREG_TEST", "some")
    assert load_config("a.py").values == {"x": "some"}
    write({"base.py": "x = 2"})
    assert load_config("a.py").values == {"x": 2}
    write({"base.py": "import os\nx = os.environ['VISREG_TEST']"})
    assert load_config("a.py").values == {"x": "some"}
    monkeypatch.setenv("VISREG_TEST", "other")
    assert load_config("a.py").values == {"x": "other"}


def test_two_loads_share_nothing(folder):
    write({"base.py": BASE, "a.py": "_base_ = 'base.py'\nx = [_base_.item5]"})
    first = load_config("a.py")
    first.values["item5"]["b"].append(1)
    first.values["item7"].clear()
    first.values["x"][0]["a"] = 5
    assert load_config("a.py").values["item5"] == {"a": 0, "b": [{"c": {"a": 1}}]}
    assert load_config("a.py").values["item7"]
    assert load_config("a.py").values["x"][0]["a"] == 0


def test_json_configs(folder):
    text = """{
  "_base_": ["base.py"],
  "item7": {"_delete_": true, "z": {{ _base_.item5.b }}},
  "whole": {{ _base_.item6 }}, "quoted": "{{ _base_.item5.a }}", "inside": "<{{_base_.item4}}>",
  "file": "{{fileBasename}}", "size": {"__tuple__": [1, 2.0]}, "_hidden": 1,
  "code": "__import__('os')"
}"""
    expected = {
        "item4": "test", "item5": {"a": 0, "b": [{"c": {"a": 1}}]}, "item6": [{"a": 0}, {"b": 1}],
        "item7": {"z": [{"c": {"a": 1}}]}, "whole": [{"a": 0}, {"b": 1}], "quoted": 0, "inside": "<test>",
        "file": "a.json", "size": (1, 2.0), "code": "__import__('os')",
    }  # fmt: skip
    assert same(load({"base.py": BASE, "a.json": text}, "a.json"), expected)


def test_a_config_may_import_its_neighbours(folder):
    files = {
        "a/shared.py": "width = 1", "b/shared.py": "width = 2", "a/math.py": "raise RuntimeError",
        "a/a.py": "from shared import width\nimport math\nx = width + math.floor(0.5)",
        "b/a.py": "import shared\nx = shared.width",
    }  # fmt: skip
    before = list(sys.path), list(sys.meta_path)
    assert load(files, "a/a.py") == {"width": 1, "x": 1}
    assert load(files, "b/a.py") == {"x": 2}
    assert load({"b/shared.py": "width = 3"}, "b/a.py") == {"x": 3}
    assert "shared" not in sys.modules
    assert before == (sys.path, sys.meta_path)


def test_a_package_may_hold_bases(folder, monkeypatch):
    write({"some_pkg/__init__.py": "raise RuntimeError", "some_pkg/.mim/configs/x/base.py": "x = 1"})
    monkeypatch.syspath_prepend(str(folder))
    assert load({"a.py": "_base_ = 'some_pkg::x/base.py'"}) == {"x": 1}


SCRIPTS = r"""
dict = lambda **kw: 3
x = dict(a=1)
---
x = []
y = x
y += [1]
z = x is y
---
x = [1]
x.append(x.copy())
y = list(x)
z = tuple(y)
---
from collections import defaultdict
d = defaultdict(list)
d['a'].append(1)
x = list(d)
y = dict(d)
z = len(d)
---
a, (b, *c), *d = 1, (2, 3, 4), 5
[e, f] = [[], {}]
f[0] = e
---
a = b = {}
a['k'] = a['l'] = 1
---
d = {'a': {}}
d['a'], d = 1, 2
---
x = {'a': 1}
del x['a']
x['b'] = x.setdefault('c', [])
x['b'] += [1]
x['n'] = 1
x['n'] *= 5
---
def f(n, **kw):
    'doc'
    out = dict(kw, n=n)
    out['m'] = f(n - 1) if n else None
    return out
x = f(3, q=1)
---
x = [y := 5, y**2]
z = {k: v for k, v in zip('ab', x)}
w = (i for i in x)
v = sum(w)
---
match {'a': [1, 2]}:
    case {'a': [p, *q]}:
        r = {'p': p, 'q': q}
    case _:
        r = 0
---
try:
    x = [1][1]
except IndexError as e:
    x = {'e': str(e)}
else:
    x = 1
finally:
    y = (1, [x])
---
with open(__file__) as f:
    n = len(f.read()) > 3
while n:
    n = False
else:
    m = [n]
---
class A:
    x = [1]
    def __init__(self): self.y = {'a': 1}; self.y['b'] = 2
y = A().y
x = A.x
A.x.append(3)
---
x = f'{[1, {2: 3}]!r:>20}{dict(a=1)}'
y = '%s' % ({'a': 1},)
z = {**dict(a=1), 'b': [*range(3)]}
---
x: dict = dict(a=(1, 2))
y: int
x['a'] = x['a'] + (3,)
z = x['a'][::-1]
x['l'] = lambda: 0
del x['l']
---
from __future__ import annotations
x = [[0] * 2 for _i in range(2)]
x[0][1] = 1
x[-1][-1] = 2
x.insert(0, 5)
"""


@pytest.mark.parametrize("script", SCRIPTS.split("---\n"))
def test_the_file_computes_what_it_would_compute_anyway(folder, script):
    names = {"__file__": __file__, "__name__": "config"}
    exec(compile(script.lstrip(), "a.py", "exec", dont_inherit=True), names)
    kinds = (dict, list, tuple, str, int, float, type(None))
    expected = {name: value for name, value in names.items() if not name.startswith("_") and isinstance(value, kinds)}
    values = load({"a.py": script.lstrip()})
    assert values == expected
    assert list(values) == list(expected)


def test_what_resembles_plain_data_becomes_it(folder):
    text = """
import enum, pathlib, collections
class Color(str, enum.Enum):
    RED = "red"
class Level(enum.IntEnum):
    LOW = 1
Point = collections.namedtuple("Point", "x y")
x = dict(color=Color.RED, level=Level.LOW, point=Point(1, [2]), path=pathlib.PurePosixPath("a/b"))
root = pathlib.Path("a")
"""
    assert same(load({"a.py": text}), {"x": {"color": "red", "level": 1, "point": (1, [2]), "path": "a/b"}})


def test_config_from_plain_values():
    values = {"model": {"size": (1, [2])}}
    config = config_from(values, "last.pt")
    config.values["model"]["size"][1].append(3)
    assert values == {"model": {"size": (1, [2])}}
    assert config.file is None
    assert str(config.where(("model", "size"))) == "last.pt"
    with pytest.raises(ConfigError, match=r"model\.type: the class 'int' is not plain data"):
        config_from({"model": {"type": int}})


def test_it_needs_no_torch():
    code = "import sys, visreg.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_zoo_loads_in_a_few_milliseconds_a_file(folder):
    section = ",\n".join(f"    key{i}=dict(type='T{i}', sizes=[{i}, 2, 3], scale=(1, 2), on=True)" for i in range(40))
    write({f"base{n}.py": f"section{n} = dict(\n{section})\n" for n in range(4)})
    bases = [f"base{n}.py" for n in range(4)]
    write({f"leaf{i}.py": f"_base_ = {bases}\nsection0 = dict(key1=dict(sizes=[{i}]))\n" for i in range(100)})
    begin = time.process_time()
    for i in range(100):
        assert load_config(f"leaf{i}.py").values["section0"]["key1"]["sizes"] == [i]
    assert (time.process_time() - begin) / 100 < 0.010


def test_json_numbers_and_python_numbers_agree(folder):
    values = load({"a.json": json.dumps({"x": [1e-8, math.inf, -0.0, 10**30, True, None]})}, "a.json")
    assert same(values, load({"a.py": "x = [1e-8, float('inf'), -0.0, 10**30, True, None]"}))
