"""Samples, batches and predictions: what they hold; and datasets, which give samples.

A *sample* is one example and a *batch* is many. Both, and predictions too, are plain dicts with these keys:

========  ==================  =====================  ==================================================
key       in a sample         in a batch             meaning
========  ==================  =====================  ==================================================
image     uint8 (C, H, W)     uint8 (N, C, H, W)     pixels 0..255; floats are taken to be 0..1 already
clip      uint8 (T, C, H, W)  uint8 (N, T, C, H, W)  frames of a video in order, where there is no image; else like it
label     int64 ()            int64 (N,)             class index of the whole image or clip
mask      int64 (H, W)        int64 (N, H, W)        class index of each pixel, 255 to ignore
boxes     float32 (M, 4)      list of N (M, 4)       x1, y1, x2, y2 in pixels
labels    int64 (M,)          list of N (M,)         class index of each box
masks     bool (M, H, W)      list of N (M, H, W)    one mask for each box
crowd     bool (M,)           list of N (M,)         the box is of many objects: not learnt, never a miss
area      float32 (M,)        list of N (M,)         pixels of each object, where its mask or box does not tell
(another) int64 ()            int64 (N,)             a further class index of the whole image, such as ``parity``, by a
                                                     name that the dataset gives it in `DataInfo.others`
index     int                 int64 (N,)             the sample's place in its dataset; added by the loader
scores    (predictions only)  float32 (N, C)         probability of each class of the whole image; where a ``mask`` is
                                                     predicted, of each pixel: (N, C, H, W)
========  ==================  =====================  ==================================================

Predicted ``boxes``, ``labels`` and ``masks`` are as in a batch, K found in each image, and ``scores`` is then a list
of N float32 (K,), the best first: how sure each of them is. `visreg.objects` checks what belongs to objects. Of a model
with several heads the predictions are a dict of them by the name of the head, each as above.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor
from torch.utils.data import default_collate

from visreg.errors import DataError
from visreg.phase import phase

Sample = dict[str, Any]
Batch = dict[str, Any]
Predictions = dict[str, Any]
Transform = Callable[[Any], Any]

IGNORE = 255  # in a ``mask``: this pixel is neither learnt nor scored
OF_CLASSES = ("label", "mask", "labels")  # what holds class indices
PLACED = frozenset({"mask", "masks", "boxes"})  # what moves with the image
RAGGED = frozenset({"boxes", "labels", "masks", "crowd", "area"})


def data_root() -> Path:
    """Return the folder that datasets live in: ``$VISREG_DATA``, else ``data``."""
    return Path(os.environ.get("VISREG_DATA") or "data")


@frozen(kw_only=True)
class DataInfo:
    """What is known of a dataset without reading it.

    Attributes:
        name: what scores on it are called, such as ``"MNIST"``.
        classes: the name of each class, by index; empty if unknown.
        others: by key of a sample, the names of its classes where those are not ``classes``: a mask of a dataset of
            boxes has a background. A dataset that gives further classes of an image names them here.
        sample: a blank sample of the right shapes and dtypes; empty if unknown.
        keys: what a sample holds, where it is known but the shapes are not.
        frames: how many frames a clip has, likewise.
    """

    name: str
    classes: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(factory=dict, eq=False, repr=False)
    sample: Sample = field(factory=dict, eq=False, repr=False)
    keys: tuple[str, ...] = ("image", "label")
    frames: int = 1

    def classes_of(self, key: str) -> tuple[str, ...]:
        """Return the name of each class of ``key`` in a sample, such as ``"mask"``; empty if unknown."""
        return self.others.get(key, self.classes if key in OF_CLASSES else ())

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The names of the classes of each key of a sample that has some, as far as both are known.

        >>> DataInfo(name="pets", classes=("cat", "dog")).class_names
        {'label': ('cat', 'dog')}
        """
        keys = [key for key in OF_CLASSES if key in self.held]
        return {key: names for key in dict.fromkeys([*keys, *self.others]) if (names := self.classes_of(key))}

    @property
    def held(self) -> tuple[str, ...]:
        """What a sample holds: the keys of the blank one, else ``keys``."""
        return tuple(self.sample) or self.keys


def pixels(values: Mapping[str, Any]) -> Any:
    """Return the image, or else the clip, of a sample or a batch; None if there is neither."""
    return values.get("image", values.get("clip"))


def blank_sample(keys: Collection[str], height: int, width: int, channels: int = 3, frames: int = 1) -> Sample:
    """Return a black image with one object as large as itself, of class 0, and of what is known of it ``keys``.

    Where ``clip`` is one of the keys, it has so many ``frames``.

    >>> {key: tuple(value.shape) for key, value in blank_sample(("image", "boxes", "mask"), 24, 32).items()}
    {'image': (3, 24, 32), 'mask': (24, 32), 'boxes': (1, 4)}
    """
    whole: Sample = {
        "image": torch.zeros(channels, height, width, dtype=torch.uint8),
        "clip": torch.zeros(frames, channels, height, width, dtype=torch.uint8),
        "label": torch.zeros((), dtype=torch.int64),
        "mask": torch.zeros(height, width, dtype=torch.int64),
        "boxes": torch.tensor([[0.0, 0.0, width, height]]),
        "labels": torch.zeros(1, dtype=torch.int64),
        "masks": torch.ones(1, height, width, dtype=torch.bool),
        "crowd": torch.zeros(1, dtype=torch.bool),
        "area": torch.tensor([float(height * width)]),
    }
    further = {key: torch.zeros((), dtype=torch.int64) for key in keys if key not in whole}
    return {key: value for key, value in whole.items() if key in keys} | further


