"""Every mistake in a config is found, said where it is, and put right."""

import copy
import string
from pathlib import Path

import pytest

from tests.conftest import ROOT
from visreg.check import check_config, static_problems
from visreg.config import config_from, load_config
from visreg.errors import ConfigError
from visreg.plugin_file import load_file
from visreg.registry import OPTIMIZERS

CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if "tiny_vit" not in path.name)
SMALL = {
    "task": {"type": "Classification", "mean": [0.1307], "std": [0.3081]},
    "model": {"type": "ConvNet", "in_channels": 1, "image_size": 28, "num_classes": 10},
    "loss": {"type": "CrossEntropyLoss"},
    "metrics": [{"type": "Accuracy"}, {"type": "F1"}],
    "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.5},
    "schedule": {"type": "Cosine", "warmup_steps": 10},
    "hooks": [{"type": "EarlyStopping", "monitor": "accuracy", "patience": 3}, {"type": "ClipGrad", "max_norm": 1.0}],
    "train": {"dataset": {"type": "Digits"}, "batch_size": 64},
    "val": {"dataset": {"type": "Digits", "train": False}, "batch_size": 64},
    "run": {"epochs": 2},
}


def problems(values):
    try:
        check_config(config_from(values))
    except ConfigError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def changed(path, value):
    """Return the small config with one value changed, added or (with ``...``) removed; ``"a.b.0.c"`` says which."""
    values = copy.deepcopy(SMALL)
    *parents, last = path.split(".")
    target = values
    for parent in parents:
        target = target[int(parent) if isinstance(target, list) else parent]
    key = int(last) if isinstance(target, list) else last
    if value is ...:
        del target[key]
    else:
        target[key] = value
    return values


