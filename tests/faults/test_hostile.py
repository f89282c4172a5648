"""Hostile files and overrides: nothing in them is executed, and they bring nothing down."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import tiny_config, tiny_runner

from visreg.build import build_runner
from visreg.checkpoint import load, save
from visreg.config import apply_overrides, config_from
from visreg.config.plain import plain
from visreg.errors import CheckpointError, ConfigError
from visreg.hooks.checkpoint import Checkpoint
from visreg.hooks.metrics_log import MetricsLog
from visreg.whole_file import whole_file, write_whole

SECONDS, MEMORY = 5, 200 << 20  # beyond what torch takes
LONGEST = 1 << 20  # characters of what is printed, as every mistake is
MISTAKES = {2, 4, 8}


QUICK = {"pickles": 6, "states": 30, "embedded": 15, "configs": 8}  # one in so many


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """What came of some files of every kind."""
    return results(tmp_path_factory.mktemp("hostile"), QUICK)


@pytest.fixture(params=["some", pytest.param("all", marks=pytest.mark.slow)])
def found(request, tmp_path):
    """Return a function that gives what came of the files of a kind."""
    if request.param == "all":
        return lambda kind: results(tmp_path, {kind: 1})
    return lambda kind: [result for result in request.getfixturevalue("some") if result["kind"] == kind]


def results(folder: Path, kinds: dict[str, int]) -> list[dict]:
    """Return what came of every file of some kinds, but of the first of each, which is not hostile."""
    command = [sys.executable, str(Path(__file__).with_name("hostile_run.py")), str(folder), json.dumps(kinds)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests")))}
    with (folder / "results").open("w") as file:
        subprocess.run(command, stdout=file, check=True, timeout=1200, env=environment)
    found = [json.loads(line) for line in (folder / "results").read_text().splitlines() if line.startswith('{"kind"')]
    harmless = [result for result in found if result["name"] == "nothing hostile"]
    assert {result["kind"] for result in harmless} == {*kinds}
    assert all(result["code"] == 0 and not result["events"] for result in harmless), harmless
    return [result for result in found if result["name"] != "nothing hostile"]


def faults(result: dict, right: set[int]) -> list[str]:
    """Return what is wrong with how visreg took a file."""
    if "died" in result:
        return [f"died of {result['died']}"]
    checks = {
        "executed": result["executed"],
        f"did {result['events']}": result["events"],
        f"raised {result['trace']}": result["trace"],
        f"ended with {result['code']}: {result['printed']}": not result["trace"] and result["code"] not in right,
        f"took {result['seconds']} s": result["seconds"] > SECONDS,
        f"took {result['memory'] >> 20} MiB": result["memory"] > MEMORY,
        f"said {result['length']} characters": result["length"] > LONGEST,
    }
    return [f"{result['name']}, {result['way']}: {text}" for text, is_wrong in checks.items() if is_wrong]


def check(found: list[dict], survived, what: str, right) -> None:
    wrong = [fault for result in found for fault in faults(result, right(result))]
    print("\n".join(wrong))
    survived(f"{what} (nothing executed)", sum(not result.get("executed") for result in found), len(found))
    bad = {fault.partition(": ")[0] for fault in wrong}
    survived(f"{what} (one message, bounded time and memory)", len(found) - len(bad), len(found))


def test_a_hostile_file_is_not_a_checkpoint(found, survived):
    # What `load` finds to be plain data is still no checkpoint of a run.
    every = found("pickles")
    check(every, survived, "hostile checkpoints", lambda result: {0, 4} if result["way"] == "load" else {4})
    assert sum(result["code"] == 0 for result in every) < len(every) / 10


def test_a_state_that_is_none_is_refused(found, survived):
    # What is not used, or is as good as another value, does no harm.
    check(found("states"), survived, "malformed states", lambda result: {0, 4})


def test_the_config_of_a_checkpoint_does_not_act(found, survived):
    check(found("embedded"), survived, "hostile embedded configs", _embedded)


def test_a_json_config_does_not_act(found, survived):
    check(found("configs"), survived, "hostile JSON configs", lambda result: _codes(result, 4))


def _embedded(result: dict) -> set[int]:
    """Return the right codes: a run that goes on has a config of its own, and tells what differs."""
    return {0, *MISTAKES} if result.get("way") == "resume" else _codes(result)


def _codes(result: dict, *others: int) -> set[int]:
    harmless = result["name"].startswith(("section _", "a large integer"))  # left out, and as good as another
    return {0, *MISTAKES, *others} if harmless else {*MISTAKES, *others}


CONFIG = config_from(tiny_config())
HOSTILE = (
    "lambda: 0", "[x for x in ().__class__.__base__.__subclasses__()]", "__import__('os').system('touch executed')",
    "dict(a=open('executed', 'w'))", "{**{}}", "f'{open}'", "(yield)", "await x", "print(1)", "a if b else c", "x := 1",
    "[" * 1000, "[" * 100_000, "(" * 50 + ")" * 50, "{'a':" * 300 + "1" + "}" * 300, "9" * 1_000_000,
    "-" * 100_000 + "1",
    "1" + "+1" * 10_000, "10**10**10", "1e999", "nan", "'" * 7, "\0", "\ud800", "\\", "#", "\n\n1", "  1", "\x0c1",
    "None",
    "0x" + "f" * 100_000, "1_000", "...", "b'x'", "{1, 2}", "{[]: 1}", "{{$HOME}}", "{{ fileDirname }}",
    "{{_base_.x}}", "1j",
    '"""', "'a' 'b'", "dict(**dict(a=1))", "dict(dict=dict)", "\N{FULLWIDTH DIGIT ONE}", "x" * 1_000_000, "True" * 9,
)  # fmt: skip
KEYS = (
    "", ".", "a.b.c", "__class__", "optimizer.__class__", "optimizer.lr.__init__", "__builtins__", "optimizer..lr",
    "model",
    "optimizer.lr", "hooks[0]", "hooks.0.x", "default_hooks.-1", "model.widths[0]", "model.widths." + "9" * 1000,
    "run[epochs]",
    "optimizer['lr']", "optimizer[\"lr\"]", "optimizer['\\x00']", "optimizer['\\N{DIGIT ONE}']", "optimizer['\\",
    "[0]", "a" * 10_000,
    "model" + ".type" * 10_000, "run." + "[0]" * 10_000, "\N{FULLWIDTH LATIN SMALL LETTER A}", " optimizer.lr ",
    "optimizer.lr.real",
)  # fmt: skip


