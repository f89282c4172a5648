"""Samples that cannot be read: named, tried again, or skipped in a way that does not depend on who reads them."""

from __future__ import annotations

import errno
import logging
import shutil
from itertools import chain

import pytest
import torch
from PIL import Image

from tests.test_cli import run
from visreg import samples
from visreg.batching import Batching
from visreg.data import DataInfo, Dataset
from visreg.datasets.files import DamagedError
from visreg.datasets.folder import ImageFolder
from visreg.errors import DataError, ResourceError
from visreg.loader import SampleLoader

SIZE = 23


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(samples, "PAUSES", (0.0, 0.0, 0.0))


class Holes(Dataset):
    """Samples of which some cannot be read, each failing as often as it is told to."""

    info = DataInfo(name="holes")

    def __init__(self, failures=(), error=lambda: OSError("cannot identify image file"), times=10**6, size=SIZE):
        self.left = dict.fromkeys(failures, times)
        self.error, self.size = error, size

    def open(self): ...

    def __len__(self):
        return self.size

    def where(self, index):
        return f"photos/{index}.png"

    def __getitem__(self, index):
        if self.left.get(index, 0) > 0:
            self.left[index] -= 1
            raise self.error()
        return {"image": torch.zeros(1, 2, 2), "label": torch.tensor(index)}


def noisy(sample):
    return {**sample, "noise": torch.rand(())}


def loader(dataset, workers=0, *, train=True, batch_size=4, transforms=(noisy,), **options):
    batching = Batching(size=len(dataset), batch_size=batch_size, train=train, seed=1)
    return SampleLoader(
        dataset=dataset,
        transforms=transforms,
        batching=batching,
        device=torch.device("cpu"),
        workers=workers,
        **options,
    )


def indices(made, epoch=0):
    return [batch["index"].tolist() for batch in made.epoch(epoch)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "error",
    [
        lambda: DataError("is half a file"),
        lambda: DamagedError("is half a file"),
        lambda: OSError("is half a file"),
        lambda: ValueError("is half a file"),
        lambda: SyntaxError("is half a file"),
        lambda: EOFError("is half a file"),
    ],
)
def test_by_default_the_first_ends_the_run_and_is_named(error, workers):
    with pytest.raises(DataError, match=r"^holes\[5\] \(photos/5.png\): .*is half a file") as caught:
        indices(loader(Holes([5], error), workers))
    assert caught.value.exit_code == 3
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("skip", ["error", "skip"])
@pytest.mark.parametrize("error", [lambda: KeyError("oops"), lambda: TypeError("oops"), lambda: RuntimeError("oops")])
def test_a_mistake_in_a_dataset_is_none_of_these_but_the_sample_is_named(error, skip, workers):
    with pytest.raises(type(error()), match="oops") as caught:
        indices(loader(Holes([5], error), workers, on_bad_sample=skip))
    assert caught.value.__notes__[0] == "while making holes[5] (photos/5.png)"


def broken_transform(sample):
    if sample["label"] == 5:
        raise ValueError("cannot crop")
    return sample


def test_a_transform_that_fails_is_a_mistake_too():
    with pytest.raises(ValueError, match="cannot crop") as caught:
        indices(loader(Holes(), transforms=[broken_transform], on_bad_sample="skip"))
    assert caught.value.__notes__ == ["while making holes[5] (photos/5.png)"]


def refusing_transform(sample):
    if sample["label"] == 5:
        raise DataError("is too small to crop")
    return sample


