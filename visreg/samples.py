"""Making batches of samples; and what happens to a sample that cannot be read: it is tried again, named, or skipped."""

from __future__ import annotations

import errno
import os
import struct
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from attrs import define, field

from visreg.batching import epoch_of
from visreg.cache import Cache
from visreg.data import Batch, Dataset, Sample, Transform, collate, printable
from visreg.errors import DataError, ResourceError
from visreg.generators import mix, seeded
from visreg.picture import Picture
from visreg.together import can_be_together, joined, transform_together
from visreg.transform import OfPart, split_fixed, transform_sample

T = TypeVar("T")
Key = tuple[int, int]  # (draw, index): the sample's place, and what its randomness depends on besides that and the seed

# What reading a damaged file raises; Pillow says SyntaxError of a broken PNG.
UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error)
EXHAUSTED = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)  # the machine, and not the file, is at fault
PAUSES = (0.05, 0.25, 1.0)  # seconds before each further try; a file that is merely damaged gets one
GROUP = 16  # samples that are made together: few enough for a processor's cache, and for files to be in memory
REPLACEMENTS = 100  # how many other samples are tried in the place of a bad one


@define(kw_only=True, eq=False)
class Source:
    """Samples as they are read, after the first of the transforms, which make of a sample always the same.

    Attributes:
        transforms: the first ones.
        draft: let a JPEG be decoded at a fraction of its size where the first transform shrinks it so far.
        cache: keeps them, after just these transforms.
        views: give the cache's own bytes, to somebody who takes a part of them.
    """

    dataset: Dataset
    transforms: Sequence[Transform] = ()
    draft: bool = True
    cache: Cache | None = None
    views: bool = False

    def read(self, index: int, epoch: int = 0) -> Sample:
        """Return a sample; its image may be a `Picture` where there are no first transforms.

        Raises:
            DataError: if it cannot be read, of whatever kind the error is.
        """
        if self.cache is None:
            return self._made(index, epoch)
        if (kept := self.cache.get(index)) is not None:
            return kept if self.views else {key: value.clone() for key, value in kept.items()}
        made = self._made(index, epoch)
        if isinstance(image := made.get("image"), Picture):
            made["image"] = image.part((0, 0, *image.shape[1:])) if self.views else image.whole()
        self.cache.put(index, made)
        return made

    def _made(self, index: int, epoch: int) -> Sample:
        found = _read(lambda: self.dataset.unread(index, epoch))
        if isinstance(image := found.get("image"), Picture):
            image.fractions = self.draft
        return transform_sample(found, self.transforms, 0) if self.transforms else found