def override(text: str) -> bool:
    """Return whether an override is accepted; what it sets is then plain data, and all else is as it was."""
    try:
        made = apply_overrides(CONFIG, [text])
    except ConfigError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert len(refused.problems) == 1
        assert len(str(refused)) < 10_000
        return False
    assert plain(made.values) == made.values or "nan" in text
    return True


_EVENTS: list[str] = []
_WATCHING: list[bool] = []


def _note(event, arguments):
    if _WATCHING and (event in ("exec", "os.system", "subprocess.Popen", "import") or event.startswith("socket.")):
        _EVENTS.append(f"{event} {str(arguments)[:200]}")


@contextlib.contextmanager
def nothing_executed():
    """Assert that this process meanwhile executes nothing that it has not imported."""
    sys.addaudithook(_note)  # it stays, and does nothing
    _WATCHING.append(True)
    try:
        yield
    finally:
        _WATCHING.clear()
        found = [*_EVENTS]
        _EVENTS.clear()
    assert not found


def test_hostile_overrides_are_refused_or_plain(apart, survived):
    override("model.type=x.y")  # so that all is imported
    texts = [f"{key}={value}" for key in ("optimizer.lr", "model.type", "plugins") for value in HOSTILE]
    texts += [f"{key}={value}" for key in KEYS for value in ("1", "__import__('os')", "[dict(type='os.system')]")]
    texts += [*KEYS, *HOSTILE]
    with nothing_executed():
        for text in texts:
            override(text)
    assert not Path("executed").exists()
    survived("hostile overrides", len(texts), len(texts))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(st.sampled_from([key for key in KEYS if len(key) < 1000]), st.text(max_size=20)),
    st.one_of(
        st.text(),
        st.integers().map(str),
        st.recursive(
            st.sampled_from(["1", "'a'", "None", "x", "f()", "lambda: 0", "{}", "()"]),
            lambda inner: st.one_of(
                st.lists(inner).map(lambda items: f"[{', '.join(items)}]"),
                inner.map(lambda item: f"dict(type={item})"),
                inner.map(lambda item: f"({item})"),
                inner.map(lambda item: f"[y for y in {item}]"),
            ),
        ),
    ),
)
@example("optimizer.lr", "\r1")
def test_any_override_is_refused_or_plain(key, value):
    override(f"{key}={value}")
    override(key)


