"""What `visreg check CONFIG --data` finds: all that is wrong with the samples, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image

from tests.test_cli import run
from visreg.data import DataInfo
from visreg.data_check import SHOWN, sample_problems
from visreg.datasets.digits import Digits

INFO = DataInfo(name="some", classes=("a", "b", "c"))
BOXES = [[1.0, 2.0, 5.0, 6.0], [0.0, 0.0, 10.0, 8.0]]


def sample(**changes):
    """Return a sample of every key, 10 wide and 8 high, without fault but for ``changes``."""
    good = {
        "image": torch.zeros(3, 8, 10, dtype=torch.uint8),
        "label": torch.tensor(2),
        "mask": torch.full((8, 10), 255),
        "boxes": torch.tensor(BOXES),
        "labels": torch.tensor([0, 2]),
        "masks": torch.ones(2, 8, 10, dtype=torch.bool),
        "index": 3,
    }
    return {**good, **changes}


def test_a_good_sample_has_no_problems():
    assert sample_problems(sample(), INFO) == []
    assert sample_problems(sample(image=torch.rand(3, 8, 10)), INFO) == []
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 8, 10).bool()}
    assert sample_problems(sample(**none), INFO) == []
    assert sample_problems({"anything": "else"}, INFO) == []


def boxes(*changed):
    return torch.tensor([BOXES[0], [*changed]])


PROBLEMS = [
    ({"image": torch.zeros(8, 10)}, "image: expected .* of 3 dimensions, got torch.float32 (8, 10)"),
    ({"image": torch.zeros(3, 8, 10).long()}, "got torch.int64"),
    ({"image": "a.png"}, "image: expected .*, got str"),
    ({"image": torch.full((3, 8, 10), 2.0)}, "image: floats must be 0..1, got 2..2"),
    ({"image": torch.full((3, 8, 10), math.nan)}, "image: floats must be 0..1, got nan..nan"),
    ({"label": torch.tensor(3)}, "label: 3 is not below 3, the number of classes"),
    ({"label": torch.tensor(-1)}, "label: -1 is negative"),
    ({"label": torch.tensor(1.0)}, "label: expected torch.int64 of 0 dimensions"),
    ({"label": torch.tensor([1])}, "label: expected torch.int64 of 0 dimensions"),
    ({"label": 1}, "label: expected torch.int64 of 0 dimensions, got int"),
    ({"mask": torch.zeros(8, 9).long()}, "mask: is 8×9, and the image is 8×10"),
    ({"mask": torch.full((8, 10), 7)}, "mask: 7 is not below 3"),
    ({"boxes": boxes(5, 5, 5, 7)}, "boxes: number 1, [5, 5, 5, 7], has no area"),
    ({"boxes": boxes(5, 5, 4, 7)}, "has no area; a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2"),
    ({"boxes": boxes(5, 5, 12, 7)}, "reaches out of its image, which is 10 wide and 8 high"),
    ({"boxes": boxes(-2, 5, 5, 7)}, "reaches out"),
    ({"boxes": boxes(1, 5, 5, 9.5)}, "reaches out"),
    ({"boxes": boxes(1, math.nan, 5, 7)}, "is not finite"),
    ({"boxes": boxes(1, 2, math.inf, 7)}, "is not finite"),
    ({"boxes": torch.zeros(2, 5)}, "boxes: expected (M, 4), got (2, 5)"),
    ({"boxes": torch.zeros(2, 4).long()}, "boxes: expected torch.float32"),
    ({"labels": torch.tensor([0, 9])}, "labels: 9 is not below 3"),
    ({"labels": torch.tensor([0])}, "labels: are 1 for 2 boxes"),
    ({"masks": torch.ones(2, 8, 9).bool()}, "masks: are 8×9, and the image is 8×10"),
    ({"masks": torch.zeros(1, 8, 10).bool()}, "masks: are 1 for 2 boxes"),
    (
        {"masks": torch.arange(2)[:, None, None].expand(2, 8, 10).bool()},
        "number 0 is empty, and its box is [1, 2, 5, 6]",
    ),
    ({"crowd": torch.zeros(3).bool()}, "crowd: are 3 for 2 boxes"),
    ({"crowd": torch.zeros(2)}, "crowd: expected torch.bool of 1 dimensions"),
    ({"area": torch.ones(1)}, "area: are 1 for 2 boxes"),
]


@pytest.mark.parametrize(("change", "problem"), PROBLEMS)
def test_each_fault_is_found_and_alone(change, problem):
    (found,) = sample_problems(sample(**change), INFO)
    for part in problem.split(".*"):
        assert part in found


def test_a_sample_must_be_what_its_dataset_promises():
    promised = DataInfo(
        name="some", sample={"image": torch.zeros(1, 4, 4, dtype=torch.uint8), "label": torch.tensor(0)}
    )
    good = {"image": torch.ones(1, 4, 4, dtype=torch.uint8), "label": torch.tensor(7)}
    assert sample_problems(good, promised) == []
    assert sample_problems(good, promised, num_classes=5) == ["label: 7 is not below 5, the number of classes"]
    assert sample_problems({"image": good["image"]}, promised) == ["label: is missing"]
    wide = {**good, "image": torch.ones(1, 4, 5, dtype=torch.uint8)}
    (problem,) = sample_problems(wide, promised)
    assert problem == "image: the dataset promises torch.uint8 (1, 4, 4), got torch.uint8 (1, 4, 5)"


def test_real_samples_have_no_problems():
    dataset = Digits(train=False)
    dataset.open()
    assert [sample_problems(dataset[index], dataset.info) for index in range(50)] == [[]] * 50


@pytest.fixture
def pets(tmp_path):
    """Folders of ten images each, train and val."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(5):
                Image.effect_noise((32, 32), 40 + number).save(tmp_path / "pets" / split / name / f"{number}.png")
    return tmp_path / "pets"


