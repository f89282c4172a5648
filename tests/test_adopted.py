"""The names that torch and torchvision offer, against the modules themselves."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest

from visreg import adopted
from visreg.registry import DATASETS, LOSSES, MODELS, OPTIMIZERS, SCHEDULES, TRANSFORMS

EXPORTS = ["torch.optim", "torch.optim.lr_scheduler", "torch.nn.modules.loss", "torchvision.datasets",
           "torchvision.transforms.v2"]  # fmt: skip


@pytest.mark.parametrize("module", EXPORTS)
def test_every_exported_name_is_there(module):
    names = adopted.exported(module)()
    found = importlib.import_module(module)
    assert names
    assert all(callable(getattr(found, name)) for name in names)
    assert all(target == f"{module}:{name}" for name, target in names.items())


@pytest.mark.parametrize("module", EXPORTS)
def test_nothing_that_is_exported_is_missed(module):
    found = importlib.import_module(module)
    public = getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")])
    classes = {name for name in public if name[:1].isupper() and isinstance(getattr(found, name), type)}
    missed = classes - set(adopted.exported(module)())
    assert missed <= adopted.NOT_COMPONENTS | {"AutoAugmentPolicy", "InterpolationMode"}


def test_models_are_those_that_torchvision_lists():
    models = pytest.importorskip("torchvision.models")
    for folder in (models, models.detection, models.segmentation, models.video):
        names = adopted.registered_models(folder.__name__)()
        assert set(names) == set(models.list_models(module=folder))


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (OPTIMIZERS, "SGD"), (OPTIMIZERS, "AdamW"), (LOSSES, "CrossEntropyLoss"), (SCHEDULES, "CosineAnnealingLR"),
        (MODELS, "resnet18"), (MODELS, "fasterrcnn_resnet50_fpn"), (DATASETS, "CIFAR10"), (TRANSFORMS, "RandomCrop"),
    ],
)  # fmt: skip
def test_they_can_be_had_by_their_own_name(registry, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torchvision's import says is not at issue
        assert registry.get(name).__name__ == name


def test_listing_them_imports_neither():
    code = (
        "import sys; from visreg import adopted; "
        f"[adopted.exported(module)() for module in {EXPORTS}]; adopted.registered_models('torchvision.models')(); "
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version():
    torch = importlib.import_module("torch")
    assert adopted.version("torch") == f"torch {torch.__version__.partition('+')[0]}" or "+" in adopted.version("torch")
    with pytest.raises(ModuleNotFoundError):
        adopted.exported("no_such_package")()
