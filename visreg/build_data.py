"""From a config's data sections to loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import fields

from visreg import dist
from visreg.batching import Batching
from visreg.build_cache import open_cache
from visreg.cache import Cache
from visreg.check import check_config
from visreg.config import Config, ConfigPath, config_from, show_path
from visreg.data import DataInfo, Dataset, Sample, Transform
from visreg.datasets.wrappers import check_same
from visreg.device import find_device
from visreg.errors import ConfigError, DataError, Problem, VisregError, first
from visreg.loader import Loader, SampleLoader, TensorLoader
from visreg.machine import cores, keep_freed_memory
from visreg.memory import Held, hold
from visreg.misfit import renamed
from visreg.registry import DATASETS, SAMPLERS, TRANSFORMS, Registry
from visreg.sampler import Sampler
from visreg.schema import DataConfig, Schema
from visreg.specs import Spec
from visreg.stream import StreamLoader
from visreg.transform import name_of
from visreg.weights import InitialWeights

logger = logging.getLogger("visreg")

MOST_WORKERS = 16  # that there are by themselves, for one split
NOT_OF_STREAMS = ("sampler", "shuffle", "drop_last", "workers", "on_bad_sample", "in_memory", "draft", "cache")


class DataBuilder:
    """Builds the data of one config, each failure with the place in the config that it comes from."""

    def __init__(
        self, config: Config | Mapping[str, Any], plugin_files: Collection[Path], weights: bool = False
    ) -> None:
        self.config: Config = config if isinstance(config, Config) else config_from(config)
        torch.use_deterministic_algorithms(False)  # an earlier run of this process may have asked for them
        self.schema: Schema = check_config(self.config, plugin_files=plugin_files, weights=weights)
        self.weights = InitialWeights("read" if weights else "leave")
        self.run = self.schema.run
        self.device = find_device(self.run.device)
        keep_freed_memory()
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
            return registry.build(spec, location, initial_weights=self.weights, **context)
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

    def section(self, split: str) -> DataConfig:
        """Return a section of the data.

        Raises:
            ConfigError: if there is none.
        """
        section: DataConfig | None = getattr(self.schema, split)
        if section is None:
            raise ConfigError([Problem(split, f"the config has no section {split!r}")])
        return section

    def dataset(self, split: str) -> Dataset:
        """Return the dataset of a split, opened, once."""
        if split in self.opened:
            return self.opened[split]
        section: DataConfig = getattr(self.schema, split)
        dataset: Dataset = self.build(DATASETS, section.dataset, (split, "dataset"))
        if not dataset.info.classes:
            self.unread.add(split)
        dataset.open()
        for other_split, other in self.opened.items():
            check_same(other, dataset)
            _check_same_classes(other_split, other.info, split, dataset.info)
        self.opened[split] = dataset
        return dataset

    def samples(self, split: str) -> tuple[Dataset, list[Transform]]:
        """Return the dataset of a split, opened, and what each sample of it passes through."""
        section: DataConfig = getattr(self.schema, split)
        return self.dataset(split), self.build_all(TRANSFORMS, section.transforms, (split, "transforms"))

    def loader(self, split: str) -> Loader:
        """Return the loader of a split, from memory if it fits and all that is done to samples can be to batches."""
        section: DataConfig = getattr(self.schema, split)
        dataset, transforms = self.samples(split)
        batch_transforms = self.build_all(TRANSFORMS, section.batch_transforms, (split, "batch_transforms"))
        stream = self.stream(split, dataset)
        if stream is not None:
            return self.stream_loader(split, dataset, stream, transforms, batch_transforms)
        batching = self.batching(split, section, dataset)
        cache = self._cache(split, dataset, transforms)
        held = self._held(split, dataset, transforms, cache)
        if isinstance(held, Held):
            return TensorLoader(
                info=dataset.info,
                tensors=held.tensors,
                transforms=held.rest,
                first=held.first,
                batching=batching,
                batch_transforms=batch_transforms,
                device=self.device,
            )
        return SampleLoader(
            dataset=dataset,
            transforms=transforms,
            batching=batching,
            batch_transforms=batch_transforms,
            device=self.device,
            workers=self._workers(split, section, len(batching)),
            draft=section.draft,
            cache=cache,
            timeout=section.timeout,
            on_bad_sample=section.on_bad_sample,
            max_bad_samples=section.max_bad_samples,
        )

    def stream(self, split: str, dataset: Dataset) -> Callable[[int], Iterator[Sample]] | None:
        """Return what gives the samples if the dataset is a stream, and see that the section is meant for it."""
        section: DataConfig = getattr(self.schema, split)
        stream, name = dataset.stream(), dataset.info.name
        default = {each.name: each.default for each in fields(DataConfig)}
        useless = [key for key in NOT_OF_STREAMS if getattr(section, key) != default[key]]
        useless = useless if section.workers else [key for key in useless if key != "workers"]  # it has none
        wrong: tuple[str, str] | None = None
        if stream is None and section.samples_per_epoch is not None:
            wrong = ("samples_per_epoch", f"of no use, since {name} is no stream; remove it")
        elif stream is not None and section.samples_per_epoch is None:
            wrong = ("samples_per_epoch", f"missing; {name} is a stream, so say how many samples make an epoch")
        elif stream is not None and useless:
            wrong = (useless[0], f"{name} is a stream; remove it")
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

    def _workers(self, split: str, section: DataConfig, batches: int) -> int:
        """Return how many workers a split has; say so where visreg decides."""
        if isinstance(section.workers, int):
            return section.workers
        there = cores()
        count = max(0, min(there - 1, MOST_WORKERS, batches))
        if dist.is_main():
            who = f"{count} worker{'s' * (count > 1)}" if count else "this process"
            logger.info("%s: samples made by %s, of %d core%s", split, who, there, "s" * (there > 1))
        return count

    def _cache(self, split: str, dataset: Dataset, transforms: Sequence[Transform]) -> Cache | None:
        """Return what keeps the samples of a split, if anything shall.

        Raises:
            DataError: if it cannot.
        """
        section: DataConfig = getattr(self.schema, split)
        if section.cache is None:
            return None
        skip, specs = section.on_bad_sample == "skip", [section.dataset, *section.transforms]
        try:
            cache, told = open_cache(section.cache, dataset, transforms, specs, section.draft, skip)
        except DataError as error:
            error.args = (f"{split}.cache: {error}",)
            raise
        if dist.is_main():
            logger.info("%s: %s", split, told)
            for line in cache.news():
                logger.warning("%s: %s", split, line)
        return cache

    def _held(self, split: str, dataset: Dataset, transforms: Sequence[Transform], cache: Cache | None) -> Held | None:
        """Return the dataset of a split in memory, or None; say which, and why.

        Raises:
            DataError: if it is to be held, and cannot be.
        """
        section: DataConfig = getattr(self.schema, split)
        name = f"{split}: {len(dataset):,} samples of {dataset.info.name}"
        if section.in_memory is False:
            found: Held | str = f"as {split}.in_memory says"
        else:
            try:
                force, kept = section.in_memory is True, cache if section.cache == "disk" else None
                found = hold(dataset, transforms, self.device, force, section.draft, kept, section.cache == "ram")
            except DataError as error:
                if section.on_bad_sample == "error":
                    raise
                found = f"one cannot be: {error}"
        if isinstance(found, Held):
            where = next(iter(found.tensors.values())).device.type
            told = f"{name} held in memory ({where}, {found.size / 1e6:,.1f} MB)"
            computed = [name_of(transform) for transform in found.rest]
            told += f", {' and '.join(computed)} computed for whole batches" * bool(computed)
        elif section.in_memory is True:
            reason = f"{dataset.info.name} cannot be held in memory: {found}; set in_memory='auto'"
            raise DataError(f"{split}.in_memory: {reason}")
        else:
            told = f"{name} read one by one: {found}"
        if dist.is_main():
            logger.info("%s", told)
        return found if isinstance(found, Held) else None


def _check_same_classes(one: str, info: DataInfo, other: str, other_info: DataInfo) -> None:
    """Check that an index means the same class in two splits.

    Raises:
        DataError: if not: what is learnt on one would be scored as something else on the other; lists the differences.
    """
    for key, names in info.class_names.items():
        rows = renamed(names, other_info.class_names.get(key, ()), one, other)
        if rows:
            raise DataError(
                "\n  ".join([f"{other}.dataset: the classes of {key!r} are not those of {one}:", *first(rows)])
            )
