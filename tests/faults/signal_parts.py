"""A plugin whose run sends a signal to itself at a place of choice, and is otherwise an ordinary run with everything.

``KILL`` in the environment says where, at which step, with which signal, and how often: ``"forward 3 15 1"``. The hook
leaves the step in ``NOW``, for the model and the dataset, which do not know it.
"""

import os
import time

import torch
from torch import Tensor, nn

from visreg import DATASETS, HOOKS, METRICS, MODELS, DataError, DataInfo, Dataset, Hook, Metric, faults


def reach(place, process=None):
    """Send the signal if it is to be sent here; one that ends nothing is as if nothing had come."""
    where, step, number, times = os.environ.get("KILL", "none 0 0 0").split()
    if where == place and os.environ["NOW"] == step:
        for _ in range(int(times)):
            if os.environ.get("TO_GROUP"):
                os.killpg(0, int(number))
            else:
                os.kill(process or os.getpid(), int(number))
        if place.startswith("wait"):
            time.sleep(60)
            raise AssertionError("the wait_for_data was not left")


def samples(train):
    generator = torch.Generator().manual_seed(int(train))
    image = torch.randint(0, 256, (20, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return image, (image.float().mean((1, 2, 3)) > 127).long()


@DATASETS.register
class SignalData(Dataset):
    """Twenty samples; those for training have noise of their own."""

    def __init__(self, train: bool) -> None:
        self.train = train
        self.main = os.getpid()

    @property
    def info(self) -> DataInfo:
        sample = {"image": torch.zeros(1, 4, 4, dtype=torch.uint8), "label": torch.tensor(0)}
        return DataInfo(name="signals", classes=("dark", "light"), sample=sample)

    def open(self) -> None:
        reach("open")
        if os.environ.get("RAISE") == "open":
            raise DataError("no data")

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if os.getpid() == self.main:
            reach("wait_for_data" if self.train else "wait_for_val_data")
        elif self.train and index == 7:
            os.environ["NOW"] = "0"  # a worker knows no step
            reach("wait_for_a_worker", self.main)
        image, label = samples(self.train)
        noise = torch.randint(0, 9, (1, 4, 4), dtype=torch.uint8) if self.train else 0
        return {"image": image[index] // 2 + noise, "label": label[index]}


@MODELS.register
class SignalNet(nn.Module):
    """Dropout and batch norm."""

    def __init__(self, num_classes: int = 2, image_size: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(image_size**2, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, num_classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        reach("forward" if self.training else "predict")
        return self.layers(image)


@METRICS.register
class SignalMetric(Metric):
    """Draws numbers, as no metric should, and knows when it is asked."""

    def names(self):
        return ("drawn",)

    def reset(self):
        self.drawn = 0.0

    def update(self, predictions, batch):
        self.drawn += float(torch.rand(()))
        reach("update")

    def compute(self):
        return {"drawn": self.drawn}


def _at(place):
    def method(self, runner):
        os.environ["NOW"] = str(runner.step + (place in ("before_step", "after_backward")))
        if place == "before_train":
            faults.inject = lambda point: reach(point)
        reach(place)
        if os.environ.get("RAISE") == f"{place} {runner.step}":
            raise ZeroDivisionError("a bug")

    return method


PLACES = (
    "before_train", "before_epoch", "before_step", "after_backward", "after_step", "before_eval", "after_eval",
    "after_epoch", "between_steps", "after_train",
)  # fmt: skip


@HOOKS.register
class SignalHook(type("Everywhere", (Hook,), {name: _at(name) for name in PLACES})):  # type: ignore[misc]
    """Is killed anywhere, and counts epochs."""

    epochs = 0

    def after_epoch(self, runner):
        self.epochs += 1
        super().after_epoch(runner)

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]