def test_unless_it_says_that_it_is_the_sample():
    with pytest.raises(DataError, match=r"holes\[5\] \(photos/5.png\): is too small to crop"):
        indices(loader(Holes(), transforms=[refusing_transform]))
    assert 5 not in chain(*indices(loader(Holes(), transforms=[refusing_transform], on_bad_sample="skip")))


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_the_one_that_takes_its_place_depends_on_seed_epoch_and_index_alone(workers, survived):
    bad = {2, 5, 6, 19}
    whole = [[*loader(Holes()).epoch(epoch)] for epoch in (0, 1)]
    made = loader(Holes(bad), workers, on_bad_sample="skip")
    first = loader(Holes(bad), on_bad_sample="skip")
    replaced = [[], []]
    for epoch in (0, 1):
        found, expected = [*made.epoch(epoch)], [*first.epoch(epoch)]
        for mine, theirs, undisturbed in zip(found, expected, whole[epoch], strict=True):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
            assert bad.isdisjoint(mine["index"].tolist())
            kept = torch.tensor([index not in bad for index in undisturbed["index"].tolist()])
            assert torch.equal(mine["index"][kept], undisturbed["index"][kept])
            assert torch.equal(mine["noise"][kept], undisturbed["noise"][kept])
            replaced[epoch] += mine["index"][~kept].tolist()
    assert len(replaced[0]) == len(replaced[1]) == len(bad)
    assert replaced[0] != replaced[1]
    assert made.bad.keys() == bad
    survived("bad samples skipped", len(replaced[0]) + len(replaced[1]), 2 * len(bad))


@pytest.mark.parametrize("start", [1, 3])
def test_starting_late_makes_the_same_batches(start):
    whole = indices(loader(Holes([2, 5, 6]), on_bad_sample="skip"), 1)
    late = loader(Holes([2, 5, 6]), on_bad_sample="skip")
    assert [batch["index"].tolist() for batch in late.epoch(1, start)] == whole[start:]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_few_are_told_and_the_total_of_each_epoch(workers, caplog):
    made = loader(Holes(range(8)), workers, on_bad_sample="skip")
    with caplog.at_level(logging.WARNING, "visreg"):
        indices(made)
        indices(made, 1)
    told = [message for message in caplog.messages if "skipping a bad sample: holes[" in message]
    assert len(told) == 5
    assert "photos/" in told[0]
    assert "OSError: cannot identify image file" in told[0]
    assert told[-1].endswith("; more will only be counted")
    totals = [message for message in caplog.messages if message.startswith("epoch ")]
    assert totals == [f"epoch {n} of holes: 8 bad samples replaced by others" for n in (1, 2)]


@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_the_limit_end_the_run(workers):
    assert len(indices(loader(Holes(range(3)), workers, on_bad_sample="skip", max_bad_samples=3))) == 6
    made = loader(Holes(range(4)), workers, on_bad_sample="skip", max_bad_samples=3)
    with pytest.raises(DataError, match=r"4 samples of holes cannot be read, .* max_bad_samples=3; .*photos/"):
        indices(made)


def test_each_counts_once_however_often_it_is_met():
    made = loader(Holes(range(3)), on_bad_sample="skip", max_bad_samples=3)
    assert [len(indices(made, epoch)) for epoch in range(5)] == [6] * 5


def test_where_nothing_can_be_read_it_ends():
    with pytest.raises(DataError, match="can be read"):
        indices(loader(Holes(range(SIZE)), on_bad_sample="skip"))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_leaves_them_out_and_says_so(workers, caplog):
    bad = [0, 1, 2, 3, 9]  # the whole first batch, and one more
    made = loader(Holes(bad), workers, train=False, on_bad_sample="skip")
    with caplog.at_level(logging.WARNING, "visreg"):
        found = indices(made)
    assert [*chain(*found)] == [index for index in range(SIZE) if index not in bad]
    assert all(found)
    assert caplog.messages[-1].endswith("5 bad samples left out of the scores")
    assert "epoch" not in caplog.messages[-1]  # evaluations have none


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOENT])
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_passes_is_tried_again_and_leaves_no_trace(number, wrapped, caplog, survived):
    def error():
        system = OSError(number, "passing")
        if not wrapped:
            return system
        damaged = DamagedError("cannot be read")
        damaged.__cause__ = system
        return damaged

    expected = [*loader(Holes()).epoch(0)]
    found = [*loader(Holes([3, 7], error, times=3)).epoch(0)]
    for mine, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert caplog.messages == []
    survived("passing faults of a file system", 2, 2)
    with pytest.raises(DataError):
        indices(loader(Holes([3], error, times=4)))


