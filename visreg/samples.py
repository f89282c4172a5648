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

from attrs import define

from visreg.batching import epoch_of
from visreg.data import Batch, Dataset, Sample, Transform, collate, printable
from visreg.errors import DataError, ResourceError
from visreg.generators import mix, seeded
from visreg.transform import transform_sample

T = TypeVar("T")
Key = tuple[int, int]  # (draw, index): the sample's place, and what its randomness depends on besides that and the seed

# What reading a damaged file raises; Pillow says SyntaxError of a broken PNG.
UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error)
EXHAUSTED = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)  # the machine, and not the file, is at fault
PAUSES = (0.05, 0.25, 1.0)  # seconds before each further try; a file that is merely damaged gets one
REPLACEMENTS = 100  # how many other samples are tried in the place of a bad one


@define(kw_only=True, eq=False)
class Samples:
    """Makes batches of transformed samples from their keys alone: whoever makes one, it is the same.

    Attributes:
        skip: go on without a sample that cannot be read; else it is an error.
        replace: put another one in its place, so that the batch keeps its size.
        retry: try again what cannot be read; else take the first answer.
        keyed: put into each batch its samples' ``key``, which the randomness of ``batch_transforms`` comes from.
    """

    dataset: Dataset
    transforms: Sequence[Transform]
    seed: int
    skip: bool = False
    replace: bool = False
    retry: bool = True
    keyed: bool = False

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
        bad: dict[int, str] = {}
        samples = [sample for key in keys for sample in self._readable(key, begin, bad)]
        return collate(samples) if samples else {}, bad

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
            DataError: if it cannot be read; says which one it is, and why.
            ResourceError: if memory or open files ran out.
        """
        return persist(self.dataset, key[1], lambda: self._make(key), self.retry)

    def _make(self, key: Key) -> Sample:
        draw, index = key
        with seeded(self.seed, draw, index):
            found = read(self.dataset, index, epoch_of(draw))
            sample = transform_sample(found, self.transforms, mix(self.seed, draw, index))
        sample["index"] = index
        return sample


def read(dataset: Dataset, index: int, epoch: int = 0) -> Sample:
    """Return a sample as the dataset gives it in an epoch.

    Raises:
        DataError: if it cannot be read, of whatever kind the error is.
    """
    try:
        return dict(dataset.at(index, epoch))
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
