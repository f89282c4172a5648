"""What is inside a checkpoint, found out before `torch.load` may read it: plain data, and no more than the file holds.

``weights_only=True`` sees to it that nothing is executed. It does not keep a small file from asking for a terabyte, nor
a tensor from reaching beyond its memory. This does, with a closed table of what a checkpoint is made of.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

import torch
from attrs import frozen

# Those of pickle's protocol 2 that `torch.save` uses; none of them makes a thing much bigger than the bytes it is in.
OPCODES = b"\x80c}](NMKJGX)\x85\x86\x87tusaeqrhjQRb\x88\x89\x8a.U"
STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
PICKLE_LIMIT = 2 << 20  # bytes of plain data, which take up to a hundred times as many in memory; there may be
PICKLE_LIMIT_PER_ENTRY = 1 << 10  # so many more for each tensor, and
EXPANDED_LIMIT = 64 << 20  # so many in a tensor that shows the same memory again and again, as expand makes


class UnfitError(ValueError):
    """A file holds something that a checkpoint never does; the message says what."""


def inspect(file: IO[bytes], size: int) -> None:
    """Make sure that the first ``size`` bytes of ``file`` are an archive of tensors and plain data.

    Takes memory in proportion to the plain data, and at most some hundred MiB for a file of few tensors.

    Raises:
        UnfitError: if they are not, or claim to hold more than they do.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = _sizes(archive, size)
            limit = PICKLE_LIMIT + len(sizes) * PICKLE_LIMIT_PER_ENTRY
            if sizes.get("data.pkl", 0) > limit:
                raise UnfitError(f"more than {limit >> 20} MiB of plain data")
            pickled = archive.read(f"{archive.namelist()[0].partition('/')[0]}/data.pkl")
        _Inspector(pickled, sizes).load()
    except UnfitError:
        raise
    except Exception as error:  # whatever the parsers say of bytes that anyone may have written
        raise UnfitError(f"{type(error).__name__}: {error}") from error
    finally:
        file.seek(0)


def _sizes(archive: zipfile.ZipFile, size: int) -> dict[str, int]:
    """Return how many bytes each entry holds, by its name in the archive's one folder."""
    entries = archive.infolist()
    folder = entries[0].filename.partition("/")[0] + "/"
    sizes = {entry.filename.removeprefix(folder): entry.file_size for entry in entries}
    # An entry that is listed twice, or compressed, can stand for far more than the file's own size.
    if len(sizes) != len(entries) or not all(entry.filename.startswith(folder) for entry in entries):
        raise UnfitError("an archive with two entries of one name, or outside its folder")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise UnfitError("an archive that is compressed")
    if sum(sizes.values()) > size or archive.comment:
        raise UnfitError("an archive that claims to hold more than it does")
    return sizes


@frozen
class _Storage:
    """Stands for the memory of a tensor."""

    dtype: torch.dtype
    size: int  # bytes


@frozen(getstate_setstate=False)  # so that a pickle cannot change it
class _Named:
    """Stands for a class or function that a pickle names; to call it is to check what it would be called with."""

    call: Callable[..., Any]
    dtype: torch.dtype | None = None

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class _Bag:
    """Stands for what a class would make."""


class _Dict(dict[Any, Any]):
    """Stands for an OrderedDict or a Counter, whose attributes a pickle may set."""


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise UnfitError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, *more: Any) -> _Bag:
    numbers = (offset, *size, *stride)
    if type(storage) is not _Storage or len(size) != len(stride) or hooks:
        raise UnfitError("a tensor that is not one")
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
        raise UnfitError("a tensor whose shape is not one")
    dtype = next((item for item in more if isinstance(item, torch.dtype)), storage.dtype)
    count = math.prod(size)
    end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset
    if end * dtype.itemsize > storage.size or count * dtype.itemsize > max(storage.size, EXPANDED_LIMIT):
        raise UnfitError(f"a tensor of shape {tuple(size)} in {storage.size} bytes")
    return _Bag()


def _bag(*arguments: Any) -> _Bag:
    return _Bag()


def _table() -> dict[str, Any]:
    """Return all that a checkpoint may name."""
    table: dict[str, Any] = {f"torch {name}Storage": _Named(_bag, dtype) for name, dtype in STORAGES.items()}
    table |= {f"torch {name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    table |= {"torch.storage UntypedStorage": _Named(_bag, torch.uint8), "_codecs encode": _Named(_bytes)}
    table |= {f"torch._utils _rebuild_tensor_v{version}": _Named(_tensor) for version in (2, 3)}
    table |= {f"torch._utils _rebuild_parameter{end}": _Named(_bag) for end in ("", "_with_state")}
    table |= {f"collections {name}": _Named(_Dict) for name in ("OrderedDict", "Counter")}
    table |= {f"{module} {name}": _Named(_bag) for module in ("__builtin__", "builtins") for name in ("set", "complex")}
    return table | {"torch Size": _Named(_bag), "torch device": _Named(_bag)}


TABLE: Mapping[str, Any] = _table()


# Python's own, not the one in C, which would set aside as much memory as a hostile pickle says.
class _Inspector(pickle._Unpickler):
    """Goes through a pickle and makes nothing of what it names."""

    dispatch: ClassVar = {code: load for code, load in pickle._Unpickler.dispatch.items() if code in OPCODES}

    def __init__(self, pickled: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(pickled))
        self.sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        try:
            return TABLE[f"{module} {name}"]
        except KeyError:
            raise UnfitError(f"a {module}.{name}") from None

    def persistent_load(self, identity: Any) -> _Storage:
        kind, named, key, _, count = identity
        if kind != "storage" or type(named) is not _Named or named.dtype is None or type(count) is not int:
            raise UnfitError("a tensor without memory")
        size = self.sizes.get(f"data/{key}", -1)
        if count * named.dtype.itemsize != size:
            raise UnfitError(f"a tensor of {count} elements in {max(size, 0)} bytes")
        return _Storage(named.dtype, size)