def test_a_file_caught_in_the_middle_of_being_replaced_is_tried_again():
    assert len(indices(loader(Holes([3], times=1)))) == 6
    with pytest.raises(DataError):
        indices(loader(Holes([3], times=2)))


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_a_machine_at_its_limit_is_no_reason_to_skip(number):
    dataset = Holes([3], lambda: OSError(number, "limit"))
    with pytest.raises(ResourceError, match=r"holes\[3\]") as caught:
        indices(loader(dataset, on_bad_sample="skip"))
    assert caught.value.exit_code == 6


@pytest.fixture
def pets(tmp_path):
    """Two classes of five images each, of which the third dog is half a file."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            image = Image.effect_noise((32, 32), 40 + number).convert("RGB")
            image.save(tmp_path / "pets" / name / f"{number}.png")
    torn = tmp_path / "pets" / "dog" / "2.png"
    torn.write_bytes(torn.read_bytes()[:300])
    return tmp_path / "pets"


@pytest.fixture
def config(pets, tmp_path):
    """Write a config that trains on them, and return its path."""

    def write(**train):
        section = {"dataset": {"type": "ImageFolder", "root": str(pets), "size": 32}, "batch_size": 4, **train}
        path = tmp_path / "config.py"
        path.write_text(
            "task = dict(type='Classification')\n"
            "model = dict(type='MLP', in_channels=3, image_size=32, num_classes=2, widths=[4])\n"
            "loss = dict(type='CrossEntropyLoss')\n"
            "optimizer = dict(type='SGD', lr=0.1)\n"
            f"train = {section!r}\n"
            f"run = dict(epochs=2, device='cpu', work_dir={str(tmp_path / 'work')!r})\n"
        )
        return path

    return write


MEMORY = {"in_memory": True}, {"in_memory": False}, {"in_memory": False, "workers": 2}


@pytest.mark.parametrize("options", MEMORY)
def test_a_torn_image_ends_the_command_with_one_line(options, config, capsys):
    assert run("train", config(**options)) == 3
    error = capsys.readouterr().err
    assert "pets[7]: " in error
    assert "pets/dog/2.png: cannot be read as an image: OSError: " in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def weights(tmp_path):
    from visreg.checkpoint import load

    return load(max((tmp_path / "work" / "checkpoints").glob("step_*.pt")))["task"]


def test_a_torn_image_is_skipped_the_same_way_everywhere(config, tmp_path, capsys):
    found = []
    for options in ({}, {"in_memory": False}, {"workers": 2}):
        path = config(on_bad_sample="skip", **options)
        assert run("train", path) == 0
        found.append(weights(tmp_path))
        out = capsys.readouterr().out
        assert "skipping a bad sample: pets[7]: " in out
        assert "epoch 2 of pets: 1 bad sample replaced by others" in out
        shutil.rmtree(tmp_path / "work")
    for other in found[1:]:
        assert all(torch.equal(other[name], value) for name, value in found[0].items())


def test_a_file_deleted_during_the_run_follows_the_policy(pets, tmp_path):
    (pets / "dog" / "2.png").unlink()
    dataset = ImageFolder(root=str(pets))
    dataset.open()
    made = loader(dataset, on_bad_sample="skip", max_bad_samples=1)
    batches = made.epoch(0)
    next(batches)
    (pets / "cat" / "1.png").unlink()
    assert 1 not in chain(*indices(made))
    (pets / "cat" / "2.png").unlink()
    with pytest.raises(DataError, match=r"No such file"):
        indices(made)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"on_bad_sample": "ignore"}, "train.on_bad_sample"),
        ({"max_bad_samples": -1}, "train.max_bad_samples"),
        ({"timeout": -1.0}, "train.timeout"),
        ({"timeout": "long"}, "train.timeout"),
    ],
)
def test_wrong_options_are_mistakes_in_the_config(mistake, message, config, capsys):
    assert run("check", config(**mistake)) == 2
    assert message in capsys.readouterr().err


DATA = """
import os, signal
from pathlib import Path
import torch
from visreg import DATASETS
from visreg.data import DataInfo, Dataset

