"""A cache that two processes share in a run: they train as they do without, and decode each sample once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_picture import photo
from tiny import assert_same, tiny_config

from visreg.checkpoint import load, newest

COUNT, EPOCHS = 13, 3
# Notes each sample that is decoded, and how large the files in memory are that each process has made.
PLUGIN = """
import os
from pathlib import Path

from attrs import define
from visreg import DATASETS, HOOKS, Hook
from visreg.datasets.folder import ImageFolder


def note(name, text):
    with open(os.environ["NOTES"] + name, "a") as file:
        file.write(f"{text}\\n")


@DATASETS.register
@define(kw_only=True, eq=False)
class Noted(ImageFolder):
    def unread(self, index, epoch):
        note(".decoded", index)
        return ImageFolder.unread(self, index, epoch)


@HOOKS.register
class Memory(Hook):
    def after_train(self, runner):
        made = [path for path in Path("/proc/self/fd").iterdir() if "memfd:visreg samples" in os.path.realpath(path)]
        note(".memory", sum({path.stat().st_ino: path.stat().st_size for path in made}.values()))
        note(".files", ",".join(sorted({str(path.stat().st_ino) for path in made})))
"""


@pytest.fixture(scope="module", name="folder")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    for number in range(COUNT):
        path = folder / "pictures" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(50 + number, 60, seed=number).save(path)
    (folder / "noted.py").write_text(PLUGIN)
    return folder


def trained(folder, name, **train):
    """Return what two processes come to, how many samples they decoded, and the log."""
    transforms = [{"type": "RandomResizedCrop", "size": 32}, {"type": "RandomHorizontalFlip"}]
    dataset = {"type": "Noted", "root": str(folder / "pictures")}
    data = {"dataset": dataset, "transforms": transforms, "batch_size": 4, "in_memory": False, "workers": 0, **train}
    values = tiny_config(
        train=data, val=None, metrics=[],
        model={"type": "ConvNet", "in_channels": 3, "image_size": 32, "num_classes": 2},
        hooks=[{"type": "Checkpoint"}, {"type": "MetricsLog", "every": 1}, {"type": "Memory"}],
        run={"epochs": EPOCHS, "work_dir": str(folder / name)},
    )  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(values))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "visreg", "train", str(folder / f"{name}.json"), "--plugin", str(folder / "noted.py")],
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]),
            "VISREG_CACHE": str(folder / f"{name}.caches"), "NOTES": str(folder / name),
        },
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    return (losses, load(newest(folder / name / "checkpoints")[0])["task"]), done.stderr + done.stdout


@pytest.fixture(scope="module", name="expected")
def without_cache(folder):
    return trained(folder, "none")[0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_two_processes_train_from_one_cache_as_they_do_without(cache, workers, folder, expected):
    name = f"{cache}{workers}"
    found, said = trained(folder, name, cache=cache, workers=workers)
    assert_same(found, expected)
    assert said.count("decoded samples are kept in ") == 1
    assert "will be" not in said  # that no more are kept
    tried = 2  # by each process, to see what a sample holds
    assert len((folder / f"{name}.decoded").read_text().splitlines()) <= COUNT + tried


@pytest.mark.slow
def test_processes_share_one_file_in_memory(folder):
    trained(folder, "shared", cache="ram")
    one, other = ({*line.split(",")} for line in (folder / "shared.files").read_text().splitlines())
    assert len(one & other) == 1
    pixels = sum(3 * 60 * (50 + number) for number in range(COUNT))
    for line in (folder / "shared.memory").read_text().splitlines():
        assert pixels < int(line) < 1.2 * pixels  # and what the second has made for itself is empty
