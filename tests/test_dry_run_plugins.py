"""A mistake in the code of a plugin or a user's file, found by the check: where it is in that file, too."""

import pytest

from tests.test_cli import run

PLUGIN = """
import torch
from torch import nn
from visreg import LOSSES, METRICS, MODELS, Metric


@MODELS.register
class Mine(nn.Module):
    def __init__(self, how: str = "right", width: int = 784) -> None:
        super().__init__()
        self.how, self.linear = how, nn.Linear(width, 10)
        if how == "built wrong":
            self.liner.weight
        if how == "ends":
            raise SystemExit(3)
        if how == "frozen":
            self.requires_grad_(False)

    def forward(self, image):
        if self.how == "misnamed":
            return self.liner(image.flatten(1))
        return self.linear(image.flatten(1))


@LOSSES.register
class Distance(nn.Module):
    def forward(self, output, target):
        return (output - undefined(target)).mean()


@METRICS.register
class Share(Metric):
    def names(self): return ("share",)
    def reset(self): ...
    def update(self, predictions, batch): predictions["lables"]
    def compute(self): return {"share": 0.0}


@METRICS.register
class Misnamed(Share):
    def names(self): return ("one", "two")
    def update(self, predictions, batch): ...
    def compute(self): return {"one": 1.0, "three": 3.0}


@MODELS.register
class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))

    def forward(self, image):
        return self.body(image)
"""
CONFIG = """
plugins = ["./mine.py"]
task = dict(type="Classification")
model = dict(type="Mine")
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]
optimizer = dict(type="SGD", lr=0.1)
train = dict(dataset=dict(type="Digits"), batch_size=4)
val = dict(dataset=dict(type="Digits", train=False), batch_size=4)
run = dict(epochs=1)
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "config.py").write_text(CONFIG)
    return "config.py"


def test_a_right_one_passes(config):
    assert run("check", config) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # which is deprecated, and still in use
def test_a_model_may_have_parts_that_torchscript_has_compiled(config):
    assert run("check", config, "--set", "model.type='Scripted'") == 0


@pytest.mark.parametrize(
    ("change", "place", "line", "error"),
    [
        ("model.how='misnamed'", "model.how='misnamed': model: ", "self.liner(image", "AttributeError: 'Mine' object"),
        ("model.how='built wrong'", "model.how", "self.liner.weight", "AttributeError: 'Mine' object"),
        ('loss={"type": "Distance"}', "loss: cannot be computed", "undefined(target)", "NameError: name 'undefined'"),
    ],
)
def test_a_bug_of_a_plugin_gets_its_traceback(change, place, line, error, config, capsys):
    assert run("check", config, "--set", change) == 8
    told = capsys.readouterr().err
    assert place in told or place.rpartition("': ")[2] in told
    _, traceback = told.split("Traceback (most recent call last):")
    assert 'File "mine.py", line ' in traceback
    assert line in traceback
    assert error in traceback
    assert "visreg/" not in traceback
    assert "torch/nn" not in traceback


def test_a_constructor_that_ends_the_program_is_named(config, capsys):
    assert run("check", config, "--set", "model.how='ends'") == 2
    (told, _) = capsys.readouterr().err.splitlines()
    assert "model.how: it calls sys.exit(3) (at mine.py:15: raise SystemExit(3)), from Mine(how='ends')" in told


def test_a_model_with_nothing_to_train_is_to_blame_and_no_optimizer(config, capsys):
    assert run("check", config, "--set", "model.how='frozen'") == 2
    (told, _) = capsys.readouterr().err.splitlines()
    assert told.endswith("model: has no parameter to train")


def test_what_may_be_a_mistake_of_the_config_gets_one_line_with_the_place(config, capsys):
    assert run("check", config, "--set", "model.width=7", 'metrics=[{"type": "Share"}]') == 2
    (told, _) = capsys.readouterr().err.splitlines()
    assert "model: cannot take the images (1, 28, 28) of train: " in told
    assert "(at mine.py:22: return self.linear(image.flatten(1))); its in_features must be 784" in told
    assert run("check", config, "--set", 'metrics=[{"type": "Share"}]') == 2
    (told, _) = capsys.readouterr().err.splitlines()
    assert told.endswith(
        'metrics[0]: KeyError: lables (at mine.py:35: def update(self, predictions, batch): predictions["lables"])'
    )


def test_a_metric_must_give_the_scores_that_it_says(config, capsys):
    assert run("check", config, "--set", 'metrics=[{"type": "Misnamed"}]') == 2
    told = capsys.readouterr().err
    wanted = "Misnamed: names() says 'one', 'two' and compute() returns 'one', 'three'; they must be the same"
    assert f"metrics[0]: {wanted} (at mine.py:39)" in told
