"""The two loaders, which make batches out of a dataset held in memory or sample by sample.

Whatever a dataset or a transform draws for a sample comes from (seed, epoch, index). So neither the number of workers
nor a stop in between changes what a model sees.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, repeat
from typing import Any, ClassVar, Literal, Protocol

import torch
from attrs import define, field
from torch import Tensor

from visreg.batching import Batching
from visreg.cache import Cache
from visreg.data import Batch, DataInfo, Dataset, Transform, to_device
from visreg.errors import DataError
from visreg.samples import Samples, place
from visreg.transform import OF_SAMPLES, RandomTransform, transform_batch
from visreg.workers import Workers

logger = logging.getLogger("visreg")

AT_ONCE = 3 << 20  # bytes of images that are transformed at once: what a processor's cache holds
TOLD = 5  # bad samples that are told of one by one


class Loader(Protocol):
    """Batches on the device they are needed on, in an order that depends on the epoch alone.

    Attributes:
        info: the dataset the batches come from.
        batch_size: how many samples there are in a batch, over all processes.
        samples: how many samples there are in the dataset.
        waits: whether making a batch runs code of others, or waits for it, so that it may take long.
    """

    waits: ClassVar[bool]

    @property
    def info(self) -> DataInfo: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def samples(self) -> int: ...

    def __len__(self) -> int:
        """Return how many batches there are in an epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from number ``start`` on, without making those before it."""
        ...


@define(kw_only=True, eq=False)
class _Batched:
    """What the two loaders share: how they batch, and what a batch passes through."""

    batching: Batching
    batch_transforms: Sequence[Transform] = ()

    @property
    def keyed(self) -> bool:
        """Whether what is done to batches is drawn for each of their samples."""
        return any(isinstance(transform, RandomTransform) for transform in self.batch_transforms)

    @property
    def batch_size(self) -> int:
        return self.batching.batch_size

    @property
    def samples(self) -> int:
        return self.batching.size

    def __len__(self) -> int:
        return len(self.batching)


@define(kw_only=True, eq=False)
class TensorLoader(_Batched):
    """Batches by index out of a dataset that is held in memory; there is no per-sample work at all.

    Attributes:
        tensors: the samples as one batch, with the first of the config's transforms applied.
        transforms: the others, which are computed for whole batches.
        first: how many the first are.
        device: where the batches are to be; where the tensors are, if not given.
    """

    waits: ClassVar[bool] = False
    info: DataInfo
    tensors: dict[str, Tensor] = field(repr=False)
    transforms: Sequence[Transform] = ()
    first: int = 0
    device: torch.device | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        held = next(iter(self.tensors.values())).device
        keys = self._keys(epoch, start, self.device or held)
        every = zip(self.batching.batches(epoch, start, held), keys, strict=False)
        pairs = (pair for pair in every if pair[0].numel())  # a process may have no part in an evaluation's last batch
        made = self._transformed(pairs) if self.transforms else ((self._gathered(one), mine) for one, mine in pairs)
        for batch, mine in made:
            yield transform_batch(batch, self.batch_transforms, mine)

    def _gathered(self, indices: Tensor) -> Batch:
        batch: Batch = {name: tensor.index_select(0, indices) for name, tensor in self.tensors.items()}
        batch["index"] = indices
        return batch if self.device in (None, indices.device) else to_device(batch, self.device)

    def _transformed(self, pairs: Iterator[tuple[Tensor, Tensor | None]]) -> Iterator[tuple[Batch, Tensor | None]]:
        """Yield batches and keys; small batches are transformed several at once, for which the images are the same."""
        size = sum(tensor[0].nbytes for tensor in self.tensors.values()) * self.batching.batch_size
        while group := list(islice(pairs, max(1, AT_ONCE // size))):
            keys = None if group[0][1] is None else torch.cat([mine for _, mine in group if mine is not None])
            several = self._gathered(torch.cat([indices for indices, _ in group]))
            several = transform_batch(several, self.transforms, keys, OF_SAMPLES, self.first)
            lengths = [len(indices) for indices, _ in group]
            parts = {name: value.split(lengths) for name, value in several.items()}
            for number, (_, mine) in enumerate(group):
                yield {name: values[number] for name, values in parts.items()}, mine

    def _keys(self, epoch: int, start: int, device: torch.device) -> Iterator[Tensor | None]:
        """Yield what each batch's randomness comes from, or None where there is none."""
        if self.keyed or any(isinstance(transform, RandomTransform) for transform in self.transforms):
            return self.batching.image_keys(epoch, start, device)
        return repeat(None)


