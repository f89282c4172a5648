"""Opens the cache of a dataset's samples: which file it is, and whether what is in it is still of use."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from torch import Tensor

from visreg import dist
from visreg.cache import Cache, new_file, new_memory
from visreg.data import Dataset, Sample, Transform
from visreg.errors import DataError
from visreg.memory import split_bytes
from visreg.picture import with_whole_image
from visreg.samples import Source, persist

TRIED = 100  # samples, to find one that can be read
DECODERS = ("pillow", "torch", "torchvision")  # another version of these may give other pixels


def open_cache(
    kind: Literal["ram", "disk"],
    dataset: Dataset,
    transforms: Sequence[Transform],
    specs: Sequence[Mapping[str, Any]],
    draft: bool,
    skip: bool,
) -> tuple[Cache, str]:
    """Return what keeps a dataset's samples, after the first of the transforms, and what to tell of it.

    Args:
        kind: where.
        dataset: opened, with samples by index.
        transforms: of samples.
        specs: of the dataset, and of each of the transforms.
        draft: let a JPEG be decoded at a fraction of its size.
        skip: whether samples that cannot be read are left out.

    Raises:
        DataError: if these samples cannot be kept, or not there.
    """
    name, stamps = dataset.info.name, dataset.stamps() if dataset.fixed else None
    if stamps is None:
        raise DataError(f"{name} does not say which files its samples are read from; remove it")
    count = len(split_bytes(_readable(dataset, draft, skip), transforms)[0])
    places = {stamp: slot for slot, stamp in enumerate(sorted(set(stamps)))}
    kept = {"specs": specs[: 1 + count], "draft": draft}
    known = {**kept, "versions": [_version(package) for package in DECODERS], "stamps": list(places)}
    digest, slots = _digest(known), torch.tensor([places[stamp] for stamp in stamps])
    if kind == "ram":
        path, keeps = new_memory(digest, len(places))
        path = _shared(path)
        cache = Cache(path=path, memory=True, slots=slots, first=count, keeps=keeps)
        cache.open()
        return cache, "decoded samples are kept in memory"
    safe = re.sub(r"[^\w.-]+", "_", name)
    path, changed = new_file(f"{safe}-{_digest(kept).hex()[:16]}.samples", digest, len(places))
    cache = Cache(path=path, slots=slots, first=count)
    cache.open()
    there = f"which is begun anew, since {changed}" if changed else ""
    there = there or f"where {cache.held():,} of {len(places):,} are already"
    return cache, f"decoded samples are kept in {path}, {there}"


def _readable(dataset: Dataset, draft: bool, skip: bool) -> Sample:
    """Return a sample.

    Raises:
        DataError: if none can be read, or one holds what cannot be kept.
    """
    source = Source(dataset=dataset, draft=draft)
    for index in range(min(TRIED, len(dataset))):
        try:
            sample = persist(dataset, index, lambda index=index: with_whole_image(source.read(index)))  # type: ignore[misc]
        except DataError:
            if not skip or index + 1 == min(TRIED, len(dataset)):
                raise
        else:
            break
    other = sorted(key for key, value in sample.items() if not isinstance(value, Tensor))
    if other:
        raise DataError(f"the samples of {dataset.info.name} hold {' and '.join(other)}, no tensors; remove it")
    return sample


def _shared(path: str) -> str:
    """Return the path that the first process of this machine has for all that run beside it."""
    here = socket.gethostname()
    return str(next(found for host, rank, found in dist.gather((here, dist.local_rank(), path)) if host == here))


def _digest(values: Any) -> bytes:
    return hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=32).digest()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
