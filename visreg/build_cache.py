"""Opens the cache of a dataset's samples: which file it is, and whether what is in it is still of use."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from visreg import dist
from visreg.cache import Cache
from visreg.cache_file import DIGEST, DISUSED, caches, drop_disused, header_of, new_file, new_memory
from visreg.data import Dataset, Sample, Transform
from visreg.errors import DataError
from visreg.memory import split_bytes
from visreg.options import options_of
from visreg.picture import with_whole_image
from visreg.registry import DATASETS, TRANSFORMS, Registry, kind_of
from visreg.samples import Source, persist
from visreg.specs import Spec, outer_specs

TRIED = 100  # samples, to find one that can be read
# Another version of these may give other samples. What each is installed as, by what it is imported as.
DECODERS = {
    "av": "av",
    "faster_coco_eval": "faster-coco-eval",
    "PIL": "pillow",
    "torch": "torch",
    "torchvision": "torchvision",
    "visreg": "visreg",
}


def open_cache(
    kind: Literal["ram", "disk"],
    dataset: Dataset,
    transforms: Sequence[Transform],
    specs: Sequence[Spec],
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
    parts = {
        "the data": _digest([kept, list(places)]),
        " or ".join(DECODERS.values()): _digest([_version(package) for package in DECODERS.values()]),
    }
    changed, keeps = "", None
    if kind == "ram":
        path, keeps = new_memory(parts, len(places))
        path = _shared(path)
    else:
        parts |= _code([(DATASETS, specs[0]), *((TRANSFORMS, spec) for spec in specs[1 : 1 + count])])
        safe = re.sub(r"[^\w.-]+", "_", name)
        path, changed = new_file(f"{safe}-{_digest(kept).hex()}.samples", parts, len(places))
    slots, header = torch.tensor([places[stamp] for stamp in stamps]), header_of(parts.values())
    cache = Cache(path=path, memory=kind == "ram", slots=slots, first=count, header=header, keeps=keeps)
    cache.open()
    return cache, "decoded samples are kept in memory" if kind == "ram" else _told(cache, changed)


def _told(cache: Cache, changed: str) -> str:
    """Return what to tell of a cache on the disk, and of those that nobody uses any more, which are deleted."""
    dropped = drop_disused() if dist.local_rank() == 0 else {}
    sizes = caches()
    own, everything = sizes.get(Path(cache.path), 0), sum(sizes.values())
    told = f"decoded samples are kept in {cache.path} ({_mb(own)} of the {_mb(everything)} in its folder), "
    told += f"which is begun anew, since {changed}" if changed else f"where {cache.held():,} of {cache.entries:,} are"
    for path, size in dropped.items():
        told += f"; deleted {path.name} ({_mb(size)}), which nobody had used for {DISUSED} days"
    return told


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _code(specs: Iterable[tuple[Registry[Any], Spec]]) -> dict[str, bytes]:
    """Return a digest of the files that components of others are written in, by what to call those."""
    outer = ((registry, outer) for registry, spec in specs for _, outer in outer_specs(spec))
    files = sorted({file for registry, spec in outer for file in _files(registry, spec)} - {""})
    names = ", ".join(dict.fromkeys(Path(file).name for file in files)) or "plugins"
    contents = [hashlib.blake2b(Path(file).read_bytes()).hexdigest() for file in files]
    return {f"the code in {names}": _digest(contents)}


def _files(registry: Registry[Any], spec: Spec) -> Iterator[str]:
    """Yield the files of the class or function that a spec names, and of those that it derives from or has inside."""
    factory = registry.get(spec["type"])
    for each in getattr(factory, "__mro__", (factory,)):
        if str(getattr(each, "__module__", "")).partition(".")[0] not in {*DECODERS, *sys.stdlib_module_names}:
            yield _file(each)
    known = options_of(factory)
    for key, value in spec.items():
        kind = kind_of(known[key].annotation, registry, key) if key in known else registry
        for _, inner in outer_specs(value):
            yield from _files(kind, inner)


def _file(each: Any) -> str:
    """Return the file that a class or function is written in; "" if there is none, as of one that is compiled.

    Raises:
        DataError: if it was made at a prompt, or in a notebook.
    """
    with suppress(TypeError, OSError):  # it has none
        if (file := inspect.getsourcefile(each)) and Path(file).is_file():
            return file
    if getattr(each, "__module__", "") == "__main__":
        reason = f"{each.__name__} was made at a prompt, so that nobody can see whether its code has changed since"
        raise DataError(f"{reason}; put that into a file, or take cache='ram'")
    return ""


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
    return hashlib.blake2b(json.dumps(values, sort_keys=True, default=str).encode(), digest_size=DIGEST).digest()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
