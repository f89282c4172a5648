"""Every config that cannot be read ends in one clear message, never in a traceback."""

from pathlib import Path

import pytest

from visreg.config import load_config
from visreg.errors import ConfigError


def refusal(name):
    with pytest.raises(ConfigError) as caught:
        load_config(name)
    assert caught.value.problems
    return str(caught.value)


CASES = {
    "syntax": ({"a.py": "x = 1\ny = (\n"}, "a.py:2: not Python: '(' was never closed"),
    "null": ({"a.py": "x = 'a'\0"}, "a.py: *not Python: source code string cannot contain null bytes"),
    "raises": ({"a.py": "def f():\n    return nothing\nx = f()"}, "a.py:2: NameError: name 'nothing' is not defined"),
    "exits": ({"a.py": "import sys\nsys.exit('no')"}, "a.py:2: SystemExit: no"),
    "recursion": ({"a.py": "def f(): return f()\nx = f()"}, "a.py:1: RecursionError: "),
    "import": ({"a.py": "import no_such_module"}, "a.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
    "lazy": (
        {"a.py": "from mmengine.config import read_base"},
        "a.py:1: _base_: not inherited by read_base(), which is not supported; list the base files in _base_ = [...]",
    ),
    "twice": (
        {"a.py": "m = dict(h=[{'a': 1,\n'b': 2,\n'a': 3}])"},
        "a.py:3: m.h[0].a: given twice; the first, on line 1",
    ),
    "twice called": ({"a.py": "m = dict(a=1, a=2)"}, "a.py:1: not Python: keyword argument repeated: a"),
    "base missing": (
        {"a.py": "\n_base_ = 'bbse.py'", "base.py": ""},
        "a.py:2: no such config file: 'bbse.py'; did you mean 'base.py'?",
    ),
    "base of base": ({"a.py": "_base_ = 'b.py'", "b.py": "_base_ = 'c.py'"}, "b.py:1: no such config file: 'c.py'"),
    "itself": ({"a.py": "_base_ = 'a.py'"}, "a.py:1: _base_: the files inherit in a circle, a.py -> a.py; break it"),
    "circle": (
        {"a.py": "_base_ = 'b.py'", "b.py": "_base_ = 'c.json'", "c.json": '{\n"_base_": "a.py"}'},
        "c.json:2: _base_: the files inherit in a circle, a.py -> b.py -> c.json -> a.py; break it",
    ),
    "too many": (
        {"a.py": "_base_ = 'b0.py'"} | {f"b{i}.py": f"_base_ = 'b{i + 1}.py'" for i in range(99)},
        "b48.py:1: _base_: more than 50 files inherit",
    ),
    "base not a name": ({"a.py": "_base_ = [3]"}, "a.py:1: _base_: expected a file name or a list of them, got [3]"),
    "base computed": (
        {"a.py": "import os\n_base_ = os.name"},
        "a.py:2: _base_: NameError: name 'os' is not defined; write plain",
    ),
    "base in if": ({"a.py": "if True:\n    _base_ = 'b.py'"}, "a.py:2: _base_: set it once, unconditionally"),
    "base in yaml": (
        {"a.py": "_base_ = 'b.yml'", "b.yml": ""},
        "a.py:1: 'b.yml' is YAML, which visreg does not read; convert",
    ),
    "no package": ({"a.py": "_base_ = 'no_pkg::b.py'"}, "a.py:1: _base_: 'no_pkg::b.py' needs the package 'no_pkg'"),
    "two bases": (
        {"a.py": "_base_ = ['b.py', 'c.py']", "b.py": "x = 1\ny = 1", "c.py": "\n\nx = 2\ny = 2"},
        "a.py:1: x: set by two base files, b.py:1 and c.py:3; remove one of the two\na.py:1: y: set by two",
    ),
    "dict over list": (
        {"a.py": "_base_ = 'b.py'\nm = dict(\n  h=dict(a=1))", "b.py": "m = dict(h=[1])"},
        "a.py:3: m.h: a dict here, but not in b.py:1, so they cannot be merged; add _delete_=True to replace it",
    ),
    "no base value": (
        {"a.py": "_base_ = 'b.py'\nx = [\n  {{_base_.m.typ}}]", "b.py": "m = dict(type=1)"},
        "a.py:3: AttributeError: the base files set no 'typ' here; did you mean 'type'?",
    ),
    "not plain": (
        {"a.py": "import os\nm = dict(\n  type=os.PathLike,\n  f=[len,\n    {1}],\n  big=1<<5000)\nk={frozenset(): 1}"},
        "a.py:3: m.type: the class 'PathLike' is not plain data; write the name of a registered component\n"
        "a.py:4: m.f[0]: the function 'len' is not plain data; write the name of a registered component\n"
        "a.py:5: m.f[1]: a set is not plain data, since it has no order; write a list\n"
        "a.py:6: m.big: an integer of 5001 bits is too large; write at most 4096\n"
        "a.py:7: k: the key frozenset() is not plain data; write a string or a number",
    ),
    "deep": ({"a.py": "x = " + "[" * 100_000}, "a.py:1: not Python: too many nested parentheses"),
    "deeper than allowed": (
        {"a.py": "x = " + "[" * 90 + "]" * 90},
        "a.py:1: x[0][0]: nested more than 80 deep; flatten it",
    ),
    "deep when run": (
        {"a.py": "x = []\nfor _i in range(5000): x = [x]"},
        "a.py: nested too deeply to read; flatten it",
    ),
    "contains itself": ({"a.py": "x = []\nx += [x, x]"}, "a.py: nested too deeply to read; flatten it"),
    "long sum": ({"a.py": "x = 1" + " + 1" * 9000}, "a.py: "),
    "json": ({"a.json": '{"a": 1,\n "b": }'}, "a.json:2: not JSON: Expecting value at column 7"),
    "json list": ({"a.json": "[1]"}, "a.json: expected a JSON object, got a list; write {...}"),
    "json twice": (
        {"a.json": '{"m": [{"a": 1,\n"a": 2}]}'},
        "a.json:2: m[0].a: given twice; the first, on line 1, is lost",
    ),
    "json deep": ({"a.json": "[" * 100_000}, "a.json: nested too deeply to read; flatten it"),
    "json long": ({"a.json": '{"a": ' + "9" * 5000 + "}"}, "a.json: cannot be read: Exceeds the limit (4300 digits)"),
    "json reference": ({"a.json": '{\n"x": {{ _base_.k }}}'}, "a.json:2: _base_: the base files set no 'k'"),
    "yaml": ({"a.yaml": ""}, "'a.yaml' is YAML, which visreg does not read; convert it to .py or .json"),
    "text": ({"a.txt": ""}, "'a.txt' is not a config; give a file that ends in .py or .json"),
}


@pytest.mark.parametrize("case", CASES)
def test_message(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, expected = CASES[case]
    for name, text in files.items():
        Path(name).write_text(text)
    message = refusal(next(iter(files)))
    begin, _, end = expected.rpartition("*")
    assert message.startswith(begin or end)
    assert end in message


def test_a_missing_file_names_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cnn_mnist.py").write_text("")
    assert refusal("cnn_minst.py") == "no such config file: 'cnn_minst.py'; did you mean 'cnn_mnist.py'?"
    assert refusal("zzz.json") == "no such config file: 'zzz.json'; choose from cnn_mnist.py"
    assert refusal("configs/x.py") == "no such config file: 'configs/x.py'; there is no folder 'configs'"


def test_what_is_no_readable_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.py").mkdir()
    Path("latin.py").write_bytes(b"x = '\xff'")
    assert refusal("folder.py") == "cannot read the config 'folder.py': Is a directory; give a readable file"
    assert refusal("latin.py") == "'latin.py' is not UTF-8 text (byte 5); save it as UTF-8"
    assert "is not a config" in refusal(".")
    assert refusal("\0.py").startswith("cannot read the config")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "a.py").write_bytes("\ufeffx = 1\r\ny = 2\r\n".encode())
    assert load_config(tmp_path / "a.py").values == {"x": 1, "y": 2}


def test_the_exception_of_the_config_is_kept_as_the_cause(tmp_path):
    (tmp_path / "a.py").write_text("x = 1 / 0")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.py")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.exit_code == 2