@pytest.fixture
def config(pets, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        f"""
plugins = ["./faulty.py"]
task = dict(type="Classification")
model = dict(type="MLP", in_channels=3, image_size=32, num_classes=2, widths=[4])
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]
optimizer = dict(type="SGD", lr=0.1)
train = dict(dataset=dict(type="ImageFolder", root={str(pets)!r}, split="train"), batch_size=4)
val = dict(dataset=dict(type="ImageFolder", root={str(pets)!r}, split="val", size=32), batch_size=4)
run = dict(epochs=1, device="cpu", work_dir={str(tmp_path / "work")!r})
"""
    )
    (tmp_path / "faulty.py").write_text(FAULTY)
    return path


FAULTY = """
import os, signal
import torch
from visreg import DATASETS
from visreg.data import DataInfo, Dataset

@DATASETS.register
class Faulty(Dataset):
    info = DataInfo(name="faulty", classes=("cat", "dog"))
    def open(self) -> None: ...
    def __len__(self) -> int: return 300
    def __getitem__(self, index: int) -> dict:
        if index in (5, 150, 299):
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 7:
            raise KeyError("oops")
        label = 7 if index % 100 == 50 else 1
        return {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "label": torch.tensor(label)}
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_good_data_passes(workers, config, capsys, tmp_path):
    assert run("check", config, "--data", "--workers", workers) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "every sample of every split can be used"
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_is_wrong_is_listed_at_once(workers, config, pets, capsys):
    (pets / "train" / "cat" / "1.png").write_bytes(b"")
    torn = pets / "train" / "dog" / "2.png"
    torn.write_bytes(torn.read_bytes()[:200])
    Image.new("RGB", (31, 32)).save(pets / "val" / "cat" / "4.png")
    crop = "train.transforms=[dict(type='RandomCrop', size=28), dict(type='Resize', size=[32, 32])]"
    Image.new("RGB", (20, 20)).save(pets / "train" / "dog" / "4.png")
    assert run("check", config, "--data", "--workers", workers, "--set", crop) == 3
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert [line.partition("]")[0] for line in lines[1:]] == ["train[1", "train[7", "train[9", "val[4"]
    assert "train/cat/1.png: cannot be read as an image: " in lines[1]
    assert "train/dog/2.png: cannot be read as an image: OSError: " in lines[2]
    small = f"{pets}/train/dog/4.png: RandomCrop: crop size (28, 28) is larger than the image, (20, 20)"
    assert lines[3].startswith(f"train[9] {small}")
    assert "val/cat/4.png: is 32×31, but size says 32" in lines[4]
    assert "error: 4 things wrong with the data" in error


OF_DATA = {
    "model.num_classes=3": "model.num_classes: the model has 3 outputs for the 2 classes",
    "schedule=dict(type='Cosine', warmup_steps=20)": "warmup_steps: 20 is the whole run of 3 steps; lower it",
}


@pytest.mark.parametrize("override", OF_DATA)
def test_what_shows_once_the_data_is_open_is_said_as_train_says_it(override, config, pets, capsys, tmp_path):
    assert run("train", config, "--set", override) == 2
    assert OF_DATA[override] in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
    (pets / "train" / "cat" / "0.png").write_bytes(b"")
    assert run("check", config, "--data", "--workers", 0, "--set", override) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["train[0]", "train"]
    assert OF_DATA[override] in lines[2]


def test_a_sample_that_kills_its_worker_is_but_one_finding(config, capsys):
    faulty = "train.dataset=dict(type='Faulty')"
    assert run("check", config, "--data", "--workers", 2, "--set", faulty) == 3
    lines = capsys.readouterr().out.splitlines()[1:]
    found = [(line.partition(":")[0], line.partition(": ")[2]) for line in lines]
    assert sorted(place for place, _ in found) == sorted(f"train[{index}]" for index in (5, 7, 50, 150, 250, 299))
    reasons = dict(found)
    assert reasons["train[7]"] == "KeyError: 'oops'"
    assert reasons["train[50]"] == "label: 7 is not below 2, the number of classes"
    for index in (5, 150, 299):
        assert "was ended by SIGKILL" in reasons[f"train[{index}]"]


def test_data_that_is_not_there_does_not_hide_the_rest(config, pets, capsys):
    (pets / "val" / "cat" / "0.png").write_bytes(b"torn")
    (pets / "train").rename(pets / "elsewhere")
    assert run("check", config, "--data", "--workers", 0) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("train: ")
    assert "no such folder" in lines[1]
    assert lines[2].startswith("val[0]: ")


def test_a_screen_shows_some_and_a_file_all(config, pets, capsys, tmp_path):
    for number in range(SHOWN + 5):
        (pets / "train" / "cat" / f"torn{number}.png").touch()
    assert run("check", config, "--data", "--workers", 0, "--out", tmp_path / "found.txt") == 3
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 1 + SHOWN + 1
    assert out.splitlines()[-1] == "... and 5 more"
    assert f"{SHOWN + 5} things wrong" in error
    assert len((tmp_path / "found.txt").read_text().splitlines()) == SHOWN + 5
    assert run("check", config, "--data", "--workers", 0, "--out", tmp_path / "none" / "found.txt") == 6


def test_mistakes_in_the_config_come_first(config, capsys):
    assert run("check", config, "--data", "--set", "optimizer.lr=-1") == 2
    assert run("check", config, "--data", "--workers", "many") == 2


STREAM = """
import torch
from torch.utils.data import IterableDataset
from visreg import DATASETS

