"""Other frameworks, each training the same thing as its own tutorial says, for the benchmarks beside this file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

from attrs import frozen
from torch import Tensor, nn
from torch.optim import Optimizer

Pair = tuple[Tensor, Tensor]  # a batch of images (N, …) and labels (N,)


@frozen
class Loader:
    """Batches, as often as they are asked for; what frameworks ask of a DataLoader."""

    batches: Callable[[], Iterator[Pair]]
    length: int
    dataset: tuple[()] = ()  # some look for one

    def __iter__(self) -> Iterator[Pair]:
        return self.batches()

    def __len__(self) -> int:
        return self.length


@frozen
class Fit:
    """What is to be trained, and on what.

    Attributes:
        test: what to evaluate on after each epoch, if at all.
        folder: where to write what is written.
        bare: whether to switch off all that can be.
    """

    model: nn.Module
    loss: nn.Module
    optimizer: Optimizer
    train: Iterable[Pair]
    test: Iterable[Pair] | None
    epochs: int
    folder: str
    bare: bool = False


def mmengine(fit: Fit) -> float:
    """Train by OpenMMLab's runner; return the accuracy, 0 to 1."""
    from mmengine.evaluator import BaseMetric
    from mmengine.model import BaseModel
    from mmengine.optim import OptimWrapper
    from mmengine.runner import Runner

    class Model(BaseModel):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = fit.model, fit.loss

        def forward(self, image: Tensor, label: Tensor, mode: str) -> Any:
            output = self.model(image)
            return {"loss": self.loss(output, label)} if mode == "loss" else [(output, label)]

    class Accuracy(BaseMetric):  # type: ignore[misc]  # it has no types
        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.results += [(right(*pair), len(pair[1])) for pair in data_samples]

        def compute_metrics(self, results: list[Any]) -> dict[str, float]:
            return {"accuracy": sum(one for one, _ in results) / sum(size for _, size in results)}

    hooks = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
    evaluated = {"val_dataloader": fit.test, "val_cfg": {}, "val_evaluator": [Accuracy()]} if fit.test else {}
    runner = Runner(
        model=Model(),
        work_dir=fit.folder,
        train_dataloader=fit.train,
        train_cfg={"by_epoch": True, "max_epochs": fit.epochs},
        optim_wrapper=OptimWrapper(fit.optimizer),
        default_hooks=dict.fromkeys(hooks) if fit.bare else None,
        **evaluated,
    )
    runner.train()
    return float(runner.message_hub.get_scalar("val/accuracy").current()) if fit.test else 0.0


def lightning(fit: Fit) -> float:
    """Train by Lightning's trainer; return the accuracy, 0 to 1."""
    from lightning import LightningModule, Trainer

    counts = [0, 0]

    class Module(LightningModule):  # type: ignore[misc]  # its types are left out, as it need not be installed
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = fit.model, fit.loss

        def training_step(self, batch: Pair, index: int) -> Tensor:
            loss: Tensor = self.loss(self.model(batch[0]), batch[1])
            if not fit.bare:
                self.log("loss", loss)
            return loss

        def on_validation_epoch_start(self) -> None:
            counts[:] = 0, 0

        def validation_step(self, batch: Pair, index: int) -> None:
            counts[:] = counts[0] + right(self.model(batch[0]), batch[1]), counts[1] + len(batch[1])

        def configure_optimizers(self) -> Optimizer:
            return fit.optimizer

    options: dict[str, Any] = {"barebones": True} if fit.bare else {"default_root_dir": fit.folder}
    trainer = Trainer(max_epochs=fit.epochs, accelerator="cpu", devices=1, **options)
    trainer.fit(Module(), fit.train, fit.test)
    return counts[0] / max(counts[1], 1)


def ignite(fit: Fit) -> float:
    """Train by ignite's engine, with the progress bar, the running loss and the checkpoints of its tutorial."""
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.handlers import Checkpoint, DiskSaver
    from ignite.handlers.tqdm_logger import ProgressBar
    from ignite.metrics import Accuracy, RunningAverage

    trainer = create_supervised_trainer(fit.model, fit.optimizer, fit.loss)
    evaluator = create_supervised_evaluator(fit.model, metrics={"accuracy": Accuracy()})
    if not fit.bare:
        RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
        ProgressBar().attach(trainer, ["loss"])
        saved = {"model": fit.model, "optimizer": fit.optimizer, "trainer": trainer}
        trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(saved, DiskSaver(fit.folder, require_empty=False)))
    if fit.test is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(fit.test))
    trainer.run(fit.train, max_epochs=fit.epochs)
    return float(evaluator.state.metrics.get("accuracy", 0.0))


def accelerate(fit: Fit) -> float:
    """Train by a loop of one's own with Hugging Face's Accelerate, which has nothing to switch off."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, train, test = accelerator.prepare(fit.model, fit.optimizer, fit.train, fit.test)
    correct = size = 0
    for _ in range(fit.epochs):
        model.train()
        for image, label in train:
            optimizer.zero_grad()
            accelerator.backward(fit.loss(model(image), label))
            optimizer.step()
        model.eval()
        correct = size = 0
        for image, label in test or ():
            correct, size = correct + right(model(image), label), size + len(label)
    return correct / max(size, 1)


def right(output: Tensor, label: Tensor) -> int:
    """Return how many labels (N,) logits (N, C) are right about."""
    return int((output.argmax(1) == label).sum())


# Of each peer: the package to import, its name on PyPI, and how it trains.
PEERS: dict[str, tuple[str, str, Callable[[Fit], float]]] = {
    "mmengine": ("mmengine", "mmengine", mmengine),
    "ignite": ("ignite", "pytorch-ignite", ignite),
    "Lightning": ("lightning", "lightning", lightning),
    "Accelerate": ("accelerate", "accelerate", accelerate),
}


def installed() -> dict[str, str]:
    """Return the version of each peer that is there."""
    return {name: version(package) for name, (module, package, _) in PEERS.items() if importlib.util.find_spec(module)}
