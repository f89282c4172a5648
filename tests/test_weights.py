"""Weights to begin from: what is loaded, what is not, what is told of it, and when they are not needed."""

import logging
import os
from collections import OrderedDict

import pytest
import torch
from torch import nn

from tests.tiny import tiny_config
from visreg import MODELS
from visreg.build import build_evaluator, build_runner
from visreg.check import check_config
from visreg.checkpoint import load, save
from visreg.cli import main
from visreg.config import config_from, dumps_json
from visreg.errors import CheckpointError, ConfigError
from visreg.optimizers.groups import param_groups
from visreg.weights import InitialWeights, load_weights
from visreg.weights_file import Weights, read_weights


def network(outputs=3, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
    model.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    model.head = nn.Linear(4, outputs)
    for name, value in model.named_buffers():
        value.copy_(torch.rand(value.shape) * 9 if "running" in name else torch.tensor(5))
    return model


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one, other):
    return {name for name in one if torch.equal(one[name], other[name])}


def given(tensors, **options):
    return Weights("some.pt", tensors, **options)


# What is loaded


def test_weights_of_the_same_model_are_loaded_as_torch_does():
    model, reference, source = network(seed=1), network(seed=1), network()
    report = load_weights(model, given(source.state_dict()))
    reference.load_state_dict(source.state_dict(), strict=False)
    assert equal(state(model), state(reference)) == {*state(model)}
    assert report.whole
    assert str(report) == "16 of the model's 16 tensors begin as in some.pt"


def test_a_head_for_other_classes_keeps_its_initial_values():
    model, source = network(outputs=5, seed=1), network()
    before = state(model)
    report = load_weights(model, given(source.state_dict()))
    head = {"head.weight", "head.bias"}
    assert all(torch.equal(state(model)[name], before[name]) for name in head)
    assert all(torch.equal(state(model)[name], source.state_dict()[name]) for name in {*before} - head)
    assert report.reshaped == {"head.weight": ((3, 4), (5, 4)), "head.bias": ((3,), (5,))}
    assert not report.whole
    assert "begin anew, being of another shape there: head.weight (3, 4) → (5, 4)" in str(report)


def test_what_is_missing_and_what_is_left_over_is_told_by_module():
    source = network().state_dict()
    kept = {name: value for name, value in source.items() if not name.startswith("body")}
    model = network(seed=1)
    before = state(model)
    report = load_weights(model, given({**kept, "neck.0.weight": torch.zeros(2), "neck.0.bias": torch.zeros(2)}))
    assert report.missing == [name for name in before if name.startswith("body")]
    assert report.unused == ["neck.0.weight", "neck.0.bias"]
    assert "begin anew, not being there: body\n" in str(report)
    assert "there, and not of this model: neck" in str(report)
    assert all(torch.equal(state(model)[name], before[name]) for name in report.missing)


@pytest.mark.parametrize("prefix", ["module.", "model.", "task.model.", "_orig_mod.", "module._orig_mod.", "net.0."])
def test_prefixes_of_the_file_are_understood(prefix, tmp_path):
    source = network().state_dict()
    torch.save({f"{prefix}{name}": value for name, value in source.items()}, tmp_path / "w.pth")
    model = network(seed=1)
    report = load_weights(model, read_weights(tmp_path / "w.pth"))
    assert report.whole
    assert equal(state(model), source) == {*source}


def test_a_classifiers_weights_go_into_a_backbone_and_out_of_it():
    classifier, detector = network(), nn.Module()
    detector.backbone = nn.Module()
    detector.backbone.network = network(outputs=9, seed=1)
    detector.neck = nn.Conv2d(4, 4, 1)
    report = load_weights(detector, given(classifier.state_dict()))
    assert report.place == "backbone.network"
    assert {*report.missing} == {"neck.weight", "neck.bias"}
    assert torch.equal(detector.backbone.network.conv.weight, classifier.conv.weight)
    other = network(seed=2)
    load_weights(other, given(detector.state_dict()))
    assert torch.equal(other.body[0].weight, classifier.body[0].weight)


def test_half_precision_becomes_the_models():
    source = network().half().state_dict()
    model = network(seed=1)
    load_weights(model, given(source))
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, source["conv.weight"].float())


def test_lazy_layers_take_their_shape_from_the_weights():
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(6, 2))
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyLinear(2))
    report = load_weights(model, given(source.state_dict()))
    assert report.whole
    assert torch.equal(model[1].weight, source[1].weight)


