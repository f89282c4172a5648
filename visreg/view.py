"""From a config to some samples of its data, as training would see them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from visreg.batching import Batching
from visreg.build_data import DataBuilder
from visreg.cache import Cache
from visreg.config import Config
from visreg.data import Batch, DataInfo, Dataset, Sample, Transform
from visreg.data_check import sample_problems
from visreg.errors import DataError, ResourceError
from visreg.findings import of_image
from visreg.loader import Loader
from visreg.memory import Held
from visreg.sampler import Sampler
from visreg.samples import Samples
from visreg.schema import DataConfig


@frozen(eq=False)
class Version:
    """A sample as it is in one epoch.

    Attributes:
        title: what it is.
        sample: the sample, unless it cannot be made; ``problem`` says why.
    """

    title: str
    sample: Sample | None
    problem: str = ""


@frozen(eq=False)
class Shown:
    """A sample: what its dataset gives, and what becomes of that.

    Attributes:
        index: its place in the dataset. where: its file, if it has one.
        versions: as the dataset gives it, and as the model sees it, epoch by epoch.
        problems: what is wrong with it.
    """

    index: int
    where: str
    versions: Sequence[Version]
    problems: Sequence[str] = ()


@frozen(eq=False)
class View:
    """Some samples of a split, to be looked at.

    Attributes:
        dataset: opened.
        indices: of the samples; empty if the dataset is a stream.
        each: gives them one by one, as training does, without ``batch_transforms``.
        together: gives them as one batch, with ``batch_transforms``, if there are any.
        work_dir: the run's folder, which need not be there.
    """

    dataset: Dataset
    indices: Tensor
    each: Loader
    together: Loader | None
    work_dir: Path


def build_view(
    config: Config | Mapping[str, Any],
    split: str,
    choose: Callable[[int], Tensor],
    plugin_files: Collection[Path] = (),
) -> View:
    """Build what it takes to look at samples of ``split``.

    Args:
        config: of the training.
        split: ``"train"``, ``"val"`` or ``"test"``.
        choose: from the number of samples to the indices of those to look at, int64, each once.
        plugin_files: files that register components.

    Raises:
        ConfigError: if the config has mistakes, or no such section.
        DataError: if the data is missing, damaged or empty.
    """
    return _Viewer(config, plugin_files, choose).view(split)


class _Chosen(Sampler):
    """Gives the samples that somebody chose, in every epoch the same."""

    def __init__(self, indices: Tensor) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def order(self, epoch: int, seed: int) -> Tensor:
        return self.indices


class _Viewer(DataBuilder):
    """Builds the loaders of a config for some samples only."""

    def __init__(
        self, config: Config | Mapping[str, Any], plugin_files: Collection[Path], choose: Callable[[int], Tensor]
    ) -> None:
        super().__init__(config, plugin_files)
        self.choose = choose

    def view(self, split: str) -> View:
        """Return what `build_view` does."""
        section = evolve(
            self.section(split), workers=0, cache=None, on_bad_sample="error", sampler=None, drop_last=False
        )
        self._set(split, evolve(section, batch_size=1, batch_transforms=()))
        each = self.loader(split)
        dataset = self.opened[split]
        chosen = torch.empty(0, dtype=torch.int64) if dataset.stream() is not None else self.choose(len(dataset))
        together = None
        if section.batch_transforms:
            size = min(section.batch_size, len(chosen) or section.batch_size)
            self._set(split, evolve(section, batch_size=size))
            together = self.loader(split)
        return View(dataset, chosen, each, together, self.schema.work_dir(self.config.file))

    def _set(self, split: str, section: DataConfig) -> None:
        sections: dict[str, Any] = {split: section}
        self.schema = evolve(self.schema, **sections)

    def batching(self, split: str, section: DataConfig, dataset: Dataset) -> Batching:
        """Return the batches of the chosen samples; the random numbers of each are those of training."""
        if not len(dataset):
            return super().batching(split, section, dataset)  # which says what is wrong
        return Batching(
            size=len(dataset),
            batch_size=section.batch_size,
            train=split == "train",
            seed=self.run.seed,
            sampler=_Chosen(self.choose(len(dataset))),
        )

    def _held(self, split: str, dataset: Dataset, transforms: Sequence[Transform], cache: Cache | None) -> Held | None:
        """Read nothing but what is shown; held in memory or not, training sees the same."""
        return None


def look(view: View, count: int, epochs: int, seed: int) -> Iterator[Shown]:
    """Yield the chosen samples, or the first ``count`` of a stream.

    Args:
        view: of them.
        count: of a stream.
        epochs: in how many epochs each is made, from the first on; a stream's only once.
        seed: the run's.
    """
    yield from _streamed(view, count) if view.dataset.stream() else _indexed(view, epochs, seed)


def _indexed(view: View, epochs: int, seed: int) -> Iterator[Shown]:
    """Yield the chosen samples of a dataset."""
    raw = Samples(dataset=view.dataset, transforms=(), seed=seed, retry=False)
    for number, index in enumerate(view.indices.tolist()):
        before = made("before", partial(raw.sample, (0, index)))
        after = [
            made(f"epoch {epoch + 1}", partial(_only, view.each.epoch(epoch, start=number)))
            for epoch in range(epochs if before.sample is not None else 0)
        ]
        yield _shown(index, view.dataset.where(index), before, after, view.dataset.info)


def _streamed(view: View, count: int) -> Iterator[Shown]:
    """Yield the first samples of a stream."""
    start_at = view.dataset.stream()
    assert start_at is not None, "it is a stream"
    source, batches = start_at(0), view.each.epoch(0)
    for index in range(min(count, view.each.samples)):
        before = made("before", partial(next, source))
        after = made("epoch 1", partial(_only, batches))
        yield _shown(index, "", before, [after], view.dataset.info)


def made(title: str, make: Callable[[], Sample]) -> Version:
    """Return what ``make`` does, or why it cannot."""
    try:
        return Version(title, make())
    except ResourceError:
        raise
    except DataError as error:
        return Version(title, None, str(error))
    except Exception as error:  # a mistake in a dataset or a transform, which would end the training too
        return Version(title, None, f"{type(error).__name__}: {error}")


def _only(batches: Iterator[Batch]) -> Sample:
    """Return the only sample of the next batch."""
    return of_image(next(batches), 0)


def _shown(index: int, where: str, before: Version, after: Sequence[Version], info: DataInfo) -> Shown:
    if before.sample is None:
        return Shown(index, where, [before], [before.problem])
    problems = sample_problems(before.sample, info)
    if all(version.sample is not None and _is_same(before.sample, version.sample) for version in after):
        return Shown(index, where, [Version("as the model sees it, in every epoch", before.sample)], problems)
    problems += [version.problem for version in after if version.sample is None]
    return Shown(index, where, [before, *after], list(dict.fromkeys(problems)))


def _is_same(one: Sample, other: Sample) -> bool:
    return all(
        key == "index" or (isinstance(other.get(key), Tensor) and torch.equal(value, other[key]))
        for key, value in one.items()
        if isinstance(value, Tensor)
    )