@DATASETS.register
class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "label": torch.tensor(1)}
"""


def test_a_stream_is_not_looked_at_and_said_so(config, capsys):
    (config.parent / "faulty.py").write_text(STREAM)
    stream = "train=dict(dataset=dict(type='Endless'), batch_size=4, samples_per_epoch=8)"
    assert run("check", config, "--data", "--workers", 0, "--set", stream) == 0
    assert "train: Endless is a stream: its samples are not looked at" in capsys.readouterr().out


def test_all_mistakes_of_annotations_are_listed_each_in_its_line(config, tmp_path, capsys):
    for folder in ("images", "labels"):
        (tmp_path / "yolo" / folder).mkdir(parents=True)
    for number in range(30):
        Image.new("RGB", (32, 32)).save(tmp_path / "yolo/images" / f"{number}.png")
        (tmp_path / "yolo/labels" / f"{number}.txt").write_text("0 .5 .5 .2\n")
    dataset = {"type": "YOLOFolder", "root": str(tmp_path / "yolo"), "classes": ["cat"]}
    values = [
        f"train.dataset={dataset}", "train.batch_size=4", "val=None", "metrics=[]", 'task={"type": "Detection"}',
        'model={"type": "YOLO", "num_classes": 1}', 'loss={"type": "YOLOLoss"}',
    ]  # fmt: skip
    assert run("check", config, "--data", "--workers", 0, "--set", *values) == 3
    lines = capsys.readouterr().out.splitlines()
    assert sum(".txt:1: expected five numbers" in line for line in lines) == 30
    assert run("train", config, "--set", *values) == 3
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: 30 things are wrong:"
    assert told[-1] == "  ... and 11 more"
