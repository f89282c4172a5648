"""Configs written as JSON and Python and read back."""

import json
import keyword
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visreg.config import dump, dumps_json, dumps_python, load_config, loads_json
from visreg.errors import ConfigError, ResourceError

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False) | st.tuples(st.text())
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys.filter(lambda key: key != "_delete_"), inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "lr", "__tuple__", "__items__", "if", "a b", "0"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)
names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and name not in ("dict", "float")
)
strange = st.sampled_from(
    [
        "{{ fileBasename }}",
        "{{{$HOME:}}}",
        "{{_base_.x}}",
        "\\{{",
        "a'b\"c",
        "\n\t\0",
        "\ud800",
        "{" * 7,
        "'",
        '"',
        "\\",
        "\r",
    ]
)
configs = st.dictionaries(names, plain | strange | st.lists(strange), max_size=5)


def same(one, other):
    """Compare values with their types, signs of zero and NaN included."""
    return repr(one) == repr(other)


@given(st.dictionaries(st.text(), plain))
def test_json_gives_back_values_and_types(values):
    assert same(loads_json(dumps_json(values)), values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(configs)
def test_files_give_back_values_and_types(tmp_path, values):
    for name in ("config.py", "config.json"):
        dump(values, tmp_path / name)
        assert same(load_config(tmp_path / name).values, values)


def test_a_file_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ResourceError, match="cannot write the config: No such file or directory"):
        dump({}, tmp_path / "absent" / "config.json")


def test_python_is_laid_out_for_reading():
    values = {
        "model": {"type": "ConvNet", "width": 16, "size": (28,), "path": 'say "hi"', "it's": 1},
        "optimizer": {
            "type": "SGD",
            "lr": -0.0,
            "betas": (0.9, 0.999),
            "name": "it's",
            "max": math.inf,
            "min": math.nan,
            "groups": [{"norm": {"weight_decay": 0}}],
        },
        "hooks": [
            {"type": "EarlyStopping", "monitor": "val/accuracy", "patience": 3, "mode": "max", "warm": [1] * 10},
            {"type": "Checkpoint", "keep_last": 2, "monitor": "val/accuracy"},
        ],
        "empty": [{}, [], (), ""],
    }
    text = """\
model = {"type": "ConvNet", "width": 16, "size": (28,), "path": 'say "hi"', "it's": 1}
optimizer = dict(
    type="SGD",
    lr=-0.0,
    betas=(0.9, 0.999),
    name="it's",
    max=float("inf"),
    min=float("nan"),
    groups=[dict(norm=dict(weight_decay=0))],
)
hooks = [
    dict(type="EarlyStopping", monitor="val/accuracy", patience=3, mode="max", warm=[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    dict(type="Checkpoint", keep_last=2, monitor="val/accuracy"),
]
empty = [dict(), [], (), ""]
"""
    assert dumps_python(values) == text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ["a b", "if", "_x", "dict", "float", "é", "", 3, "_base_"])
def test_a_name_that_a_file_cannot_set_is_refused(name):
    with pytest.raises(ConfigError, match="not a name that a config file can set; rename it"):
        dumps_python({name: 1})


def test_what_would_not_be_read_as_data_is_refused():
    with pytest.raises(ConfigError, match="_delete_"):
        dumps_python({"x": [{"_delete_": True}]})
    for write in (dumps_json, dumps_python):
        with pytest.raises(ConfigError, match=r"x\[0\]: a set is not plain data"):
            write({"x": [{1}]})
    with pytest.raises(ConfigError, match=r"end it in \.py or \.json"):
        dump({}, "config.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ("[]", "expected a JSON object, got a list; write {...}"),
        ('{"__tuple__": []}', "expected a JSON object, got a tuple; write {...}"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' is given twice; remove one"),
        ("[" * 100_000, "nested too deeply to read; flatten it"),
        ('{"a":' * 100 + "1" + "}" * 100, "a.a.a: nested more than 80 deep; flatten it"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read: Exceeds the limit (4300 digits)"),
    ],
)
def test_json_that_is_no_config_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        loads_json(text)
    assert str(caught.value).startswith(message)


def test_json_that_only_looks_encoded_is_left_as_it_is():
    values = {
        "a": {"__tuple__": 1},
        "b": {"__items__": [[1]]},
        "c": {"__items__": [[[1], 2]]},
        "d": {"__tuple__": [], "e": 1},
    }
    assert loads_json(json.dumps(values)) == values