def test_small_config_is_right():
    assert problems(SMALL) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_right(path):
    check_config(load_config(path))


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        # names
        ("model.num_clases", 10, "model.num_clases", "no such option; did you mean 'num_classes'?"),
        ("modle", {}, "modle", "no such section; did you mean 'model'?"),
        ("helper", 3, "helper", "begins with '_'"),
        ("model.type", "ConvNt", "model.type", "did you mean 'ConvNet'?"),
        ("model.type", "convnet", "model.type", "did you mean 'ConvNet'"),
        ("model.type", "SGD", "model.type", "it is one of the optimizers"),
        ("model.type", "os.system", "model.type", "not among the models"),
        ("model.type", 3, "model.type", "expected a name from the models, got 3"),
        ("loss", {"tpye": "CrossEntropyLoss"}, "loss.tpye", "did you mean 'type'?"),
        ("loss", {}, "loss", "no 'type'"),
        ("hooks.0.pateince", 3, "hooks[0].pateince", "did you mean 'patience'?"),
        ("train.dataset.trian", True, "train.dataset.trian", "did you mean 'train'?"),
        ("train.batchsize", 3, "train.batchsize", "did you mean 'batch_size'?"),
        ("run.epoch", 3, "run.epoch", "did you mean 'epochs'?"),
        ("optimizer.params", [], "optimizer.params", "is set by visreg"),
        ("task.model", {"type": "ConvNet"}, "task.model", "is set by visreg"),
        # missing
        ("model", ..., "model", "missing"),
        ("run", ..., "run", "missing"),
        ("loss", ..., "loss", "the task Classification needs one"),
        ("train.batch_size", ..., "train.batch_size", "missing"),
        ("train.dataset", ..., "train.dataset", "missing"),
        ("hooks.0.monitor", ..., "hooks[0].monitor", "missing"),
        ("run.epochs", ..., "run", "neither epochs nor steps"),
        # types
        ("model", "ConvNet", "model", "expected dict(type=…, …), got 'ConvNet'"),
        ("hooks", {"type": "EMA"}, "hooks", "expected a list"),
        ("train", [1], "train", "expected a dict"),
        ("model.num_classes", "10", "model.num_classes", "expected int, got '10'"),
        ("model.num_classes", 10.5, "model.num_classes", "expected int, got 10.5"),
        ("model.num_classes", True, "model.num_classes", "expected int, got True"),
        ("model.num_classes", None, "model.num_classes", "expected int, got None"),
        ("optimizer.lr", "0.1", "optimizer.lr", "got '0.1'"),
        ("optimizer.nesterov", 1, "optimizer.nesterov", "expected bool, got 1"),
        ("train.batch_size", "64", "train.batch_size", "expected int"),
        ("run.compile", "yes", "run.compile", "expected bool"),
        ("loss.weight", "balanced", "loss.weight", "a list of numbers"),
        ("plugins", "./file.py", "plugins", "list"),
        # values
        ("optimizer.lr", -1.0, "optimizer.lr", "Invalid learning rate"),
        ("optimizer.lr", float("nan"), "optimizer.lr", "nan"),
        ("optimizer.betas", (0.9, 0.99), "optimizer.betas", "no such option"),
        ("optimizer", {"type": "SGD", "lr": 0.1, "nesterov": True}, "optimizer.nesterov", "requires a momentum"),
        ("train.batch_size", 0, "train.batch_size", ">= 1"),
        ("train.workers", -1, "train.workers", ">= 0"),
        ("run.epochs", 0, "run.epochs", ">= 1"),
        ("run.seed", -1, "run.seed", ">= 0"),
        ("run.precision", "fp8", "run.precision", "'fp32' or 'bf16' or 'fp16'"),
        ("run.device", "gpu", "run.device", "got 'gpu'"),
        ("hooks.0.mode", "maximum", "hooks[0].mode", "'max'"),
        ("hooks.1.max_norm", -1.0, "hooks[1].max_norm", "> 0"),
        ("model.num_classes", 0, "model.num_classes", "1 or more"),
        ("model.image_size", 4, "model.image_size", "too small"),
        ("task.std", [0.0], "task.std", "above 0"),
        ("loss.reduction", "men", "loss", "men"),
        ("schedule.warmup_steps", -1, "schedule.warmup_steps", "0 or more"),
        ("schedule.every", "iter", "schedule.every", "'step' or 'epoch'"),
        # what belongs together
        ("hooks.0.monitor", "acc", "hooks[0].monitor", "did you mean 'accuracy'?"),
        ("schedule", {"type": "ReduceLROnPlateau", "monitor": "f2"}, "schedule.monitor", "did you mean 'f1'?"),
        ("schedule", {"type": "ReduceLROnPlateau"}, "schedule", "needs monitor"),
        ("run.steps", 10, "run.steps", "contradicts run.epochs"),
        ("metrics", ..., "val", "no metrics"),
        ("metrics.1", {"type": "Accuracy"}, "metrics[1]", "second score 'accuracy'"),
        ("val", ..., "metrics", "neither val nor test"),
        ("param_groups", {"lr_scale": {"model.heads": 0.1}}, "param_groups", "did you mean 'head'"),
        ("train.in_memory", 1, "train.in_memory", "'auto'"),
        ("hooks", [{"type": "EMA"}, {"type": "EMA"}], "hooks[1]", "a second EMA, beside hooks[0]"),
        ("schedule.monitor", "f1", "schedule.monitor", "only ReduceLROnPlateau waits for a score"),
        ("run.epochs", None, "run", "neither epochs nor steps"),
        ("run.accumulate", 65, "run.accumulate", "cuts a batch of 64 into 65 parts"),
        ("run.max_rollbacks", 2, "run.max_rollbacks", "of no use without run.on_nan='rollback'"),
        ("run.max_rollbacks", 0, "run.max_rollbacks", "1"),
        ("run.on_nan", "roll", "run.on_nan", "'stop' or 'rollback'"),
        ("optimizer.lr", float("inf"), "optimizer.lr", "at most 1000"),
        ("train", None, "train", "expected a dict"),
        ("run", {3: 4}, "run['3']", "must be a str"),
        # other frameworks' habits
        ("learning_rate", 0.1, "learning_rate", "no such section"),
        ("epochs", 3, "epochs", "did you mean 'run.epochs'?"),
        ("run.lr", 0.1, "run.lr", "did you mean 'optimizer.lr'?"),
        ("train.dataset.shuffle", True, "train.dataset.shuffle", "did you mean 'train.shuffle'?"),
        ("optimizer.learning_rate", 0.1, "optimizer.learning_rate", "did you mean 'lr'?"),
        ("optimizer.type", "torch.optim.SGD", "optimizer.type", "did you mean 'SGD'?"),
        ("loss", {"name": "CrossEntropyLoss"}, "loss.name", "did you mean 'type'?"),
        ("metrics", {"type": "Accuracy"}, "metrics", "put it in [ ]"),
        ("model.classes_num", 10, "model.classes_num", "did you mean 'num_classes'?"),
        # shapes
        ("model.image_size", 32, "model", "its in_features must be 320"),
        ("model.in_channels", 3, "model", "its in_channels must be 1"),
        ("model.num_classes", 100, "model.num_classes", "100 outputs for the 10 classes"),
        ("loss", {"type": "BCELoss"}, "loss", ""),
        ("loss.reduction", "none", "loss", "must be one floating-point number"),
        ("task.mean", [0.1, 0.2, 0.3], "task", "3 channels"),
        ("train.transforms", [{"type": "RandomCrop", "size": 24}], "model", "its in_features must be"),
        ("train.transforms", [{"type": "RandomCrop", "size": [1, 2, 3]}], "train.transforms[0]", ""),
        ("optimizer", {"type": "LBFGS"}, "optimizer", "closure"),
        ("optimizer", {"type": "Muon"}, "optimizer", "only supports 2D"),
        ("metrics.0", {"type": "Accuracy", "key": "mask"}, "metrics[0]", "mask"),
    ],
)
def test_finds_a_mistake(path, value, where, message):
    found = problems(changed(path, value))
    assert any(place.startswith(where) and message in text for place, text in found), found


