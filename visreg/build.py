"""From a config to a runner: the one place where everything that a config names is made."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import UninitializedParameter

from visreg import dist
from visreg.batching import Batching
from visreg.check import check_config
from visreg.config import Config, ConfigPath, config_from, show_path
from visreg.data import Dataset, Sample, Transform
from visreg.datasets.wrappers import check_same
from visreg.errors import ConfigError, DataError, Problem, ResourceError, VisregError
from visreg.loader import Loader, SampleLoader, TensorLoader
from visreg.parts import groups_for, schedule_context
from visreg.registry import (
    DATASETS,
    HOOKS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SAMPLERS,
    SCHEDULES,
    TASKS,
    TRANSFORMS,
    Registry,
    Spec,
)  # fmt: skip
from visreg.runner import Runner
from visreg.sampler import Sampler
from visreg.schedule import Schedule
from visreg.schema import DataConfig, Schema
from visreg.stream import StreamLoader
from visreg.task import Task

logger = logging.getLogger("visreg")

GPU_SHARE = 0.25  # of a GPU's free memory: what a dataset held there may take


def build_runner(config: Config | Mapping[str, Any], plugin_files: Collection[Path] = ()) -> Runner:
    """Build everything that training by ``config`` takes.

    Raises:
        ConfigError: if the config has mistakes; nothing has been built by then.
        DataError: if the data is missing, damaged or empty.
        ResourceError: if there is no such device, or the work directory cannot be written.
    """
    builder = _Builder(config, plugin_files)
    train_loader = builder.loader("train")
    val_loader = builder.loader("val") if builder.schema.val else None
    work_dir = builder.work_dir()
    return builder.runner(train_loader, val_loader, work_dir)


def build_evaluator(config: Config | Mapping[str, Any], split: str, plugin_files: Collection[Path] = ()) -> Runner:
    """Build what an evaluation on ``split``, ``"val"`` or ``"test"``, takes: no optimizer, no training data.

    Raises:
        ConfigError: if the config has mistakes, or no such section.
        DataError: if the data is missing, damaged or empty.
    """
    builder = _Builder(config, plugin_files)
    if getattr(builder.schema, split) is None:
        raise ConfigError([Problem(split, f"the config has no section {split!r} to evaluate on")])
    return builder.evaluator(builder.loader(split))


def build_samples(
    config: Config | Mapping[str, Any], plugin_files: Collection[Path] = ()
) -> Iterator[tuple[str, Callable[[], tuple[Dataset, list[Transform]]]]]:
    """Yield the name of each split, and what opens its dataset and makes its transforms.

    Raises:
        ConfigError: if the config has mistakes.
    """
    builder = _Builder(config, plugin_files)
    for split in ("train", "val", "test"):
        if getattr(builder.schema, split) is not None:
            yield split, partial(builder.samples, split)


class _Builder:
    """Builds the parts of one config, each failure with the place in the config that it comes from."""

    def __init__(self, config: Config | Mapping[str, Any], plugin_files: Collection[Path]) -> None:
        self.config = config if isinstance(config, Config) else config_from(config)
        torch.use_deterministic_algorithms(False)  # an earlier run of this process may have asked for them
        self.schema: Schema = check_config(self.config, plugin_files=plugin_files)
        self.run = self.schema.run
        self.device = find_device(self.run.device)
        dist.join(self.device)
        if self.run.deterministic:
            torch.use_deterministic_algorithms(True)
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
            torch.backends.cudnn.benchmark = False
        self.opened: dict[str, Dataset] = {}
        self.unread: set[str] = set()  # splits whose classes were not known before they were read

    def build(self, registry: Registry[Any], spec: Spec, path: ConfigPath, **context: Any) -> Any:
        """Return what ``spec`` describes; a bad argument that only shows now is a mistake in the config like any."""
        location = self.config.where(path)
        try:
            return registry.build(spec, location, **context)
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            if isinstance(error, VisregError):
                raise
            notes = "; ".join(getattr(error, "__notes__", ()))
            raise ConfigError(
                [Problem(show_path(path), f"{type(error).__name__}: {error} ({notes})", location)]
            ) from error

    def build_all(self, registry: Registry[Any], specs: Sequence[Spec], path: ConfigPath) -> list[Any]:
        """Return what each spec of a list describes."""
        return [self.build(registry, spec, (*path, index)) for index, spec in enumerate(specs)]

    def work_dir(self) -> Path:
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
        return folder

    def dataset(self, split: str) -> Dataset:
        """Return the dataset of a split, opened."""
        section: DataConfig = getattr(self.schema, split)
        dataset: Dataset = self.build(DATASETS, section.dataset, (split, "dataset"))
        if not dataset.info.classes:
            self.unread.add(split)
        dataset.open()
        for other in self.opened.values():
            check_same(other, dataset)
        self.opened[split] = dataset
        return dataset

    def samples(self, split: str) -> tuple[Dataset, list[Transform]]:
        """Return the dataset of a split, opened, and what each sample of it passes through."""
        section: DataConfig = getattr(self.schema, split)
        return self.dataset(split), self.build_all(TRANSFORMS, section.transforms, (split, "transforms"))

    def loader(self, split: str) -> Loader:
        """Return the loader of a split, from memory if it fits and nothing is done to single samples."""
        section: DataConfig = getattr(self.schema, split)
        dataset, transforms = self.samples(split)
        batch_transforms = self.build_all(TRANSFORMS, section.batch_transforms, (split, "batch_transforms"))
        stream = self.stream(split, dataset)
        if stream is not None:
            return self.stream_loader(split, dataset, stream, transforms, batch_transforms)
        batching = self.batching(split, section, dataset)
        tensors = self._tensors(section, dataset) if section.in_memory is not False and not transforms else None
        if tensors is not None and self._fits(tensors):
            held = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            return TensorLoader(info=dataset.info, tensors=held, batching=batching, batch_transforms=batch_transforms)
        if section.in_memory is True:
            raise DataError(f"{split}.in_memory: {dataset.info.name} cannot be held in memory; set in_memory='auto'")
        return SampleLoader(
            dataset=dataset,
            transforms=transforms,
            batching=batching,
            batch_transforms=batch_transforms,
            device=self.device,
            workers=section.workers,
            timeout=section.timeout,
            on_bad_sample=section.on_bad_sample,
            max_bad_samples=section.max_bad_samples,
        )

    def stream(self, split: str, dataset: Dataset) -> Callable[[int], Iterator[Sample]] | None:
        """Return what gives the samples if the dataset is a stream, and see that the section is meant for it."""
        section: DataConfig = getattr(self.schema, split)
        stream, name = dataset.stream(), dataset.info.name
        wrong: tuple[str, str] | None = None
        if stream is None and section.samples_per_epoch is not None:
            wrong = ("samples_per_epoch", f"of no use, since {name} is no stream; remove it")
        elif stream is not None and section.samples_per_epoch is None:
            wrong = ("samples_per_epoch", f"missing; {name} is a stream, so say how many samples make an epoch")
        elif stream is not None and (section.sampler is not None or section.shuffle):
            wrong = ("sampler" if section.sampler is not None else "shuffle", f"{name} is a stream; remove it")
        if wrong:
            path = (split, wrong[0])
            raise ConfigError([Problem(show_path(path), wrong[1], self.config.where(path))])
        return stream

    def stream_loader(
        self,
        split: str,
        dataset: Dataset,
        start_at: Callable[[int], Iterator[Sample]],
        transforms: Sequence[Transform],
        batch_transforms: Sequence[Transform],
    ) -> StreamLoader:
        """Return the loader of a split whose dataset is a stream."""
        section: DataConfig = getattr(self.schema, split)
        return StreamLoader(
            info=dataset.info,
            start_at=start_at,
            samples=section.samples_per_epoch or 0,
            batch_size=section.batch_size,
            train=split == "train",
            seed=self.run.seed,
            device=self.device,
            transforms=transforms,
            batch_transforms=batch_transforms,
        )

    def batching(self, split: str, section: DataConfig, dataset: Dataset) -> Batching:
        """Return which samples make up which batch of a split."""
        sampler = None
        if section.sampler is not None:
            context = {"dataset": dataset, "batch_size": section.batch_size}
            path = (split, "sampler")
            sampler = self.build(SAMPLERS, section.sampler, path, **context)
            if not isinstance(sampler, Sampler):
                message = f"{type(sampler).__name__} is not a Sampler; derive it from visreg.Sampler"
                raise ConfigError([Problem(show_path(path), message, self.config.where(path))])
        return Batching(
            size=len(dataset),
            batch_size=section.batch_size,
            train=split == "train",
            seed=self.run.seed,
            drop_last=section.drop_last,
            shuffle=section.shuffle,
            sampler=sampler,
        )

    def _tensors(self, section: DataConfig, dataset: Dataset) -> Mapping[str, torch.Tensor] | None:
        """Return all samples at once, or None if they do not fit, or some are to be skipped."""
        try:
            return dataset.tensors()
        except DataError as error:
            if section.on_bad_sample == "error":
                raise
            logger.warning("%s is read sample by sample, and not held in memory: %s", dataset.info.name, error)
            return None

    def _fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        if self.device.type != "cuda":
            return True  # it is in this machine's memory already
        free, _ = torch.cuda.mem_get_info(self.device)
        return sum(tensor.nbytes for tensor in tensors.values()) <= GPU_SHARE * free

    def task(self, loader: Loader) -> Task:
        """Return the task on its device, with initial weights that depend on the seed alone."""
        torch.manual_seed(self.run.seed)
        parts = {"model": self.build(MODELS, self.schema.model, ("model",))}
        if self.schema.loss is not None:
            parts["loss"] = self.build(LOSSES, self.schema.loss, ("loss",))
        task: Task = self.build(TASKS, self.schema.task, ("task",), **parts)
        task = task.to(self.device)
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
        task.predict(batch)
        mismatch = task.mismatch(batch, loader.info)
        task.train()
        if mismatch:
            path = ("model", "num_classes")
            raise ConfigError([Problem(show_path(path), mismatch, self.config.where(path))])

    def runner(self, train_loader: Loader, val_loader: Loader | None, work_dir: Path) -> Runner:
        """Put the parts together."""
        task = self.task(train_loader)
        optimizer = self.build(OPTIMIZERS, self.schema.optimizer, ("optimizer",), params=groups_for(task, self.schema))
        steps = len(train_loader)
        total_steps = self.run.steps or (self.run.epochs or 0) * steps
        eval_every = self.run.eval_every or (1 if self.run.epochs else steps)
        return Runner(
            task=task,
            optimizer=optimizer,
            schedule=self.schedule(optimizer, total_steps, -(-total_steps // steps)),
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

    def evaluator(self, loader: Loader) -> Runner:
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


def find_device(name: str) -> torch.device:
    """Return the device of this process: of several on one machine, each takes the GPU of its number.

    Raises:
        ResourceError: if a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        index = dist.local_rank() if device.index is None else device.index
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ResourceError(
                f"run.device: {name!r} asks for GPU {index}, and torch {torch.__version__} sees "
                f"{torch.cuda.device_count()}; use 'auto' or 'cpu'"
            )
        device = torch.device("cuda", index)
    return device