def test_weights_of_another_model_are_refused_and_change_nothing():
    model = network()
    before = state(model)
    other = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).state_dict()
    with pytest.raises(CheckpointError, match=r"some\.pt: the weights of another model: 1 of its 4 tensors fit"):
        load_weights(model, given(other))
    assert equal(state(model), before) == {*before}


def test_a_few_names_that_fit_by_chance_are_not_enough():
    other = {f"layer{number}.weight": torch.zeros(2, number + 1) for number in range(30)}
    with pytest.raises(CheckpointError, match="another model: 1 of its 31"):
        load_weights(network(), given({**other, "head.bias": torch.zeros(3)}))


# What is read


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_of_all_kinds_are_read(wrap, zipped, tmp_path):
    source = network().state_dict()
    saved = {wrap: source, "epoch": 3, "optimizer": {"lr": 0.1}} if wrap else source
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert equal(source, read_weights(tmp_path / "w.pth").tensors) == {*source}


def test_an_average_is_preferred(tmp_path):
    source = network().state_dict()
    torch.save({"model": network(seed=1).state_dict(), "model_ema": source}, tmp_path / "w.pth")
    assert equal(source, read_weights(tmp_path / "w.pth").tensors) == {*source}


def test_safetensors_are_read(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    source = {name: value.contiguous() for name, value in network().state_dict().items()}
    save_file(source, tmp_path / "w.safetensors")
    assert equal(source, read_weights(tmp_path / "w.safetensors").tensors) == {*source}
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:99])
    with pytest.raises(CheckpointError, match="no weights, or damaged"):
        read_weights(tmp_path / "w.safetensors")


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(zipped, tmp_path):
    torch.save({"w": Hostile(str(tmp_path / "made"))}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w\.pth: no"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("length", [0, 3, 100, 3000])
def test_a_file_that_was_cut_short_is_named(length, tmp_path):
    torch.save(network().state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"w\.pth: no.* damaged|w\.pth: not made of .* or cut short"):
        read_weights(tmp_path / "w.pth")


def test_a_file_of_something_else_gets_no_advice_to_trust_it(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"neither weights nor anything else")
    with pytest.raises(
        CheckpointError, match=r"w\.pt: no weights, or damaged: it is neither what torch\.save wrote"
    ) as caught:
        read_weights(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("saved", [{}, [1, 2], {"epoch": 1}, torch.zeros(3)])
def test_a_file_without_a_state_dict_says_what_it_has(saved, tmp_path):
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no weights: it holds no tensors by name"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_named_with_its_neighbours(tmp_path):
    torch.save({}, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"bets\.pt: cannot read the weights: No such file.*'best\.pt'"):
        read_weights(tmp_path / "bets.pt")


# In a config


@pytest.fixture
def trained(tmp_path):
    """The checkpoint of a short run with the hook EMA."""
    values = tiny_config(hooks=[{"type": "EMA", "decay": 0.5}], run={"work_dir": str(tmp_path / "first")})
    runner = build_runner(config_from(values))
    runner.train()
    save(runner.state_dict(), tmp_path / "first.pt")
    return tmp_path / "first.pt"


@pytest.fixture(autouse=True)
def _log(caplog, monkeypatch):
    """Let `caplog` see what is logged."""
    monkeypatch.setattr(logging.getLogger("visreg"), "propagate", True)
    caplog.set_level(logging.INFO, "visreg")


def begun(path, **sections):
    sections.setdefault("run", {"work_dir": str(path.parent / "second")})
    return tiny_config(**{"model": {"type": "MLP", "image_size": 16, "widths": [8], "weights": str(path)}, **sections})


def problems(values):
    try:
        check_config(config_from(values))
    except ConfigError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def test_a_run_begins_from_the_average_of_another(trained, caplog):
    runner = build_runner(config_from(begun(trained)))
    average = load(trained)["hooks"][0]["state"]["average"]
    assert equal(state(runner.task), average) == {*average}
    assert not torch.equal(load(trained)["task"]["model.head.weight"], average["model.head.weight"])
    assert "(its EMA, step" in caplog.text


def test_the_head_is_a_function_of_the_seed(trained):
    options = {"type": "MLP", "image_size": 16, "widths": [8], "num_classes": 12}
    data = {"dataset": {"type": "Digits", "train": False, "size": 16}}
    heads = []
    for weights in (None, str(trained), str(trained)):
        torch.manual_seed(len(heads))
        values = tiny_config(model={**options, "weights": weights}, train=data, val=data)
        torch.manual_seed(3)
        heads.append(MODELS.build(values["model"]).state_dict())
    names = [name for name, value in heads[0].items() if 12 in value.shape]
    assert names
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in names)
    assert all(torch.equal(heads[1][name], heads[2][name]) for name in heads[0])


def test_other_class_names_and_pixels_are_told(trained, caplog):
    saved = load(trained)
    save({**saved, "classes": [f"other {name}" for name in saved["classes"]]}, trained)
    build_runner(config_from(begun(trained, task={"type": "Classification", "mean": [0.1], "std": [0.5]})))
    assert "has outputs for other 0, other 1" in caplog.text
    assert "was trained on images whose mean is [0.5], and here it is [0.1]" in caplog.text
    assert "whose std" not in caplog.text


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("nowhere/best.pt", "nowhere/best.pt: cannot read the weights: No such file or directory; looked for from"),
        ("IMAGENET1K_V1", "MLP has none of this name; a file's name has a / in it, or ends in .pt"),
        (3, "expected str or None, got 3"),
        ("other.pt", "other.pt: the weights of another model: 0 of its 16 tensors fit"),
        ("damaged.pt", "the checkpoint is damaged: its checksum does not match"),
    ],
)
def test_check_finds_weights_that_cannot_be_used(weights, message, trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    torch.save(network().state_dict(), "other.pt")
    data = bytearray(trained.read_bytes())
    data[len(data) // 2] ^= 1
    (trained.parent / "damaged.pt").write_bytes(data)
    values = begun(trained)
    values["model"]["weights"] = weights
    ((place, found),) = problems(values)
    assert place == "model.weights"
    assert message in found


def test_neither_a_resumed_run_nor_an_evaluation_needs_the_weights(trained, capsys):
    values = begun(trained, default_hooks=[{"type": "Checkpoint"}], run={"epochs": 1})
    config = trained.parent / "second.json"
    config.write_text(dumps_json(values))
    arguments = [str(config), "--work-dir", str(trained.parent / "second")]
    for command, code in ((["train", *arguments], 0), (["train", *arguments, "--set", "run.epochs=2", "--resume"], 0)):
        with pytest.raises(SystemExit) as caught:
            main(command)
        assert caught.value.code == code, capsys.readouterr()
        trained.unlink(missing_ok=True)
    whole = capsys.readouterr().out
    assert whole.count("tensors begin as in") == 1
    checkpoint = next((trained.parent / "second" / "checkpoints").glob("best.pt"), None)
    checkpoint = checkpoint or sorted((trained.parent / "second" / "checkpoints").glob("step_*.pt"))[-1]
    with pytest.raises(SystemExit) as caught:
        main(["test", str(checkpoint)])
    assert caught.value.code == 0
    with pytest.raises(SystemExit) as caught:  # nothing to resume, so that they are needed after all
        main(["train", str(config), "--resume", "--work-dir", str(trained.parent / "third")])
    assert caught.value.code == 2
    assert "model.weights" in capsys.readouterr().err


def test_an_evaluator_reads_none(trained):
    values = begun(trained)
    trained.unlink()
    build_evaluator(config_from(values), "val")


def test_a_model_inside_another_takes_weights_too(tmp_path):
    torch.save(network().state_dict(), tmp_path / "w.pt")

    class Plain(nn.Sequential):
        """A network."""

        def __init__(self, outputs: int = 3) -> None:
            super().__init__(OrderedDict(network(outputs, seed=1).named_children()))

    class Around(nn.Module):
        """Holds a network."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

    class Own(nn.Module):
        """Has an option of that name."""

        def __init__(self, weights: str) -> None:
            super().__init__()
            self.given = weights

    for model in (Plain, Around, Own):
        MODELS.register(model)
    start = InitialWeights()
    made = MODELS.build(
        {"type": "Around", "inner": {"type": "Plain", "weights": str(tmp_path / "w.pt")}}, initial_weights=start
    )
    assert torch.equal(made.inner.conv.weight, network().conv.weight)
    assert [report.whole for report in start.reports] == [True]
    assert MODELS.build({"type": "Own", "weights": "w.pt"}).given == "w.pt"


def test_earlier_layers_learn_more_slowly():
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = torchvision.models.resnet18(num_classes=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups(model, lr=0.01, weight_decay=0.0, lr_scale={"*": 0.1, "fc": 1.0})
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates["fc.weight"] == rates["fc.bias"] == 0.01
    assert {rate for name, rate in rates.items() if "fc" not in name} == {0.001}