@define(kw_only=True, eq=False)
class Samples:
    """Makes batches of transformed samples from their keys alone: whoever makes one, it is the same.

    Attributes:
        skip: go on without a sample that cannot be read; else it is an error.
        replace: put another one in its place, so that the batch keeps its size.
        retry: try again what cannot be read; else take the first answer.
        draft: let a JPEG be decoded at a fraction of its size where the first transform shrinks it so far.
        cache: keeps samples as they are after their first transforms.
        keyed: put into each batch its samples' ``key``, which the randomness of ``batch_transforms`` comes from.
    """

    dataset: Dataset
    transforms: Sequence[Transform]
    seed: int
    skip: bool = False
    replace: bool = False
    retry: bool = True
    draft: bool = True
    cache: Cache | None = None
    keyed: bool = False
    _source: Source = field(init=False, repr=False)
    _rest: Sequence[Transform] = field(init=False, repr=False)
    _alone: bool = field(default=False, init=False, repr=False)  # samples turned out not to go together

    def __attrs_post_init__(self) -> None:
        count = len(split_fixed(self.transforms)[0]) if self.dataset.fixed else 0
        count = self.cache.first if self.cache else count
        self._rest = self.transforms[count:]
        self._source = Source(
            dataset=self.dataset,
            transforms=self.transforms[:count],
            draft=self.draft,
            cache=self.cache,
            views=bool(self._rest) and isinstance(self._rest[0], OfPart),
        )

    def batch(
        self, keys: Sequence[Key], begin: Callable[[int], None] = lambda index: None
    ) -> tuple[Batch, dict[int, str]]:
        """Return a batch, which is empty if no sample of it can be read, and by index why samples are not in it.

        Args:
            keys: of the samples.
            begin: is told the index of each sample before it is read.

        Raises:
            DataError: if a sample cannot be read and none may be skipped, or samples do not fit together.
            ResourceError: if memory or open files ran out.
        """
        if (batch := self._together(keys, begin)) is not None:
            return batch, {}
        bad: dict[int, str] = {}
        samples = [sample for key in keys for sample in self._readable(key, begin, bad)]
        return collate(samples) if samples else {}, bad

    def _together(self, keys: Sequence[Key], begin: Callable[[int], None]) -> Batch | None:
        """Return a batch whose samples were transformed several at once; None if one by one is the only way."""
        if self._alone or not self.dataset.fixed:  # it draws, for each sample
            return None
        parts: list[Batch] = []
        try:
            for start in range(0, len(keys), GROUP):
                part = self._group(keys[start : start + GROUP], begin)
                if part is None:
                    return None
                parts.append(part)
            return joined(parts)
        except DataError:  # one by one it comes again, is tried again, and has a name
            return None
        except Exception:  # whatever it is, no file is at fault that may be a better one in the next batch
            self._alone = True
            return None

    def _group(self, keys: Sequence[Key], begin: Callable[[int], None]) -> Batch | None:
        samples: list[Sample] = []
        for draw, index in keys:
            begin(index)
            samples.append(self._source.read(index, epoch_of(draw)))
            if not can_be_together(samples[-1], self._rest):
                self._alone = True  # else each batch would read one of its samples twice
                return None
        numbers, first = [mix(self.seed, *key) for key in keys], len(self._source.transforms)
        batch = transform_together(samples, self._rest, numbers, first, lambda place: begin(keys[place][1]))
        batch["index"] = torch.tensor([index for _, index in keys])
        return {**batch, "key": torch.tensor(numbers)} if self.keyed else batch

    def _readable(self, key: Key, begin: Callable[[int], None], bad: dict[int, str]) -> list[Sample]:
        """Return one sample: that of ``key``, or else of a place that depends on ``key`` alone; or none."""
        draw, index = key
        for attempt in range(REPLACEMENTS if self.replace else 1):
            if index not in bad:
                begin(index)
                try:
                    sample = self.sample((draw, index))
                    return [{**sample, "key": mix(self.seed, draw, index)} if self.keyed else sample]
                except DataError as error:
                    if not self.skip:
                        raise
                    bad[index] = str(error)
            index = mix(self.seed, *key, attempt) % len(self.dataset)
        if self.replace:
            raise DataError(f"none of {len(bad)} samples in a row can be read, the last being {[*bad.values()][-1]}")
        return []

    def sample(self, key: Key) -> Sample:
        """Return one sample, transformed, with its ``index``.

        Raises:
            DataError: if it cannot be read, or is not for the transforms; says which one it is, and why.
            ResourceError: if memory or open files ran out.
        """
        return persist(self.dataset, key[1], lambda: self._make(key), self.retry)

    def _make(self, key: Key) -> Sample:
        draw, index = key
        with seeded(self.seed, draw, index):
            found, first = self._source.read(index, epoch_of(draw)), len(self._source.transforms)
            sample = transform_sample(found, self._rest, mix(self.seed, draw, index), first)
        sample["index"] = index
        return sample


def read(dataset: Dataset, index: int, epoch: int = 0) -> Sample:
    """Return a sample as the dataset gives it in an epoch.

    Raises:
        DataError: if it cannot be read, of whatever kind the error is.
    """
    return _read(lambda: dataset.at(index, epoch))


def _read(get: Callable[[], Sample]) -> Sample:
    try:
        return dict(get())
    except UNREADABLE as error:
        raise DataError(f"{type(error).__name__}: {error}{_raised_at(error)}") from error


def persist(dataset: Dataset, index: int, make: Callable[[], T], retry: bool = True) -> T:
    """Return ``make()``, which reads a sample; where it cannot, try again, as files on a network come back.

    Raises:
        DataError: if it still cannot; says which sample it is, and why.
        ResourceError: if memory or open files ran out.
    """
    pauses = PAUSES if retry else ()
    tries = 0
    while True:
        try:
            return make()
        except DataError as error:
            number = _errno(error)
            if number in EXHAUSTED:
                raise ResourceError(f"{place(dataset, index)}: {os.strerror(number)}; lower workers") from error
            if tries == len(pauses if number else pauses[:1]):
                error.args = (_named(dataset, index, str(error)),)
                raise
        except Exception as error:
            error.add_note(f"while making {place(dataset, index)}")
            raise
        time.sleep(pauses[tries])
        tries += 1


def place(dataset: Dataset, index: int) -> str:
    """Return what to call a sample in a message, such as ``pets[3] (pets/cat/3.jpg)``."""
    where = printable(dataset.where(index))
    return f"{dataset.info.name}[{index}]" + (f" ({where})" if where else "")


def unnamed(dataset: Dataset, index: int, text: str) -> str:
    """Return a message about a sample without what it is called there."""
    return text.removeprefix(f"{place(dataset, index)}: ").removeprefix(f"{dataset.info.name}[{index}]: ")


def _named(dataset: Dataset, index: int, text: str) -> str:
    short, where = f"{dataset.info.name}[{index}]", printable(dataset.where(index))
    if text.startswith(short):
        return text
    return f"{short}: {text}" if where in text else f"{place(dataset, index)}: {text}"


def _errno(error: BaseException | None) -> int:
    """Return the number of the system's error that ``error`` comes from, or 0."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__
    return 0


def _raised_at(error: BaseException) -> str:
    """Return where ``error`` was raised: it may be a mistake in the dataset after all."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})"
