"""Looking at every sample before training: what cannot be read, and what is not as it should be."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import define, frozen
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from visreg.build import build_samples
from visreg.config import Config, apply_overrides
from visreg.data import IGNORE, RAGGED, DataInfo, Dataset, Sample, Transform, printable
from visreg.errors import ConfigError, DataError, ResourceError
from visreg.objects import box_problem, show_box
from visreg.options import options_of
from visreg.registry import MODELS
from visreg.samples import Samples, unnamed
from visreg.specs import Spec
from visreg.whole_file import write_whole
from visreg.workers import WorkerError, Workers

logger = logging.getLogger("visreg")

CHUNK = 64  # samples that a worker looks at in one go
SHOWN = 200  # lines on a screen
TIMEOUT = 120.0  # seconds that one sample may take


@frozen
class Finding:
    """What is wrong with a sample.

    >>> print(Finding("train", 3, "pets/cat/3.jpg", "label: 7 is not below 2, the number of classes"))
    train[3] pets/cat/3.jpg: label: 7 is not below 2, the number of classes
    """

    split: str
    index: int | None
    where: str
    reason: str

    def __str__(self) -> str:
        where = f" {self.where}" if self.where and self.where not in self.reason else ""
        place = self.split if self.index is None else f"{self.split}[{self.index}]"
        return printable(f"{place}{where}: {self.reason}".replace("\n  ", " "))


def sample_problems(sample: Sample, info: DataInfo, num_classes: int = 0) -> list[str]:
    """Return what is wrong with a sample: it is held against the table of `visreg.data`, and against ``info``.

    Args:
        sample: as the dataset gives it.
        info: of the dataset: its blank sample, if it has one, and its classes.
        num_classes: how many classes there are, where ``info`` does not know.
    """
    found = [*_unlike(sample, info.sample)]
    further = {key: _labels for key in info.others if key not in RULES}
    for key, check in {**RULES, **further}.items():
        if key in sample:
            value = sample[key]
            ndim, dtypes = SHAPES.get(key, SHAPES["label"])
            if not isinstance(value, Tensor) or value.ndim != ndim or value.dtype not in dtypes:
                found.append(
                    f"{key}: expected {' or '.join(map(str, dtypes))} of {ndim} dimensions, got {_kind(value)}"
                )
            else:
                found += [
                    f"{key}: {problem}" for problem in check(value, sample, len(info.classes_of(key)) or num_classes)
                ]
    return found


def _unlike(sample: Sample, blank: Sample) -> Iterator[str]:
    """Yield how a sample differs from the one that its dataset promised."""
    for key, value in blank.items():
        if key not in sample:
            yield f"{key}: is missing"
        elif isinstance(value, Tensor) and isinstance(sample[key], Tensor):
            skipped = 1 if key in RAGGED else 0
            mine, theirs = sample[key], value
            if (mine.dtype, mine.shape[skipped:]) != (theirs.dtype, theirs.shape[skipped:]):
                yield f"{key}: the dataset promises {_kind(theirs)}, got {_kind(mine)}"


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _image(image: Tensor, sample: Sample, classes: int) -> Iterator[str]:
    if not image.numel():
        yield f"is empty, {tuple(image.shape)}"
    elif image.is_floating_point() and not (image.min() >= 0 and image.max() <= 1):  # so that NaN is found too
        yield f"floats must be 0..1, got {image.min():g}..{image.max():g}"


def _labels(labels: Tensor, sample: Sample, classes: int) -> Iterator[str]:
    wrong = labels[(labels < 0) | (labels >= classes)] if classes else labels[labels < 0]
    for value in wrong.flatten()[:1].tolist():
        yield f"{value} is " + ("negative" if value < 0 else f"not below {classes}, the number of classes")
    if labels.ndim:
        yield from _one_each(labels, sample, classes)


def _one_each(values: Tensor, sample: Sample, classes: int) -> Iterator[str]:
    if len(values) != len(sample.get("boxes", values)):
        yield f"are {len(values)} for {len(sample['boxes'])} boxes"


def _mask(mask: Tensor, sample: Sample, classes: int) -> Iterator[str]:
    size = _size(sample)
    if size and tuple(mask.shape) != size:
        yield f"is {mask.shape[0]}×{mask.shape[1]}, and the image is {size[0]}×{size[1]}"
    yield from _labels(mask[mask != IGNORE], {}, classes)


def _boxes(boxes: Tensor, sample: Sample, classes: int) -> Iterator[str]:
    if boxes.shape[1] != 4:
        yield f"expected (M, 4), got {tuple(boxes.shape)}"
        return
    size = _size(sample) or None
    for number, box in enumerate(boxes.tolist()):
        problem = box_problem(box, size)
        if problem is not None:
            yield f"number {number}, {show_box(box)}, {problem}"


def _masks(masks: Tensor, sample: Sample, classes: int) -> Iterator[str]:
    size = _size(sample)
    if size and tuple(masks.shape[1:]) != size:
        yield f"are {masks.shape[1]}×{masks.shape[2]}, and the image is {size[0]}×{size[1]}"
    yield from _one_each(masks, sample, classes)
    boxes = sample.get("boxes")
    if isinstance(boxes, Tensor) and boxes.shape == (len(masks), 4):
        for number in (~masks.flatten(1).any(dim=1)).nonzero().flatten().tolist():
            if box_problem(boxes[number].tolist(), None) is None:
                yield f"number {number} is empty, and its box is {show_box(boxes[number].tolist())}"


def _size(sample: Sample) -> tuple[int, ...]:
    """Return height and width of the image, or nothing."""
    image = sample.get("image")
    return tuple(image.shape[1:]) if isinstance(image, Tensor) and image.ndim == 3 else ()


FLOATS = (torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16)
# The dimensions and dtypes of the table in `visreg.data`.
SHAPES: Mapping[str, tuple[int, tuple[torch.dtype, ...]]] = {
    "image": (3, FLOATS), "clip": (4, FLOATS), "label": (0, (torch.int64,)), "mask": (2, (torch.int64,)),
    "boxes": (2, (torch.float32,)), "labels": (1, (torch.int64,)), "masks": (3, (torch.bool,)),
    "crowd": (1, (torch.bool,)), "area": (1, (torch.float32,)),
}  # fmt: skip
RULES: Mapping[str, Callable[[Tensor, Sample, int], Iterator[str]]] = {
    "image": _image, "clip": _image, "label": _labels, "mask": _mask, "boxes": _boxes, "labels": _labels,
    "masks": _masks, "crowd": _one_each, "area": _one_each,
}  # fmt: skip


@define(kw_only=True)
class _Looker:
    """Looks at the samples of a split, in whatever process."""

    split: str
    dataset: Dataset
    transforms: Sequence[Transform]
    seed: int
    num_classes: int

    def look(self, indices: Sequence[int], begin: Callable[[int], None] = lambda index: None) -> list[Finding]:
        """Return what is wrong with some samples."""
        found = []
        for index in indices:
            begin(index)
            found += [self.finding(index, reason) for reason in self._reasons(index)]
        return found

    def finding(self, index: int, reason: str) -> Finding:
        """Return what to say of a sample."""
        return Finding(self.split, index, self.dataset.where(index), unnamed(self.dataset, index, reason))

    def _reasons(self, index: int) -> list[str]:
        reasons: list[str] = []

        def look(sample: Sample) -> Sample:
            reasons[:] = sample_problems(sample, self.dataset.info, self.num_classes)
            return sample

        try:
            Samples(dataset=self.dataset, transforms=[look, *self.transforms], seed=self.seed, retry=False).sample(
                (0, index)
            )
        except ResourceError:
            raise
        except DataError as error:
            reasons.append(str(error))
        except Exception as error:  # a mistake in a dataset or a transform, which would end the training too
            reasons.append(f"{type(error).__name__}: {error}")
        return reasons

    def all(self, workers: int, progress: Callable[[int], None]) -> Iterator[Finding]:
        """Yield what is wrong with all samples; one that kills its worker, or lets it hang, is but a finding."""
        pool = Workers(make=self.look, count=workers, timeout=TIMEOUT, restarts=0) if workers else None
        left = list(range(len(self.dataset)))
        while left:
            chunks = [left[start : start + CHUNK] for start in range(0, len(left), CHUNK)]
            try:
                for number, found in enumerate(pool.results(chunks) if pool else map(self.look, chunks)):
                    yield from found
                    progress(len(chunks[number]))
                    del left[: len(chunks[number])]
                return
            except WorkerError as error:
                if error.index not in left:
                    raise
                left.remove(error.index)
                progress(1)
                yield self.finding(error.index, str(error))


def check_data(config: Config, plugin_files: Collection[Path] = (), workers: int | None = None) -> Iterator[Finding]:
    """Yield all that is wrong with the samples of every split, showing on a terminal how far it is.

    Args:
        config: without mistakes.
        plugin_files: files that register components.
        workers: processes to share the work among, 0 for this one alone; by default one for each core.
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    config = apply_overrides(config, ["run.device=cpu"])  # a GPU is not needed
    num_classes = _num_classes(config.values["model"])
    seed = config.values.get("run", {}).get("seed", 0)
    shown, both = sys.stderr.isatty(), sys.stdout is not None and sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=not shown, redirect_stdout=both) as bar:
        for split, opened, attempt in build_samples(config, plugin_files):
            try:
                dataset, transforms = opened()
            except DataError as error:
                yield from (Finding(split, None, "", mistake) for mistake in error.mistakes)
                continue
            if dataset.stream() is not None:
                logger.warning("%s: %s is a stream: its samples are not looked at", split, dataset.info.name)
                continue
            looker = _Looker(split=split, dataset=dataset, transforms=transforms, seed=seed, num_classes=num_classes)
            if not len(dataset):
                yield Finding(split, None, "", "the dataset is empty")
                continue
            task = bar.add_task(split, total=len(dataset))
            bad = set()
            for finding in looker.all(workers, partial(bar.advance, task)):
                bad.add(finding.index)
                yield finding
            good = next((index for index in range(len(dataset)) if index not in bad), None)
            mistakes = [] if good is None else _mistakes(partial(attempt, good))
            yield from (Finding(split, None, "", mistake) for mistake in mistakes)


def _mistakes(attempt: Callable[[], None]) -> Sequence[str]:
    """Return what is wrong with the config beside the data."""
    try:
        attempt()
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    except DataError as error:
        return error.mistakes
    return []


def _num_classes(model: Spec) -> int:
    """Return how many classes a model is for, or 0 if it does not say."""
    option = options_of(MODELS.get(model["type"])).get("num_classes")
    number = model.get("num_classes", option.default if option is not None else 0)
    return number if isinstance(number, int) else 0


def report(findings: Iterator[Finding], out: Path | None = None) -> int:
    """Print what was found, up to a screenful; write all of it to a file if there is one. Return how much it was.

    Raises:
        ResourceError: if the file cannot be written.
    """
    lines: list[str] = []
    for finding in findings:
        lines.append(str(finding))
        if len(lines) <= SHOWN:
            print(lines[-1], flush=True)
    if len(lines) > SHOWN:
        print(f"... and {len(lines) - SHOWN} more" + ("" if out else "; --out FILE keeps all"))
    if out:
        try:
            write_whole(out, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise ResourceError(f"{out}: cannot write what was found: {error.strerror}") from None
    return len(lines)
