"""From a config to a runner: the one place where everything that a config names is made."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import UninitializedParameter

from visreg import dist
from visreg.batching import Batching
from visreg.build_data import DataBuilder
from visreg.config import Config, show_path
from visreg.data import DataInfo, Dataset, Transform
from visreg.datasets.subsets import Subset
from visreg.errors import ConfigError, Problem, ResourceError
from visreg.gradient_checkpointing import checkpoint_gradients
from visreg.loader import Loader, SampleLoader
from visreg.parts import groups_for, schedule_context
from visreg.registry import (
    DATASETS,
    HOOKS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    TRANSFORMS,
)  # fmt: skip
from visreg.runner import Runner
from visreg.schedule import Schedule
from visreg.task import Task
from visreg.weights import tell

logger = logging.getLogger("visreg")

FUSED = ("Adam", "AdamW", "SGD")  # PyTorch's optimizers that have a fused step on every GPU


def build_runner(
    config: Config | Mapping[str, Any],
    plugin_files: Collection[Path] = (),
    *,
    weights: bool = True,
    begin: Callable[[Path], None] = lambda folder: None,
) -> Runner:
    """Build everything that training by ``config`` takes.

    Args:
        config: what to build.
        plugin_files: files that register components.
        weights: whether to read the weights that models begin from; not where those of a checkpoint are to follow.
        begin: is called with the run's folder when the config has been checked and nothing been built, in every
            process.

    Raises:
        ConfigError: if the config has mistakes; nothing has been built by then.
        CheckpointError: if weights that a model begins from are damaged.
        DataError: if the data is missing, damaged or empty.
        ResourceError: if there is no such device, the work directory cannot be written, or weights cannot be had.
    """
    builder = _Builder(config, plugin_files, weights)
    work_dir = builder.schema.work_dir(builder.config.file)
    begin(work_dir)
    train_loader = builder.loader("train")
    val_loader = builder.loader("val") if builder.schema.val else None
    runner = builder.runner(train_loader, val_loader, work_dir)
    builder.make_work_dir()  # not before: a config can be refused
    return runner


def build_trainer(config: Config, plugin_files: Collection[Path] = (), loader: Loader | None = None) -> Runner:
    """Build what taking steps takes: no evaluation, no folder, no weights to begin from.

    Args:
        config: what to build.
        plugin_files: files that register components.
        loader: what to take the batches from, in place of the config's own.

    Raises:
        ConfigError: if the config has mistakes, and what else `build_runner` does.
    """
    builder = _Builder(config, plugin_files)
    return builder.runner(loader or builder.loader("train"), None, builder.schema.work_dir(config.file))


def build_evaluator(config: Config | Mapping[str, Any], split: str, plugin_files: Collection[Path] = ()) -> Runner:
    """Build what an evaluation on ``split``, ``"val"`` or ``"test"``, takes: no optimizer, no training data.

    Raises:
        ConfigError: if the config has mistakes, or no such section.
        DataError: if the data is missing, damaged or empty.
    """
    builder = _Builder(config, plugin_files)
    builder.section(split)
    return builder.evaluator(builder.loader(split))


def build_predictor(
    config: Config | Mapping[str, Any], split: str, plugin_files: Collection[Path] = ()
) -> tuple[Runner, list[Transform], DataInfo]:
    """Build what predictions for further images take: a runner without data, and what each image passes through.

    The dataset of ``split`` is not opened, and need not be there; what is known of it all the same is returned too.

    Raises:
        ConfigError: if the config has mistakes, or no such section.
    """
    builder = _Builder(config, plugin_files)
    section = builder.section(split)
    dataset: Dataset = builder.build(DATASETS, section.dataset, (split, "dataset"))
    transforms = builder.build_all(TRANSFORMS, section.transforms, (split, "transforms"))
    return builder.evaluator(None), transforms, dataset.info


def build_samples(
    config: Config | Mapping[str, Any], plugin_files: Collection[Path] = ()
) -> Iterator[tuple[str, Callable[[], tuple[Dataset, list[Transform]]], Callable[[int], None]]]:
    """Yield the name of each split, what opens its dataset and makes its transforms, and what then tries one sample.

    To try one is to put together what trains on it, up to the first step, which shows mistakes of the config beside
    such data. Of val and test nothing is tried: their classes are compared with train's as they are opened.

    Raises:
        ConfigError: if the config has mistakes.
    """
    builder = _Builder(config, plugin_files)
    for split in ("train", "val", "test"):
        if getattr(builder.schema, split) is not None:
            yield split, partial(builder.samples, split), partial(builder.attempt, split)


class _Builder(DataBuilder):
    """Builds the parts of one config, each failure with the place in the config that it comes from."""

    def make_work_dir(self) -> None:
        """Make the run's folder and make sure that it can be written; leave no trace in one that is there."""
        folder = self.schema.work_dir(self.config.file)
        if dist.is_main():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
                found = folder.stat()
            except OSError as error:
                raise ResourceError(
                    f"{folder}: cannot write the run's folder: {error.strerror}; set run.work_dir"
                ) from None
            if found.st_mode & stat.S_IWOTH:
                logger.warning("%s: every user of this machine can write what is in it; chmod o-w", folder)
            elif os.geteuid() not in (0, found.st_uid):  # root is in a container, as a rule
                logger.warning("%s: belongs to another user, who can change what is in it", folder)

    def task(self, loader: Loader | None) -> Task:
        """Return the task on its device, with initial weights that depend on the seed alone, tried on some data."""
        torch.manual_seed(self.run.seed)
        parts = {"model": self.build(MODELS, self.schema.model, ("model",))}
        if self.schema.loss is not None:
            parts["loss"] = self.build(LOSSES, self.schema.loss, ("loss",))
        task: Task = self.build(TASKS, self.schema.task, ("task",), **parts)
        for report in self.weights.reports:
            tell(report, task, loader.info.classes if loader is not None else ())
        task = task.to(self.device)
        if self.run.channels_last:  # a convolution takes the order of its weights over
            task = task.to(memory_format=torch.channels_last)
        if loader is not None:
            self._try(task, loader)
        if dist.world_size() > 1:
            torch.manual_seed(self.run.seed + dist.rank() + 1)  # dropout is to differ between processes
        return task

    @torch.no_grad()
    def _try(self, task: Task, loader: Loader) -> None:
        """Predict a batch, where lazy layers wait for their shapes or the data told its classes only when read."""
        lazy = any(isinstance(parameter, UninitializedParameter) for parameter in task.parameters())
        if not lazy and not self.unread:
            return
        batch = next(loader.epoch(0), None)
        if batch is None:
            return
        task.eval()
        try:
            task.predict(batch)
        except ValueError as error:
            sizes = {key: tuple(value.shape[1:]) for key, value in batch.items() if key in ("image", "clip")}
            shapes = ", ".join(f"{key} {size}" for key, size in sizes.items())
            message = f"cannot take the samples of {loader.info.name}, {shapes}: {error}; give all sections a Resize"
            raise ConfigError([Problem("model", message, self.config.where(("model",)))]) from error
        mismatch = task.mismatch(batch, loader.info)
        task.train()
        if mismatch:
            path = ("model", "num_classes")
            raise ConfigError([Problem(show_path(path), mismatch, self.config.where(path))])

    def runner(self, train_loader: Loader, val_loader: Loader | None, work_dir: Path) -> Runner:
        """Put the parts together."""
        task, steps = self.task(train_loader), len(train_loader)
        optimizer, schedule, total_steps = self._learning(task, steps)
        eval_every = self.run.eval_every or (1 if self.run.epochs else steps)
        return Runner(
            task=task,
            optimizer=optimizer,
            schedule=schedule,
            train_loader=train_loader,
            val_loader=val_loader,
            total_steps=total_steps,
            eval_steps=eval_every * (steps if self.run.epochs else 1),
            accumulate=self.run.accumulate,
            compile=self.run.compile,
            on_nan=self.run.on_nan,
            max_rollbacks=self.run.max_rollbacks,
            work_dir=work_dir,
            **self._common(),
        )

    def _learning(self, task: Task, steps: int) -> tuple[torch.optim.Optimizer, Schedule, int]:
        """Return the optimizer, the schedules and how many steps to take, where an epoch has so many."""
        checkpoint_gradients(task.model, self.run.gradient_checkpointing)
        params = groups_for(task, self.schema)
        optimizer = self.build(OPTIMIZERS, self.schema.optimizer, ("optimizer",), params=params, **self._fused())
        total_steps = self.run.steps or (self.run.epochs or 0) * steps
        return optimizer, self.schedule(optimizer, total_steps, -(-total_steps // steps)), total_steps

    def attempt(self, split: str, index: int) -> None:
        """Put together what trains on a split, if it is the one, and let it predict one of its samples.

        Raises:
            ConfigError: if the data, now that it is open, shows a mistake in the config.
            DataError: if there is no whole batch in it.
        """
        if split != "train":
            return
        section, dataset = self.section(split), self.opened[split]
        one = Subset(dataset=dataset, indices=[index])
        one.open()
        loader = SampleLoader(
            dataset=one,
            transforms=self.build_all(TRANSFORMS, section.transforms, (split, "transforms")),
            batching=Batching(size=1, batch_size=1, train=False, seed=self.run.seed),
            batch_transforms=self.build_all(TRANSFORMS, section.batch_transforms, (split, "batch_transforms")),
            device=self.device,
            workers=0,
        )
        self._learning(self.task(loader), len(self.batching(split, section, dataset)))

    def _fused(self) -> dict[str, bool]:
        """Return what makes an optimizer's step one operation on a GPU, which can also leave itself out there."""
        spec = self.schema.optimizer
        able = spec["type"] in FUSED and not spec.get("foreach") and not spec.get("differentiable")
        return {"fused": True} if self.device.type == "cuda" and able else {}

    def evaluator(self, loader: Loader | None) -> Runner:
        """Put together what an evaluation needs."""
        return Runner(task=self.task(loader), val_loader=loader, **self._common())

    def _common(self) -> dict[str, Any]:
        return {
            "metrics": self.build_all(METRICS, self.schema.metrics, ("metrics",)),
            "hooks": [self.build(HOOKS, spec, path) for path, spec in self.schema.all_hooks],
            "precision": self.run.precision,
            "device": self.device,
            "config": self.config.values,
        }

    def schedule(self, optimizer: torch.optim.Optimizer, total_steps: int, total_epochs: int) -> Schedule:
        """Return the schedules, by what they are counted in."""
        made: dict[str, list[Any]] = {"step": [], "epoch": [], "eval": []}
        for spec in self.schema.schedules:
            own, length, every = schedule_context(spec, total_steps, total_epochs)
            scheduler = self.build(SCHEDULES, own, ("schedule",), optimizer=optimizer, **length)
            made[every].append((scheduler, spec.get("monitor", "")) if every == "eval" else scheduler)
        return Schedule(per_step=made["step"], per_epoch=made["epoch"], per_eval=made["eval"])