class Dataset(ABC):
    """Samples by index. The constructor takes options and reads nothing; `open` reads."""

    @property
    @abstractmethod
    def info(self) -> DataInfo:
        """What the samples are; known before `open` wherever it can be."""

    @abstractmethod
    def open(self) -> None:
        """Find the data and get ready to give samples; a second call does nothing.

        Raises:
            DataError: if the data is missing or damaged; says which files to put where.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample; may be called in a worker process.

        Raises:
            DataError: if it cannot be read. An OSError, EOFError or ValueError is taken for one, and anything else for
                a mistake in the dataset.
        """

    def at(self, index: int, epoch: int) -> Sample:
        """Return one sample as it is in an epoch of training, counted from 0, if it is not the same in all of them.

        What is random in it is drawn from the generators as they are: visreg seeds them for each sample.
        """
        return self[index]

    def unread(self, index: int, epoch: int) -> Sample:
        """Return what `at` does, where the image may be a `Picture` that is yet to be read, by whom it is needed."""
        return self.at(index, epoch)

    def classes_in(self, index: int) -> frozenset[int]:
        """Return the classes in a sample: its label, or those of its objects or pixels; by default it is read."""
        return _classes_in(self[index])

    def where(self, index: int) -> str:
        """Return where a sample comes from, such as the path of its file, for messages; empty if that is unknown."""
        return ""

    def stamps(self) -> Sequence[str] | None:
        """Return of each sample what differs once it does, such as its files' names, sizes and times; None if unknown.

        Equal ones are of samples that are the same. Options need not be in it, nor the code.
        """
        return None

    def labels(self) -> Tensor | None:
        """Return the ``label`` of every sample, int64 (len(self),), or None where that takes reading the samples."""
        return None

    def stream(self) -> Callable[[int], Iterator[Sample]] | None:
        """Return what gives the samples from a position on, without end, if they have no index; else None."""
        return None

    def tensors(self) -> Mapping[str, Tensor] | None:
        """Return every sample at once, as one batch, where they are in memory anyway; else None."""
        return None

    @property
    def fixed(self) -> bool:
        """Whether a sample is the same whenever it is read, so that it may be kept."""
        return False


def _classes_in(sample: Sample) -> frozenset[int]:
    key = next((key for key in ("label", "labels", "mask") if key in sample), None)
    values = set() if key is None else set(sample[key].unique().tolist())
    return frozenset(values - {IGNORE} if key == "mask" else values)


def printable(path: object) -> str:
    r"""Return a path as one line that any terminal and file can hold; a name may be any bytes.

    >>> print(printable("a\nb"), printable("\udcff.png"), printable("\U0001f41d"))
    a\nb \udcff.png \U0001f41d
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(path))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch; the keys in ``RAGGED`` stay lists, one item for each sample.

    Raises:
        DataError: if the samples differ in their keys or shapes.
    """
    batch: Batch = {}
    for key in samples[0]:
        try:
            values = [sample[key] for sample in samples]
            batch[key] = values if key in RAGGED else default_collate(values)
        except (KeyError, RuntimeError, TypeError) as error:
            shapes = sorted({str(tuple(getattr(sample.get(key), "shape", ()))) for sample in samples})
            raise DataError(
                f"{key!r} differs between the samples of a batch, of shapes {', '.join(shapes)}; "
                f"add a transform that makes them alike, such as Resize ({type(error).__name__}: {error})"
            ) from error
    return batch


def to_device(value: Any, device: torch.device) -> Any:
    """Copy every tensor inside ``value`` to ``device``."""
    with phase("host to device"):
        return _moved(value, device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        if device.type == "cuda" and value.device.type == "cpu":
            value = value.pin_memory()  # or the copy would wait for what the device is doing
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return value


def split(batch: Batch, parts: int) -> list[tuple[Batch, float]]:
    """Cut a batch into up to ``parts`` of nearly equal size, each with its share of the samples.

    >>> [(part["label"].tolist(), share) for part, share in split({"label": torch.arange(4)}, 2)]
    [([0, 1], 0.5), ([2, 3], 0.5)]
    """
    if parts == 1 or (size := batch_length(batch)) < 2:
        return [(batch, 1.0)]
    step = -(-size // parts)
    return [
        ({key: value[start : start + step] for key, value in batch.items()}, min(step, size - start) / size)
        for start in range(0, size, step)
    ]


def batch_length(batch: Batch) -> int:
    """Return how many samples there are in ``batch``."""
    return len(next(iter(batch.values())))
