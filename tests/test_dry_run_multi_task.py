"""Mistakes in a config with several heads, each found before any data is read, and placed."""

import json

import pytest

from tests.test_check import problems
from visreg.check import check_config
from visreg.config import load_config
from visreg.errors import ConfigError

LOSS = {"type": "CrossEntropyLoss"}
DATA = {
    "type": "Superclass",
    "dataset": {"type": "MNIST"},
    "key": "parity",
    "classes": {"even": list("02468"), "odd": list("13579")},
}
CONFIG = {
    "task": {
        "type": "MultiTask",
        "tasks": {
            "digit": {"type": "Classification", "loss": LOSS},
            "parity": {"type": "Classification", "target": "parity", "loss": LOSS},
        },
    },
    "model": {
        "type": "MultiHead",
        "backbone": {"type": "ConvNet", "in_channels": 1, "image_size": 28},
        "heads": {
            "digit": {"type": "LinearHead", "num_classes": 10},
            "parity": {"type": "LinearHead", "num_classes": 2},
        },
    },
    "metrics": [
        {
            "type": "PerHead",
            "heads": {"digit": [{"type": "Accuracy"}], "parity": [{"type": "Accuracy", "key": "parity"}]},
        }
    ],
    "optimizer": {"type": "SGD", "lr": 0.01},
    "train": {"dataset": DATA, "batch_size": 64},
    "val": {"dataset": DATA, "batch_size": 64},
    "run": {"epochs": 1},
}


def changed(path, value):
    """Return the config with one value changed, added, with ``...`` removed or, of a tuple, given another name."""
    values = json.loads(json.dumps(CONFIG))  # nothing in it is there twice
    *parents, last = path.split(".")
    target = values
    for parent in parents:
        target = target[int(parent) if isinstance(target, list) else parent]
    if value is ...:
        del target[last]
    elif isinstance(value, tuple):
        target[value[0]] = target.pop(last)
    else:
        target[int(last) if isinstance(target, list) else last] = value
    return values


def test_the_config_is_right():
    assert problems(CONFIG) == []


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        # heads
        ("model.heads.digit.num_classes", 9, "model.heads.digit", "9 outputs for the 10 classes of MNIST"),
        ("model.heads.parity.num_classes", 10, "model.heads.parity", "10 outputs for the 2 classes of MNIST"),
        ("model.heads.digit.type", "LinearHed", "model.heads.digit.type", "did you mean 'LinearHead'?"),
        ("model.heads.digit.num_classes", ("num_clases",), "model.heads.digit.num_clases", "mean 'num_classes'?"),
        ("model.heads.digit.num_classes", 0, "model.heads.digit.num_classes", "must be 1 or more, got 0"),
        ("model.heads.digit.type", ("tpye",), "model.heads.digit.tpye", "did you mean 'type'?"),
        ("model.heads.digit", {"type": "MLP"}, "model.heads.digit", "features (3, 50) of train: in 'heads.digit.feat"),
        ("model.heads", {}, "model.heads", "name at least one"),
        # backbones
        ("model.backbone.type", "ConvNett", "model.backbone.type", "did you mean 'ConvNet'?"),
        (
            "model.backbone.in_channels",
            3,
            "model.backbone.in_channels",
            "is 3, but the images of train are (1, 28",
        ),
        ("model.backbone.image_size", 32, "model.backbone.image_size", "is 32, but the images of train are (1, 28"),
        ("model.backbone.dropout", 2.0, "model.backbone.dropout", "has to be between 0 and 1"),
        ("model.backbone", {"type": "squeezenet1_0"}, "model.backbone", "SqueezeNet ends in no linear layer"),
        ("model", {"type": "ConvNet"}, "model", "an output for each task, got Tensor; use MultiHead"),
        # tasks
        ("task.tasks.parity", ("pairty",), "task.tasks.pairty", "no output 'pairty'; did you mean 'parity'?"),
        ("task.tasks.parity.type", "Clasification", "task.tasks.parity.type", "did you mean 'Classification'?"),
        ("task.tasks.parity.type", ("tpye",), "task.tasks.parity.tpye", "did you mean 'type'?"),
        ("task.tasks.parity.target", "pairty", "task.tasks.parity.target", "no 'pairty', the class of the image; did"),
        ("task.tasks.parity.mean", [0.5], "task.tasks.parity", "the model sees each image once; set task.mean"),
        ("task.tasks.parity.model", LOSS, "task.tasks.parity.model", "is set by visreg"),
        ("task.tasks.digit", {"type": "Detection"}, "model.heads.digit", "a dict with 'logits' and 'boxes'"),
        ("task.weights", "uncertianty", "task.weights", "or 'uncertainty' or None, got 'uncertianty'"),
        ("task.weights", {"pairty": 1}, "task.weights", "there is no task 'pairty'; did you mean 'parity'?"),
        # losses
        ("task.tasks.parity.loss.type", "CrossEntropy", "task.tasks.parity.loss.type", "'CrossEntropyLoss'?"),
        ("task.tasks.parity.loss", ("los",), "task.tasks.parity.los", "did you mean 'loss'?"),
        ("task.tasks.parity.loss", ..., "task.tasks.parity.loss", "missing"),
        ("task.tasks.parity.loss", {"type": "MSELoss"}, "task.tasks.parity.loss", "cannot be computed: The size of"),
        ("task.tasks.parity.loss", {"type": "NLLLoss"}, "task.tasks.parity.loss.type", "use CrossEntropyLoss"),
        ("task.tasks.parity.loss", {**LOSS, "weight": [1.0] * 3}, "task.tasks.parity.loss.weight", "2 classes"),
        ("loss", LOSS, "loss", "of no use, since MultiTask takes none, but its tasks do; move it there"),
        # metrics, and those who wait for them
        ("metrics.0.heads.parity", ("pairty",), "metrics[0].heads.pairty", "no head 'pairty'; did you mean 'parity'?"),
        ("metrics.0.heads.parity", [{"type": "Acuracy"}], "metrics[0].heads.parity[0].type", "did you mean 'Accuracy'"),
        ("metrics.0.heads.parity", [{"type": "Accuracy"}], "metrics[0]", "head 'parity': Accuracy: found in the pred"),
        ("metrics.0", {"type": "Accuracy"}, "metrics[0]", "no 'label', but the heads digit, parity; use PerHead"),
        ("hooks", [{"type": "EarlyStopping", "monitor": "parity/acc"}], "hooks[0].monitor", "mean 'parity/accuracy'?"),
        ("hooks", [{"type": "Freeze", "patterns": ["backbon"]}], "hooks[0].patterns", "did you mean 'backbone'?"),
        # data
        ("train.dataset.classes", {"all": list("012345678")}, "train.dataset.classes", "'9' is in none of all"),
        ("train.dataset.key", "label", "train.dataset.key", "must match regex"),
        ("train.dataset.dataset.trian", True, "train.dataset.dataset.trian", "did you mean 'train'?"),
        (
            "train.batch_transforms",
            [{"type": "MixUp", "num_classes": 10}],
            "train.batch_transforms[0]",
            "by their one label each, and it cannot mix parity",
        ),
        ("train.dataset", {"type": "MNIST"}, "task.tasks.parity.target", "the samples have no 'parity'"),
    ],
)
def test_a_mistake_is_found_and_placed(path, value, where, message):
    found = problems(changed(path, value))
    assert [place for place, _ in found] == [where]
    assert message in found[0][1]


