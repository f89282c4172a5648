"""What the README says is so: its configs are right, its snippets run, its tables are complete."""

import re

import pytest

from tests.conftest import ROOT
from visreg.check import check_config
from visreg.cli import main
from visreg.config import load_config
from visreg.registry import KINDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def snippet(word):
    """Return the one Python block that contains ``word``, with paths into the repository made absolute."""
    (found,) = [text for text in SNIPPETS if word in text]
    return re.sub(r'"(?:configs/)?(cnn_mnist|yolo_shapes)\.py"', rf'"{ROOT / "configs"}/\1.py"', found)


def test_shows_the_config_as_it_is():
    assert (ROOT / "configs" / "cnn_mnist.py").read_text(encoding="utf-8") in SNIPPETS


def test_example_of_inheritance_is_right(tmp_path):
    (tmp_path / "config.py").write_text(snippet("torchvision's own name"), encoding="utf-8")
    check_config(load_config(tmp_path / "config.py"))


def test_own_model_and_hook_train(tmp_path, capsys):
    (tmp_path / "my_model.py").write_text(snippet("class TinyNet") + snippet("class StopAtAccuracy"), encoding="utf-8")
    more = """
hooks = [dict(type="StopAtAccuracy", target=0.2)]
train = dict(dataset=dict(_delete_=True, type="Digits", train=True))
val = dict(dataset=dict(_delete_=True, type="Digits", train=False))
"""
    (tmp_path / "my_config.py").write_text(snippet("# my_config.py") + more, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["train", str(tmp_path / "my_config.py"), "--work-dir", str(tmp_path / "work")])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "epoch 1/10" in out
    assert "epoch 10/10" not in out


def test_own_detector_and_metric_train(tmp_path, capsys):
    pytest.importorskip("faster_coco_eval")
    (tmp_path / "my_detector.py").write_text(snippet("class GridDetector"), encoding="utf-8")
    more = """
train = dict(dataset=dict(size=64))
val = dict(dataset=dict(size=10))
schedule = dict(warmup_steps=1)
run = dict(epochs=None, steps=2)
"""
    (tmp_path / "my_config.py").write_text(snippet("# my_detector_config.py") + more, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["train", str(tmp_path / "my_config.py"), "--work-dir", str(tmp_path / "work")])
    assert caught.value.code == 0
    assert re.search(r"step 2/2  class \S+  box \S+  val on ShapeScenes mAP .* count_error \d", capsys.readouterr().out)


def test_python_interface_is_as_shown(tmp_path):
    namespace = {}
    code = snippet("from visreg import build_runner")
    small = (
        '["run.epochs=1", "run.work_dir=%s", \'train.dataset={"type": "Digits"}\', \'val.dataset={"type": "Digits"}\']'
    )
    exec(code.replace('["run.epochs=1"]', small % (tmp_path / "work")), namespace)  # the README's own code
    assert 0 <= namespace["runner"].scores["accuracy"] <= 1


def test_mistakes_are_reported_as_shown(tmp_path, capsys, monkeypatch):
    shown = re.search(r"\$ visreg check my_config.py\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_config.py").write_text(
        f"_base_ = {str(ROOT / 'configs' / 'cnn_mnist.py')!r}\n\n\n\n"
        "model = dict(num_clases=10)\n\n\n"
        "optimizer = dict(lr=-0.1)\n"
        "hooks = [dict(type='EarlyStopping', monitor='acc')]\n"
    )
    with pytest.raises(SystemExit):
        main(["check", "my_config.py"])
    assert capsys.readouterr().err == shown[1]


@pytest.mark.parametrize("name", ["loop", "mnist"])
def test_benchmarks_find_the_places_of_their_tables(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "benchmarks"))
    import results

    begin, end = results.markers(name)
    assert name in results.TABLES
    assert README.count(begin) == README.count(end) == 1
    assert README.index(begin) < README.index(end)
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    monkeypatch.setattr(results, "README", copy)
    for _ in range(2):  # the second time it replaces what the first wrote
        results.show(name, ["", "time"], [["visreg", "1 (1 to 1)"]], ["On a machine."])
    text = copy.read_text(encoding="utf-8")
    assert text.count("| visreg | 1 (1 to 1) |") == 1
    assert text.partition(begin)[0] == README.partition(begin)[0]
    assert text.partition(end)[2] == README.partition(end)[2]


@pytest.mark.parametrize("kind", KINDS)
def test_table_of_what_is_registered_is_complete(kind):
    row = re.search(rf"^\| {kind} \| (.*?) ?\| (.*?) ?\|$", README, re.MULTILINE)
    assert row is not None
    registry = KINDS[kind]
    own = [name for name in registry if registry.find(name).source == "own"]
    assert row[1].split() == own
    adopted = [name for name in registry if registry.find(name).source == "adopted"]
    assert bool(row[2]) == bool(adopted)