@pytest.mark.parametrize(
    ("section", "written"),
    [("loss", "criterion"), ("model", "network"), ("train", "train_dataloader"), ("val", "valid"), ("run", "RUN")],
)
def test_a_section_of_another_name_is_one_mistake(section, written):
    values = {written if name == section else name: value for name, value in SMALL.items()}
    [(path, message)] = problems(values)
    assert path == written
    assert f"did you mean '{section}'?" in message


def test_finds_a_misspelt_type_in_a_nested_spec():
    [(path, message)] = problems(changed("train.dataset", {"type": "FirstAvailable", "datasets": [{"tpye": "Digits"}]}))
    assert (path, message) == ("train.dataset.datasets[0].tpye", "no such option; did you mean 'type'?")


def test_finds_every_mistake_at_once(small: Path):
    text = small.read_text().replace("lr=0.1", "lrr=0.1").replace("widths", "wdths").replace("epochs=2", "epochs='2'")
    small.write_text(text.replace('"Digits", train=True', '"Digts"'))
    with pytest.raises(ConfigError) as caught:
        check_config(load_config(small))
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    expected = [
        "small.py:3: model.wdths",
        "small.py:6: optimizer.lrr",
        "small.py:7: train.dataset.type",
        "small.py:9: run.epochs",
    ]
    for place in expected:
        assert any(place in line for line in lines), (place, lines)


