"""Makes a visreg dataset of any map-style dataset, such as torchvision's, without changing or importing it."""

from __future__ import annotations

import logging
import re
import socket
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.utils.data import IterableDataset

from visreg.data import DataInfo, Dataset, Sample, blank_sample, data_root
from visreg.datasets.files import PATIENCE, DamagedError, fetch_once, reachable
from visreg.datasets.known import INSTEAD, KNOWN, Known
from visreg.datasets.pairs import class_indices, pair, stack_of_images
from visreg.datasets.stamps import stamps_of
from visreg.errors import DataError, VisregError
from visreg.options import options_of

logger = logging.getLogger("visreg")


def adapt(factory: Callable[..., Any]) -> Callable[..., Dataset]:
    """Return what makes a visreg `Dataset`: ``factory`` itself if it does, else one that makes an `Adopted`."""
    if _makes_dataset(factory):
        return factory
    return partial(_adopt, factory)


def defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that a config may leave out, though ``factory`` may require them.

    An adopted dataset's ``root`` is the data root.
    """
    if _makes_dataset(factory):
        return {}
    root = {"root": str(data_root())} if "root" in options_of(factory) else {}
    return {**root, **_known(factory, {}).options}


def _makes_dataset(factory: Callable[..., Any]) -> bool:
    made = factory
    if not isinstance(factory, type):
        with suppress(Exception):  # an annotation that means nothing at run time
            made = typing.get_type_hints(factory).get("return", factory)
    return isinstance(made, type) and issubclass(made, Dataset)


def _adopt(factory: Callable[..., Any], **arguments: Any) -> Adopted:
    if _is_torchvisions(factory) and factory.__name__ in INSTEAD:
        name = factory.__name__
        raise ValueError(f"{name} needs a decoder that torchvision no longer has; use {INSTEAD[name]} instead")
    return Adopted(factory=factory, arguments=arguments)


@define(kw_only=True, eq=False)
class Adopted(Dataset):
    """A dataset of another library; it is made when it is opened.

    Its samples may be dicts with the keys of `visreg.data`, or pairs of an image and a class index, or a mask.

    Args:
        factory: makes the dataset.
        arguments: what to call it with.
    """

    factory: Callable[..., Any]
    arguments: Mapping[str, Any]
    source: Any = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """The dataset's own name."""
        return str(getattr(self.factory, "__name__", self.factory))

    @property
    def info(self) -> DataInfo:
        if isinstance(self.source, Dataset):
            return self.source.info
        known = _known(self.factory, self.arguments)
        classes = known.classes if known.values else getattr(self.source, "classes", None) or known.classes
        keys, shape = ("image", known.key), known.shape
        sample = blank_sample(keys, shape[1], shape[2], shape[0]) if shape else {}
        return DataInfo(name=self.name, classes=tuple(map(str, classes)), sample=sample, keys=keys)

    def open(self) -> None:
        if self.source is not None:
            return
        wanted = bool(self.arguments.get("download"))
        found, reason = self._try(download=False) if wanted else self._try()
        if wanted:
            fetch_once(found is None, partial(self._download, reason))
            found, reason = (found, "") if found is not None else self._try(download=False)
        if found is None:
            advice = (
                "" if wanted else "; set download=True or put the files there" if "download" in self._options else ""
            )
            raise DataError(f"{self.name}: {reason}{advice}")
        if isinstance(found, Dataset):
            found.open()
        elif not _is_stream(found) and not (hasattr(found, "__getitem__") and hasattr(found, "__len__")):
            raise DataError(f"{self.name} is a {type(found).__name__}, not a dataset: it lacks __len__ or __getitem__")
        self.source = found

    @property
    def _options(self) -> Mapping[str, Any]:
        return options_of(self.factory)

    def _try(self, **changes: Any) -> tuple[Any, str]:
        """Return the dataset, or None and why it cannot be made."""
        arguments = {**defaults(self.factory), **self.arguments, **changes}
        root = arguments.get("root")
        if isinstance(root, str) and not Path(root).exists():
            arguments["root"] = str(data_root() / root)  # which is ``root`` itself where that is absolute
        try:
            return self.factory(**arguments), ""
        except VisregError:
            raise
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.name}: cannot be made with {arguments}: {error}") from error
        except Exception as error:  # whatever another library raises
            where = f" (root {arguments['root']!r})" if "root" in arguments else ""
            files = _known(self.factory, {}).files
            wanted = f"; expected in {Path(arguments['root']).absolute()}: {files}" if files and where else ""
            return None, f"{type(error).__name__}: {error}{where}{wanted}"

    def _download(self, reason: str) -> None:
        hosts = _hosts(self.factory)
        if hosts and not any(map(reachable, hosts)):
            raise DataError(f"{self.name}: {reason}; and no download, since {', '.join(hosts)} cannot be reached")
        with _impatient():
            found, reason = self._try(download=True)
        if found is None:
            raise DataError(f"{self.name}: cannot be downloaded: {reason}")

    def __len__(self) -> int:
        return 0 if self.source is None or _is_stream(self.source) else len(self.source)

    def __getitem__(self, index: int) -> Sample:
        self.open()
        try:
            item = self.source[index]
        except Exception as error:
            if type(error).__module__.startswith("PIL."):  # such as of a decompression bomb; the loader knows others
                raise DamagedError(f"{type(error).__name__}: {error}") from error
            raise
        return self._sample(item, index)

    def _sample(self, item: Any, index: int) -> Sample:
        try:
            return dict(item) if isinstance(item, Mapping) else pair(item, _known(self.factory, self.arguments).values)
        except TypeError as error:
            raise DamagedError(f"{self.name}[{index}]: {error}") from error

    def stream(self) -> Callable[[int], Iterator[Sample]] | None:
        self.open()
        if isinstance(self.source, Dataset):
            return self.source.stream()
        if not _is_stream(self.source):
            return None
        if not hasattr(self.source, "seek"):
            logger.warning(
                "%s is a stream that cannot be positioned: a run that is resumed reads again all that it has seen, and "
                "is exact only if the stream gives the same again; give it a method seek(position)",
                self.name,
            )
        return self._from

    def _from(self, position: int) -> Iterator[Sample]:
        """Yield the samples of a stream from ``position`` on, and after its last the first again."""
        seek, number = getattr(self.source, "seek", None), -1
        if seek is not None:
            seek(position)
        left = position if seek is None else 0
        while True:
            before = number
            for item in self.source:
                number += 1
                if number >= left:
                    yield self._sample(item, position - left + number)
            if number == before:
                raise DataError(f"{self.name}: gives no sample when it is read from position {position}")
            if seek is not None:
                seek(0)

    def classes_in(self, index: int) -> frozenset[int]:
        self.open()
        return self.source.classes_in(index) if isinstance(self.source, Dataset) else Dataset.classes_in(self, index)

    def at(self, index: int, epoch: int) -> Sample:
        self.open()
        return self.source.at(index, epoch) if isinstance(self.source, Dataset) else self[index]

    def where(self, index: int) -> str:
        if isinstance(self.source, Dataset):
            return self.source.where(index)
        for name in ("samples", "images", "_image_files", "_images"):  # of torchvision's
            files = getattr(self.source, name, None)
            found = files[index] if isinstance(files, list) and index < len(files) else ""
            path = found[0] if isinstance(found, tuple) and found else found
            if path and isinstance(path, (str, Path)):
                return str(path)
        return ""

    def stamps(self) -> Sequence[str] | None:
        self.open()
        if isinstance(self.source, Dataset):
            return self.source.stamps()
        return stamps_of(self.source) if _is_torchvisions(self.factory) else None

    def labels(self) -> Tensor | None:
        self.open()
        if isinstance(self.source, Dataset):
            return self.source.labels()
        if any(getattr(self.source, name, None) for name in ("target_transform", "transforms")):
            return None
        labels = class_indices(getattr(self.source, "targets", getattr(self.source, "labels", None)))
        if labels is None or not len(labels) == len(self) > 0:
            return None
        return labels if int(labels[-1]) == int(self[len(self) - 1].get("label", -1)) else None

    @property
    def fixed(self) -> bool:
        """So says the dataset; torchvision's are, unless they have transforms of their own, which may be random."""
        if not _is_torchvisions(self.factory):
            return bool(getattr(self.source, "fixed", False))
        return not any(getattr(self.source, name, None) for name in ("transform", "target_transform", "transforms"))

    def tensors(self) -> Mapping[str, Tensor] | None:
        self.open()
        if isinstance(self.source, Dataset):
            return self.source.tensors()
        if any(getattr(self.source, name, None) for name in ("transform", "target_transform", "transforms")):
            return None
        images = stack_of_images(getattr(self.source, "data", None))
        labels = class_indices(getattr(self.source, "targets", getattr(self.source, "labels", None)))
        if images is None or labels is None or not len(images) == len(labels) == len(self) or not len(self):
            return None
        last = self[len(self) - 1]
        alike = torch.equal(images[-1], torch.as_tensor(last["image"])) and int(labels[-1]) == int(last["label"])
        return {"image": images, "label": labels} if alike else None


def _is_stream(source: Any) -> bool:
    """Return whether the samples can only be had one after another."""
    return isinstance(source, IterableDataset) or (hasattr(source, "__iter__") and not hasattr(source, "__len__"))


def _is_torchvisions(factory: Callable[..., Any]) -> bool:
    return str(getattr(factory, "__module__", "")).startswith("torchvision.")


def _known(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Known:
    """Return what is known of a dataset made with ``arguments``, which may be nothing."""
    known = KNOWN.get(getattr(factory, "__name__", ""), Known(())) if _is_torchvisions(factory) else Known(())
    usual = all(arguments.get(name, value) == value for name, value in known.options.items())
    return known if usual else Known(())


def _hosts(factory: Callable[..., Any]) -> list[str]:
    """Return the addresses that a dataset's class has among its attributes, which are where it downloads from."""
    text = repr([vars(kind) for kind in getattr(factory, "__mro__", ()) if _is_torchvisions(kind)])
    return list(dict.fromkeys(re.findall(r"(?<=['\"])https?://[^/'\"\s]+", text)))


@contextmanager
def _impatient() -> Iterator[None]:
    """Let no connection made inside wait for long; torchvision's downloads would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