@DATASETS.register
class Some(Dataset):
    info = DataInfo(name="some", classes=("a", "b"))
    def __init__(self, size: int, label: int = 1, killed: str = "") -> None:
        self.size, self.label, self.killed = size, label, Path(killed)
    def open(self) -> None: ...
    def __len__(self) -> int: return self.size
    def __getitem__(self, index: int) -> dict:
        label = self.label if index == 3 else 0
        if index == 3 and self.killed.name and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"image": torch.rand(1, 8, 8), "label": torch.tensor(label)}
"""


@pytest.fixture
def some(tmp_path):
    """Write a config whose dataset has ``size`` samples, and return its path."""

    def write(size, batch_size=4, norm=False, **options):
        (tmp_path / "some.py").write_text(DATA)
        section = {key: options.pop(key) for key in ("drop_last", "workers") if key in options}
        dataset = {"type": "Some", "size": size, **options}
        path = tmp_path / "config.py"
        model = "dict(type='Normed')" if norm else "dict(type='MLP', in_channels=1, image_size=8, num_classes=2)"
        (tmp_path / "normed.py").write_text(
            "from torch import nn\nfrom visreg import MODELS\n@MODELS.register\n"
            "class Normed(nn.Sequential):\n    def __init__(self) -> None:\n"
            "        super().__init__(nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2))\n"
        )
        path.write_text(
            "plugins = ['./some.py', './normed.py']\n"
            "task = dict(type='Classification')\n"
            f"model = {model}\n"
            "loss = dict(type='CrossEntropyLoss')\n"
            "optimizer = dict(type='SGD', lr=0.1)\n"
            f"train = {dict(dataset=dataset, batch_size=batch_size, **section)!r}\n"
            f"run = dict(epochs=1, device='cpu', work_dir={str(tmp_path / 'work')!r})\n"
        )
        return path

    return write


@pytest.mark.parametrize(("size", "code"), [(0, 3), (1, 0), (3, 0), (4, 0), (5, 0)])
@pytest.mark.parametrize("workers", [0, 2])
def test_datasets_around_the_size_of_a_batch(size, code, workers, some, capsys):
    assert run("train", some(size, workers=workers)) == code
    assert ("the dataset is empty" in capsys.readouterr().err) == (size == 0)


def test_batch_norm_of_a_last_batch_of_one_says_what_to_do(some, capsys):
    assert run("train", some(5, norm=True)) == 3
    error = capsys.readouterr().err
    assert error == (
        "error: step 2: batch norm cannot train on a batch of one sample; set train.drop_last=True or another "
        "batch_size\n"
    )
    assert run("train", some(5, norm=True, drop_last=True)) == 0


def test_a_label_beyond_the_outputs_names_the_sample(some, capsys):
    assert run("train", some(8, label=7)) == 3
    error = capsys.readouterr().err
    assert "sample 3 has the label 7, and the model has no output for it; correct the label or num_classes" in error
    assert len(error.splitlines()) == 1


def test_training_ends_with_the_same_weights_though_a_worker_was_killed(some, tmp_path, capsys, survived):
    found = []
    for killed in ("", str(tmp_path / "killed")):
        assert run("train", some(40, workers=2, killed=killed)) == 0
        found.append(weights(tmp_path))
        shutil.rmtree(tmp_path / "work")
    assert "was ended by SIGKILL while making batch" in capsys.readouterr().out
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())
    survived("workers killed in a training", 1, 1)