def keys_of(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from keys_of(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from keys_of(item, (*path, index))


def misspellings(word):
    """Yield ``word`` with each letter dropped, doubled, swapped with the next, and replaced."""
    for i, letter in enumerate(word):
        other = string.ascii_lowercase[(string.ascii_lowercase.find(letter.lower()) + 7) % 26]
        yield from (word[:i] + new + word[i + 1 :] for new in ("", letter * 2, other))
        yield word[:i] + word[i + 1 : i + 2] + letter + word[i + 2 :]


def at(values, path):
    for step in path:
        values = values[step]
    return values


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_finds_every_misspelt_key_and_name_of_the_shipped_configs(path):
    values = load_config(path).values
    tried = suggested = 0
    for where, key in keys_of(values):
        if where[-1:] in (("classes",), ("heads",), ("tasks",)):
            continue  # names that the config makes up; test_dry_run_multi_task has those that do not agree
        name = at(values, where)[key] if key == "type" else None
        for word in filter(None, (key, name)):
            for misspelt in {*misspellings(word)} - {word, ""}:
                wrong = copy.deepcopy(values)
                spec = at(wrong, where)
                if word == key and (misspelt in spec or misspelt.startswith("_")):
                    continue
                items = [
                    (misspelt if k == word else k, misspelt if k == "type" and v == word else v)
                    for k, v in spec.items()
                ]
                spec.clear()
                spec.update(items)
                # A misspelling may be another name, such as CIFAR100: then it is the dry run that finds it, unless it
                # does as well, such as Adam.
                found = list(static_problems(wrong)) or problems(wrong)
                assert found or (word == name and misspelt in OPTIMIZERS), (where, word, misspelt)
                tried += bool(found)
                suggested += any(f"{word!r}" in message for _, message in found)
    assert suggested >= 0.95 * tried


def test_names_the_plugin_file_that_failed(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    path = tmp_path / "config.py"
    path.write_text('plugins = ["./broken.py"]\nmodel = dict(type="MyNet")\n')
    with pytest.raises(ConfigError) as caught:
        check_config(load_config(path))
    text = str(caught.value)
    assert "config.py:1: plugins[0]" in text
    assert "nothing_of_this_name" in text
    assert "broken.py:1" in text
    assert "unless './broken.py', reported above, has it" in text
    assert caught.value.exit_code == 8


def test_only_a_python_config_may_name_a_file_to_run(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    path = tmp_path / "config.json"
    path.write_text('{"plugins": ["./evil.py"]}')
    with pytest.raises(ConfigError, match=r"only a \.py config may name a file to run"):
        check_config(load_config(path))
    with pytest.raises(ConfigError, match=r"only a \.py config may name a file to run"):
        check_config(load_config(ROOT / "configs" / "cnn_mnist.py", [f"plugins=[{str(tmp_path / 'evil.py')!r}]"]))
    (tmp_path / "inherits.py").write_text("_base_ = 'config.json'\n")
    with pytest.raises(ConfigError, match=r"only a \.py config may name a file to run"):
        check_config(load_config(tmp_path / "inherits.py"))
    assert not (tmp_path / "ran").exists()


def test_an_absent_plugin_package_is_named(tmp_path):
    values = {**SMALL, "plugins": ["visreg-of-no-one"], "model": {"type": "NetOfNoOne"}}
    found = dict(problems(values))
    assert "pip install visreg-of-no-one" in found["plugins[0]"]
    assert "'visreg-of-no-one'" in found["model.type"]


def test_a_dataset_of_a_plugin_that_requires_a_root_must_be_given_one(tmp_path):
    (tmp_path / "rooted.py").write_text(
        "from attrs import define\nfrom visreg import DATASETS, DataInfo, Dataset\n"
        "@DATASETS.register\n@define(kw_only=True, eq=False)\nclass Rooted(Dataset):\n    root: str\n"
        "    info = DataInfo(name='rooted')\n    def open(self): pass\n"
        "    def __len__(self): return 1\n    def __getitem__(self, index): return {}\n"
    )
    load_file(tmp_path / "rooted.py")
    assert ("train.dataset.root", "missing; it has no default") in problems(
        changed("train.dataset", {"type": "Rooted"})
    )


def test_a_run_that_rolls_back_must_save():
    values = changed("run.on_nan", "rollback")
    assert problems(values) == []
    assert "none is saved" in str(problems({**values, "default_hooks": [{"type": "Console"}]}))
    assert problems({**values, "default_hooks": [], "hooks": [{"type": "Checkpoint"}]}) == []


DIGITS = {"type": "Digits"}
FOLD = {"type": "KFold", "dataset": DIGITS, "folds": 4, "part": "train"}


def divided(train, val):
    """Return the small config with other datasets."""
    return {**SMALL, "train": {"dataset": train, "batch_size": 64}, "val": {"dataset": val, "batch_size": 64}}


@pytest.mark.parametrize(
    ("train", "val", "where", "message"),
    [
        ({}, {"fold": 2}, "val.dataset.fold", "is 2, and 0 in train.dataset, so that they share samples"),
        ({"seed": 1}, {}, "val.dataset", "seed is 0, and 1 in train.dataset"),
        ({"stratify": True}, {"stratify": False}, "val.dataset.stratify", "is False, and True in train.dataset"),
        ({}, {"folds": 5}, "val.dataset.folds", "is 5, and 4 in train.dataset"),
        ({}, {"part": "train"}, "val.dataset.part", "is 'train' in train.dataset too"),
    ],
)
def test_finds_folds_that_share_samples(train, val, where, message):
    train, val = {**FOLD, **train}, {**FOLD, "part": "val", **val}
    for dataset, first in ((train, ""), ({"type": "Repeat", "times": 2, "dataset": train}, ".dataset")):
        ((path, found),) = problems(divided(dataset, val))
        assert path == where
        assert message.replace("train.dataset", f"train.dataset{first}") in found


def test_folds_of_other_data_and_of_folds_share_nothing():
    whole = {**FOLD, "fold": 1}
    right = divided({**FOLD, "dataset": whole}, {**FOLD, "part": "val", "dataset": whole})
    right["test"] = {"dataset": {**whole, "part": "val"}, "batch_size": 64}
    other = {**FOLD, "dataset": {"type": "Digits", "train": False}, "fold": 2, "part": "val"}
    assert problems(right) == problems(divided(FOLD, other)) == []


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ({"type": "Digits"}, {**FOLD, "part": "val"}),
        ({"type": "Subset", "fraction": 0.8}, {"type": "Subset", "fraction": 0.2}),
        ({"type": "Subset", "fraction": 0.8}, {"type": "Subset", "fraction": 0.2, "rest": True}),
        (FOLD, {"type": "Subset", "fraction": 0.25}),
    ],
)
def test_finds_other_parts_of_a_dataset_that_share_samples(train, val):
    train, val = ({**spec, "dataset": DIGITS} if spec["type"] == "Subset" else spec for spec in (train, val))
    message = "shares samples with train.dataset, which are trained on; take others, by the same Subset with rest=True"
    ((path, found),) = problems(divided(train, val))
    assert (path, found.partition(", or")[0]) == ("val.dataset", message)
    same = found.endswith("; to watch the score on what is trained on, take all of it, by the very same dataset")
    assert same == (problems(divided(train, train)) == []) == (train != FOLD)
    values = divided(train, {"type": "Digits", "train": False})
    ((path, _),) = problems({**values, "test": {"dataset": val, "batch_size": 64}})
    assert path == "test.dataset"


def test_one_fold_may_be_trained_on_and_another_evaluated_on():
    assert problems(divided({**FOLD, "part": "val"}, {**FOLD, "part": "val", "fold": 1})) == []


@pytest.mark.parametrize("name", ["Repeat", "ClassBalanced", "Mosaic", "CopyPaste"])
def test_folds_are_not_made_of_what_repeats_or_mixes(name):
    inner = {"type": "Concat", "datasets": [{"type": name, "dataset": {"type": "Digits"}}]}
    found = problems(changed("train.dataset", {**FOLD, "dataset": inner}))
    message = f"{name} makes samples that would be in several folds; put KFold inside of {name}"
    assert ("train.dataset.dataset", message) in found


def test_a_warm_up_is_held_against_the_length_of_data_that_knows_it():
    ((path, message),) = problems(changed("schedule.warmup_steps", 1000))
    assert path == "schedule.warmup_steps"
    assert "1000 is the whole run of 46 steps" in message
    unknown = changed("train.dataset", {"type": "Subset", "fraction": 0.5, "dataset": {"type": "Digits"}})
    unknown["schedule"]["warmup_steps"] = 1000
    assert problems(unknown) == []


def test_very_many_mistakes_are_as_well_mistakes():
    with pytest.raises(ConfigError) as caught:
        check_config(config_from({**SMALL, **{f"k{number}": 1 for number in range(2000)}}))
    assert len(caught.value.problems) == 1000