def test_it_is_placed_in_the_file(tmp_path):
    file = tmp_path / "config.py"
    lines = [f"{name} = {value!r}" for name, value in changed("model.heads.digit.num_classes", 9).items()]
    file.write_text("\n".join(lines).replace("'digit': {'type': 'Lin", "\n'digit': {'type': 'Lin"))
    with pytest.raises(ConfigError) as caught:
        check_config(load_config(file))
    assert str(caught.value).startswith(f"{file}:3: model.heads.digit: the model has 9 outputs")


def test_nested_models_load_no_weights_in_a_check(monkeypatch):
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *arguments, **options: pytest.fail("a download")
    )
    values = changed("model.backbone", {"type": "resnet18", "weights": "IMAGENET1K_V1"})
    rgb = {"transforms": [{"type": "RGB"}]}
    assert problems({**values, "train": {**values["train"], **rgb}, "val": {**values["val"], **rgb}}) == []


def test_mistakes_of_metrics_that_do_not_hang_together_come_at_once():
    heads = {"digits": [{"type": "Accuracy"}], "parity": [{"type": "Acuracy"}, {"type": "Accuracy"}]}
    found = problems(changed("metrics", [{"type": "Accuracy"}, {"type": "PerHead", "heads": heads}]))
    paths = ["metrics[1].heads.parity[0].type", "metrics[0]", "metrics[1].heads.digits", "metrics[1].heads"]
    assert [path for path, _ in found] == paths
    assert found[3][1] == "head 'parity': Accuracy: found in the predictions no 'label'; set key='parity'"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"type": "YOLO", "num_classes": 2}, "YOLO cannot take the features (3, 50) of train: "),
        ({"type": "UNetHead", "num_classes": 2}, "UNetHead cannot take the features (3, 50) of train: "),
    ],
)
def test_what_is_no_head_is_told_what_fits(head, message):
    ((path, told),) = problems(changed("model.heads.parity", head))
    assert path == "model.heads.parity"
    assert told.startswith(message)
    assert told.endswith("; what fits is LinearHead, or a module for such")