def test_names_in_the_data_and_config_lead_nowhere(apart, survived):
    evil = ("../../escaped", "/tmp/escaped", "..", "a\0b", "a/../../b", "x" * 300, "~/escaped", "C:\\escaped", "\n")
    inside = Path("work")
    before = set(Path.cwd().iterdir())
    for name in evil:
        hooks = [MetricsLog(every=1), Checkpoint(every=1, best="accuracy")]
        runner = tiny_runner(inside, hooks, epochs=1)
        for loader in (runner.train_loader, runner.val_loader):
            loader.info = type(loader.info)(name=name, classes=(name, "b", "c"))
        runner.train()
        assert load(inside / "checkpoints" / "best.pt")["classes"][0] == name
        names = {path.name.partition(".")[0] for path in inside.rglob("*")}
        assert all(known.startswith(("step_", "best", "checkpoints", "metrics")) for known in names), names
        assert set(Path.cwd().iterdir()) == before | {Path.cwd() / inside}
    survived("names that lead outside", len(evil), len(evil))


def test_files_are_not_for_everyone_to_change(apart):
    mask = os.umask(0)
    try:
        runner = build_runner(tiny_config(hooks=[{"type": "Checkpoint", "best": "accuracy"}], run={"work_dir": "work"}))
        runner.train()
    finally:
        os.umask(mask)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in Path("work").rglob("*.pt")}
    assert len(found) >= 2
    assert set(found.values()) == {0o640}


def test_a_link_at_the_name_of_a_checkpoint_is_replaced_and_not_followed(tmp_path):
    secret, path = tmp_path / "secret", tmp_path / "step_00000001.pt"
    secret.write_text("mine")
    for target in (secret, tmp_path / "not there", tmp_path):
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        other = tmp_path / "best.pt"
        other.unlink(missing_ok=True)
        other.symlink_to(target)
        save({"visreg": "0", "x": torch.ones(2)}, path, other)
        assert not path.is_symlink()
        assert not other.is_symlink()
        assert load(path)["x"].sum() == load(other)["x"].sum() == 2
        assert not (tmp_path / "not there").exists()
    assert secret.read_text() == "mine"


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("visreg.whole_file.os.urandom", lambda size: b"g" * size)
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / ".visreg-6767676767676767.tmp").symlink_to(secret)
    with pytest.raises(FileExistsError), whole_file(tmp_path / "a"):
        pass
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"x")
    assert secret.read_text() == "mine"
    assert not (tmp_path / "a").exists()


def test_temporary_names_cannot_be_foreseen(tmp_path):
    names = set()
    for _ in range(20):
        with whole_file(tmp_path / "a"):
            names |= {path.name for path in tmp_path.glob(".visreg-*")}
    assert len(names) == 20
    assert all(len(name) >= 16 for name in names)


def test_one_loads_what_a_link_leads_to_and_is_told_of_what_it_is(tmp_path):
    save({"visreg": "0"}, tmp_path / "a.pt")
    (tmp_path / "step_00000001.pt").symlink_to(tmp_path / "a.pt")
    assert load(tmp_path / "step_00000001.pt") == {"visreg": "0"}
    (tmp_path / "step_00000002.pt").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="not a visreg checkpoint"):
        load(tmp_path / "step_00000002.pt")
