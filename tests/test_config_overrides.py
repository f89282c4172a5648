"""Overrides from the command line."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visreg.config import apply_overrides, config_from, parse_path, show_path
from visreg.errors import ConfigError

VALUES = {
    "optimizer": {"type": "SGD", "lr": 0.1},
    "hooks": [{"type": "A", "patience": 1}, {"type": "B"}],
    "size": (28, (1, 2)),
    "names": {0: "a", "1": "b", "x.y": {"z": 1}},
    "empty": [],
}


def override(*texts):
    return apply_overrides(config_from(VALUES), texts).values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("=0.01", 0.01),
        ("=1e-3", 0.001),
        ("=-3", -3),
        ("=3", 3),
        ("=True", True),
        ("=None", None),
        ("= 3", 3),
        ("='3'", "3"),
        ('="a b"', "a b"),
        ("=", ""),
        ("=a", "a"),
        ("=a=b", "a=b"),
        ("= a  b ", " a  b "),
        ("=true", "true"),
        ("=(1, 2)", (1, 2)),
        ("=1,2", (1, 2)),
        ("=(1,)", (1,)),
        ("=[1, (2, [])]", [1, (2, [])]),
        ("=()", ()),
        ('={"type": "resnet18", 3: {}}', {"type": "resnet18", 3: {}}),
        ("={'_delete_': True, 'a': [{'_delete_': 1}]}", {"a": [{}]}),
        ("=#3", "#3"),
        ("=3 # 4", "3 # 4"),
        ("='a#b'", "a#b"),
        ("=3)#", "3)#"),
        ("=1e999", float("inf")),
        ("=ünïcode ✓", "ünïcode ✓"),
        ("=__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("={{fileBasename}}", "{{fileBasename}}"),
        ("=[dict(type='EMA', decay=-0.9), dict()]", [{"type": "EMA", "decay": -0.9}, {}]),
        ("=dict(a=open('x'))", "dict(a=open('x'))"),
        ("=dict(**{})", "dict(**{})"),
        ("=[1,", "[1,"),
        ("=a\0b", "a\0b"),
        ("=\ud800", "\ud800"),
        ("=C:\\new", "C:\\new"),
    ],
)
def test_a_value_is_a_literal_or_a_string(text, value):
    assert repr(override(f"optimizer.lr{text}")["optimizer"]["lr"]) == repr(value)


def test_paths():
    assert override("hooks.0.patience=3", "hooks[-1].type=C")["hooks"] == [{"type": "A", "patience": 3}, {"type": "C"}]
    assert override("size.0=5", "size.-1.-2=7")["size"] == (5, (7, 2))
    assert override("names.0=x", "names.1=y", "names['x.y'].z=3")["names"] == {0: "x", "1": "y", "x.y": {"z": 3}}
    assert override("names['a=b']=1")["names"]["a=b"] == 1
    assert override("optimizer.weight_decay=1e-4", "run={}", "run.work_dir=my first")["run"] == {"work_dir": "my first"}
    assert override("hooks=[]")["hooks"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser.lr=1", "optimiser: no such key; did you mean 'optimizer'?"),
        ("optimizer.lrr.x=1", "optimizer.lrr: no such key; did you mean 'optimizer.lr'?"),
        ("run.epochs=1", "run: no such key; choose from empty, hooks, names, optimizer, size"),
        ("optimizer.lr.x=1", "optimizer.lr.x: optimizer.lr is 0.1, which has no keys"),
        ("optimizer.__class__.x=1", "optimizer.__class__: no such key; choose from lr, type"),
        ("hooks.2.type=1", "hooks[2]: no such index; hooks has 0 to 1"),
        ("hooks.2=1", "hooks[2]: no such index; hooks has 0 to 1"),
        ("hooks.-3=1", "hooks[-3]: no such index; hooks has 0 to 1"),
        ("hooks.last=1", "hooks.last: no such index; hooks has 0 to 1"),
        ("empty.0=1", "empty[0]: no such index; empty has none, since it is empty"),
        ("_base_=a.py", "_base_: a name that begins with _ is not part of a config"),
        ("optimizer", "expected KEY=VALUE, such as optimizer.lr=0.01"),
        ("=3", "expected KEY=VALUE, such as optimizer.lr=0.01"),
        ("optimizer..lr=3", "expected KEY=VALUE, such as optimizer.lr=0.01"),
        (".lr=3", "expected KEY=VALUE, such as optimizer.lr=0.01"),
        ("two words=3", "expected KEY=VALUE, such as optimizer.lr=0.01"),
        ("", "expected KEY=VALUE, such as optimizer.lr=0.01"),
        ("size={1, 2}", "a set is not plain data, since it has no order; write a list"),
        ("size=b''", "a value of type bytes is not plain data; write a dict"),
        ("size=1j", "a value of type complex is not plain data; write a dict"),
        ("size=" + "9" * 5000, "the value cannot be read: Exceeds the limit (4300 digits)"),
        ("size=0x" + "f" * 5000, "an integer of 20000 bits is too large"),
        ("size=" + "[" * 100_000, "the value cannot be read: too many nested"),
        ("size=" + "-" * 100_000 + "1", "the value is nested too deeply to read; flatten it"),
        ("size=" + "[" * 90 + "]" * 90, "nested more than 80 deep; flatten it"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        override(text)
    shown = text if len(text) <= 100 else f"{text[:97]}..."
    assert str(caught.value).startswith(f"--set {shown}: ")
    assert message in str(caught.value)


def test_every_mistake_is_listed():
    with pytest.raises(ConfigError) as caught:
        override("a.b=1", "optimizer.lr=1", "c.d=2")
    assert len(caught.value.problems) == 2


def test_the_config_itself_stays_as_it_is():
    config = config_from(VALUES)
    changed = apply_overrides(config, ["optimizer.lr=3", "size.0=1"])
    changed.values["hooks"][0]["type"] = "changed"
    assert config.values == VALUES
    assert str(changed.where(("optimizer", "lr"))) == "--set optimizer.lr=3"
    assert str(config.where(("optimizer", "lr"))) == "<dict>"


def test_a_negative_index_is_the_same_place():
    config = apply_overrides(config_from(VALUES), ["hooks.-1.type=C"])
    assert str(config.where(("hooks", 1, "type"))) == "--set hooks.-1.type=C"


@given(st.lists(st.text() | st.integers(-(10**8), 10**8), min_size=1).map(tuple))
def test_a_shown_path_can_be_read_back(path):
    assert parse_path(show_path(path)) == path


@given(st.text())
def test_any_text_is_applied_or_refused(text):
    with contextlib.suppress(ConfigError):
        override(text)


@given(st.text(st.characters(codec="utf-8")))
def test_a_quoted_string_is_kept_exactly(text):
    assert override(f"optimizer.lr={text!r}")["optimizer"]["lr"] == text