@define(kw_only=True, eq=False)
class SampleLoader(_Batched):
    """Batches put together sample by sample, in this process or by workers.

    Attributes:
        on_bad_sample: whether one that cannot be read is an ``"error"``, or to ``"skip"``: in training another takes
            its place, which depends on the seed, the epoch and its index alone; an evaluation leaves it out.
        max_bad_samples: how many may be skipped, each counted once; one more is an error.
        timeout: seconds that a worker may take over one sample; 0 for any time.
        draft: let a JPEG be decoded at a fraction of its size where the first transform shrinks it so far.
        cache: keeps samples as they are after their first transforms.
        bad: why samples could not be read, by index.
    """

    waits: ClassVar[bool] = True
    dataset: Dataset
    transforms: Sequence[Transform]
    device: torch.device
    workers: int = 0
    on_bad_sample: Literal["error", "skip"] = "error"
    max_bad_samples: int = 100
    timeout: float = 120.0
    draft: bool = True
    cache: Cache | None = None
    bad: dict[int, str] = field(factory=dict, init=False, repr=False)
    _samples: Samples = field(init=False, repr=False)
    _pool: Workers = field(init=False, repr=False)
    _copies: torch.cuda.Stream | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._samples = Samples(
            dataset=self.dataset,
            transforms=self.transforms,
            seed=self.batching.seed,
            skip=self.on_bad_sample == "skip",
            replace=self.batching.train,
            draft=self.draft,
            cache=self.cache,
            keyed=self.keyed,
        )
        self._pool = Workers(
            make=self._samples.batch,
            count=self.workers,
            timeout=self.timeout,
            place=partial(place, self.dataset),
            pinned=self.device.type == "cuda",
        )
        if self.device.type == "cuda":
            self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # of torch's own

    @property
    def info(self) -> DataInfo:
        return self.dataset.info

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from number ``start`` on, without making those before it.

        Raises:
            DataError: if a sample cannot be read, or too many cannot; or a worker dies or hangs, time and again.
            ResourceError: if a worker lacks memory.
        """
        keys = filter(
            None, self.batching.keys(epoch, start)
        )  # a process may have no part in an evaluation's last batch
        bad: set[int] = set()
        try:
            for batch, reasons in self._pool.results(keys, start) if self.workers else map(self._samples.batch, keys):
                bad |= reasons.keys()
                self._note(reasons)
                if batch:
                    batch = self._on_device(batch)
                    mine = batch.pop("key", None)
                    yield transform_batch(batch, self.batch_transforms, mine)
        finally:
            for line in self.cache.news() if self.cache else ():
                logger.warning("%s", line)
            if bad:
                what = "replaced by others" if self.batching.train else "left out of the scores"
                many = "s" * (len(bad) > 1)
                which = f"epoch {epoch + 1} of " * self.batching.train
                logger.warning("%s%s: %d bad sample%s %s", which, self.info.name, len(bad), many, what)

    def _on_device(self, batch: Batch) -> Batch:
        """Return a batch on the device; to a GPU it is copied while that still computes with the batch before."""
        if self._copies is None:
            return to_device(batch, self.device)  # type: ignore[no-any-return]  # a dict gives a dict
        with torch.cuda.stream(self._copies):
            copied: Batch = to_device(batch, self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._copies)
        for tensor in _tensors(copied):
            tensor.record_stream(current)  # its memory is not to be given to another copy before that has used it
        return copied

    def _note(self, reasons: Mapping[int, str]) -> None:
        """Warn of the first few samples that cannot be read.

        Raises:
            DataError: if there are too many.
        """
        for index, reason in reasons.items():
            if index not in self.bad:
                self.bad[index] = reason
                if len(self.bad) <= TOLD:
                    more = "; more will only be counted" if len(self.bad) == TOLD else ""
                    logger.warning("skipping a bad sample: %s%s", reason, more)
        if len(self.bad) > self.max_bad_samples:
            raise DataError(
                f"{len(self.bad)} samples of {self.info.name} cannot be read, which is more than max_bad_samples="
                f"{self.max_bad_samples}; `visreg check CONFIG --data` lists all; the last: {[*self.bad.values()][-1]}"
            )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors inside of a batch."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
