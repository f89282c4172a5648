"""What the tests share: where the repository and the real data are, and small configs that train in no time."""

import os
from pathlib import Path

import pytest
import torch
from installed import on_path

from visreg.registry import KINDS

# Tensors are so small here that threads only wait for one another. Their number also decides the last bits of a sum, so
# this process and those it starts have the same.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent
DATA = next(
    (
        folder
        for folder in (Path(os.environ.get("VISREG_DATA", "data")), ROOT.parent / "shared" / "data")
        if folder.is_dir()
    ),
    None,
)

SMALL = """
task = dict(type="Classification", mean=[0.5], std=[0.5])
model = dict(type="MLP", in_channels=1, image_size=28, num_classes=10, widths=[16])
loss = dict(type="CrossEntropyLoss")
metrics = [dict(type="Accuracy")]
optimizer = dict(type="SGD", lr=0.1, momentum=0.9)
train = dict(dataset=dict(type="Digits", train=True), batch_size=256)
val = dict(dataset=dict(type="Digits", train=False), batch_size=256)
run = dict(epochs=2)
"""


@pytest.fixture(autouse=True)
def only_installed_components():
    """Forget after each test what its plugin files registered."""
    before = {kind: dict(registry.files) for kind, registry in KINDS.items()}
    yield
    for kind, registry in KINDS.items():
        registry.files = before[kind]


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """Run in a folder of its own, and put the flags of the process back that a config can set."""
    monkeypatch.chdir(tmp_path)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A config file that trains a perceptron on handwritten digits, in a folder of its own."""
    path = tmp_path / "small.py"
    path.write_text(SMALL + f"run['work_dir'] = {str(tmp_path / 'work')!r}\n")
    return path


@pytest.fixture
def mnist_root() -> str:
    """The folder that holds MNIST; the test is skipped where there is none."""
    if DATA is None or not (DATA / "MNIST" / "raw").is_dir():
        pytest.skip("needs the MNIST files under $VISREG_DATA or data/")
    return str(DATA)


@pytest.fixture
def world(monkeypatch):
    """Return what makes this process one of several, as far as visreg can see."""

    def become(rank, size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))

    return become


@pytest.fixture
def site(tmp_path):
    """A folder in which packages look installed."""
    with on_path(tmp_path):
        yield tmp_path
