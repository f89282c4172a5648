"""Hostile checkpoints: what someone would write who wants `visreg` to run his code, or to bring it down.

Every file has a right checksum, since that protects from damage and not from malice; those of `foreign` have none.
"""

from __future__ import annotations

import codecs
import copy
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch

from visreg.checkpoint import MARK

Files = Iterator[tuple[str, bytes]]


def sealed(body: bytes) -> bytes:
    return body + MARK + hashlib.sha256(body).digest()


def written(state: dict[str, Any]) -> bytes:
    """Return what `save` would write, if it took a state of any kind."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return sealed(buffer.getvalue())


def archive(pickled: bytes, *entries: tuple[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive as `torch.save` writes it, with ``pickled`` in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as made:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), *entries, ("version", b"3\n")):
            made.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def state(payload: bytes, protocol: int = 2) -> bytes:
    """Return a pickled state of a run that has ``payload``, the opcodes of one value, in it."""
    head = b"\x80" + bytes([protocol]) if protocol else b""
    return head + b"}(" + text("visreg") + text("0") + text("x") + payload + b"u."


def named(name: str) -> bytes:
    return b"c" + b"\n".join(part.encode() for part in name.rsplit(" ", 1)) + b"\n"


def called(name: str, *arguments: Any) -> bytes:
    return named(name) + b"(" + b"".join(map(plain, arguments)) + b"tR"


def plain(value: Any) -> bytes:
    """Return the opcodes that make ``value``; bytes are opcodes already."""
    return value if isinstance(value, bytes) else pickle.dumps(value, 2)[2:-1]


def raw(value: bytes) -> bytes:
    """Return the opcodes that make bytes, as protocol 2 does."""
    return called("_codecs encode", value.decode("latin1"), "latin1")


class Reduced:
    """Pickles as a call."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.how


def calls(marker: str) -> Files:
    """Yield pickles that would call something."""
    touch = f"touch {marker}"
    code = f"open({marker!r}, 'w').close()"
    inner = pickle.dumps({"x": Reduced(os.system, (touch,))})
    shell = ["sh", "-c", touch]
    for name, arguments in {
        "os system": (touch,), "posix system": (touch,), "nt system": (touch,), "os popen": (touch,),
        "os execv": ("/bin/sh", shell), "os posix_spawn": ("/bin/sh", shell, {}), "os remove": (marker,),
        "subprocess Popen": (shell,), "subprocess run": (shell,), "subprocess getoutput": (touch,),
        "subprocess check_output": (shell,), "pty spawn": (shell,), "commands getoutput": (touch,),
        "builtins eval": (code,), "builtins exec": (code,), "__builtin__ eval": (code,), "__builtin__ exec": (code,),
        "builtins __import__": ("antigravity",), "builtins open": (marker, "w"), "builtins compile": (code, "x",
        "exec"),
        "builtins getattr": (named("os system"), "__call__"), "builtins globals": (), "builtins print": ("x",),
        "builtins bytearray": (1 << 31,), "builtins range": (1 << 31,), "builtins breakpoint": (),
        "functools partial": (named("os system"), touch), "operator attrgetter": ("__class__.__mro__",),
        "operator methodcaller": ("system", touch), "importlib import_module": ("antigravity",),
        "runpy run_path": (marker,), "code interact": (), "timeit timeit": (code,), "cProfile run": (code,),
        "pdb run": (code,), "types FunctionType": (named("builtins eval"),), "marshal loads": (raw(b"\xe3"),),
        "pickle loads": (raw(inner),), "_pickle loads": (raw(inner),), "dill loads": (raw(inner),),
        "shelve open": (marker,), "shutil rmtree": ("/nonexistent",), "webbrowser open": ("http://localhost:1",),
        "socket create_connection": (("localhost", 1),), "urllib.request urlopen": ("http://localhost:1",),
        "ctypes CDLL": ("libc.so.6",), "logging.config listen": (), "tempfile mkstemp": (), "signal alarm": (1,),
        "torch load": (marker,), "torch.serialization load": (marker,), "torch.hub load": ("x/y", "z"),
        "torch.storage _load_from_bytes": (raw(inner),), "torch.jit load": (marker,), "torch.package importer": (),
        "torch.utils.cpp_extension load_inline": ("x", code), "torch.distributed.rpc rpc_sync": (),
        "torch.serialization add_safe_globals": ([named("os system")],), "torch.ops.load_library": (marker,),
        "torch._utils _rebuild_wrapper_subclass": (named("os system"), touch),
        "torch._tensor _rebuild_from_type_v2": (named("os system"), named("os system"), (touch,), {}),
        "torch._utils _rebuild_sparse_tensor": (named("os system"), (touch,)),
        "torch._utils _rebuild_device_tensor_from_numpy": (1, 2, 3, 4),
        "torch._utils _rebuild_tensor_v2": (touch, 0, (1,), (1,), False, {}),
        "torch._utils _rebuild_parameter": (called("os system", touch), False, {}),
        "torch.nn.modules.linear Linear": (1 << 20, 1 << 20), "torch zeros": (1 << 40,), "numpy load": (marker,),
        "numpy.core.multiarray _reconstruct": (named("numpy ndarray"), (0,), raw(b"b")),
        "numpy.f2py.crackfortran getlincoef": (code, {}), "copyreg _reconstructor": (named("os system"), 0, touch),
        "copyreg __newobj__": (named("subprocess Popen"), shell), "copyreg add_extension": ("os", "system", 1),
        "visreg.plugin_file load_file": (marker,), "visreg.cli main": (["list"],), "__main__ main": (), "": (),
    }.items():  # fmt: skip
        yield f"call {name}", state(called(name, *arguments))
    for protocol in range(6):
        for name, how in {
            "system": (os.system, (touch,)),
            "eval": (eval, (code,)),
            "state": (dict, (), None, None, iter([(1, Reduced(os.system, (touch,)))])),
            "setter": (dict, (), {"a": 1}, None, None, os.system),
        }.items():
            yield f"reduce {name} in protocol {protocol}", pickle.dumps({"visreg": "0", "x": Reduced(*how)}, protocol)


def opcodes(marker: str) -> Files:
    """Yield pickles of strange opcodes."""
    touch = f"touch {marker}"
    system, argument = named("os system"), text(touch)
    yield "inst", state(b"(" + argument + b"ios\nsystem\n", 0)
    yield "obj", state(b"(" + system + argument + b"o")
    yield "newobj", state(named("subprocess Popen") + argument + b"\x85\x81")
    yield "newobj_ex", state(named("subprocess Popen") + argument + b"\x85}\x92", 4)
    yield "stack_global", state(text("os") + text("system") + b"\x93" + argument + b"\x85R", 4)
    yield "stack_global, dotted", state(text("builtins") + text("str.__class__.mro") + b"\x93)R", 4)
    yield "dotted global", state(called("collections OrderedDict.fromkeys.__self__", touch), 4)
    yield "ext1", state(b"\x82\x01" + argument + b"\x85R")
    yield "ext4", state(b"\x84\x01\x00\x00\x00" + argument + b"\x85R")
    yield "persistent, text", state(b"Pos.system\n", 0)
    yield "persistent, call", state(called("os system", touch) + b"Q")
    yield "persistent, numbers", state(plain(("storage", 1, 2, 3, 4)) + b"Q")
    yield "memo", state(system + b"q\x01" + b"0h\x01" + argument + b"\x85R")
    yield "memo, far", state(b"Nr\xff\xff\xff\x7f")
    yield "memo, missing", state(b"h\x77")
    yield "memo, negative", state(b"Np-1\n", 0)
    yield "memoize", state(system + b"\x94" + argument + b"\x85R", 4)
    yield "build on a function", state(named("torch._utils _rebuild_tensor_v2") + plain({"__code__": 1}) + b"b")
    yield "build on a class", state(named("collections OrderedDict") + plain({"__reduce__": 1}) + b"b")
    yield "build on an object", state(called("collections OrderedDict") + plain({"__class__": 1, "keys": 1}) + b"b")
    yield "build with a call", state(called("collections OrderedDict") + called("os system", touch) + b"b")
    yield "build, slots", state(called("collections OrderedDict") + b"N" + plain({"a": 1}) + b"\x86b")
    yield "build on a tensor", state(called("torch Size", (1,)) + plain({"__setstate__": "os.system"}) + b"b")
    yield "items of a class", state(named("collections OrderedDict") + text("a") + text("b") + b"s")
    yield "list of itself", state(b"]q\x01h\x01a")
    yield "key that is a list", state(b"}](NNtNs")
    yield "deep lists", state(b"]" * 100_000 + b"a" * 99_999)
    yield "deep tuples", state(b")" + b"\x85" * 1_000_000)
    yield "deep dicts", state((b"}" + text("a")) * 50_000 + b"N" + b"s" * 50_000)
    yield "marks", state(b"(" * 1_500_000 + b"N")
    yield "pop of nothing", b"\x80\x020000."
    yield "no end", state(b"N")[:-1]
    yield "nothing", b""
    yield "many dicts", state(b"]" + b"(" + b"}" * 1_900_000 + b"e")
    yield "many sets", state(b"]" + b"(" + b"\x8f" * 1_000_000 + b"e", 4)
    yield "billion laughs", state(b"]q\x00" + b"".join(b"](" + b"h" + bytes([n]) * 1 + b"h" + bytes([n]) + b"eq"
                                  + bytes([n + 1]) for n in range(60)))  # fmt: skip
    yield "tuple laughs as a key", state(b"}N" + b"\x86".join([b")"]) + b"2\x86" * 60 + b"Ns")
    yield "long integer", state(b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000)
    yield "longer integer", state(b"\x8b\xff\xff\xff\x7f")
    yield "negative length", state(b"\x8b\xff\xff\xff\xff")
    yield "integer in digits", state(b"L" + b"9" * 1_000_000 + b"L\n", 0)
    yield "integer in digits, int", state(b"I" + b"9" * 1_000_000 + b"\n", 0)
    yield "text without end", state(b"X\xff\xff\xff\xff")
    yield "text8", state(b"\x8d" + struct.pack("<Q", 1 << 62), 4)
    yield "bytes8", state(b"\x8e" + struct.pack("<Q", 1 << 62), 4)
    yield "bytearray8", state(b"\x96" + struct.pack("<Q", 1 << 40), 5)
    yield "frame", b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + state(b"N", 4)[2:]
    yield "next buffer", state(b"\x97\x98", 5)
    yield "protocol 99", state(b"N", 99)
    yield "codec", state(called("_codecs encode", "x" * 100, "zlib"))
    yield "codec of text", state(called("_codecs encode", codecs.encode("import os", "rot13"), "rot13"))
    yield "counter of a call", state(called("collections Counter", called("os system", touch)))


def tensor(count: Any, offset: Any = 0, size: Any = (4,), stride: Any = (1,), kind: str = "torch FloatStorage",
           key: Any = "0", rebuild: str = "torch._utils _rebuild_tensor_v2", more: Any = ()) -> bytes:  # fmt: skip
    identity = b"(" + text("storage") + named(kind) + b"".join(map(plain, (key, "cpu", count))) + b"tQ"
    hooks = called("collections OrderedDict")
    return called(rebuild, identity, offset, size, stride, False, hooks, *more)


def tensors(marker: str) -> Files:
    """Yield pickles of a tensor in 16 bytes of memory, which claims other things."""
    touch = f"touch {marker}"
    for name, options in {
        "2**40 elements": {"count": 1 << 40},
        "2**40 elements, shown": {"count": 4, "size": (1 << 40,), "stride": (0,)},
        "2**40 elements in all": {"count": 4, "size": (1 << 20, 1 << 20), "stride": (0, 0)},
        "2**62 in each": {"count": 4, "size": (1 << 62, 1 << 62), "stride": (0, 0)},
        "more than is there": {"count": 5},
        "a size beyond": {"count": 4, "size": (5,)},
        "a stride beyond": {"count": 4, "size": (2,), "stride": (4,)},
        "an offset beyond": {"count": 4, "offset": 1},
        "an offset far beyond, of nothing": {"count": 4, "offset": 1 << 40, "size": (0,)},
        "a negative size": {"count": 4, "size": (-4,)},
        "negative sizes": {"count": 4, "size": (-2, -2), "stride": (2, 1)},
        "a negative stride": {"count": 4, "stride": (-1,)},
        "a negative offset": {"count": 4, "offset": -4},
        "a negative count": {"count": -4},
        "a count in words": {"count": "4"},
        "a count that is a float": {"count": 4.0},
        "a size that is true": {"count": 4, "size": (True,)},
        "a size that is a float": {"count": 4, "size": (4.0,)},
        "a size that is text": {"count": 4, "size": "4", "stride": "1"},
        "fewer strides": {"count": 4, "size": (2, 2), "stride": (1,)},
        "another type of memory": {"count": 4, "kind": "torch DoubleStorage"},
        "memory of a function": {"count": 4, "kind": "os system"},
        "memory elsewhere": {"count": 4, "key": "../../../../etc/passwd"},
        "memory that is a number": {"count": 4, "key": 0},
        "memory that is not there": {"count": 4, "key": "1"},
        "a hook": {"count": 4, "rebuild": "torch._utils _rebuild_tensor_v3", "more": (named("torch float64"),)},
        "metadata that is a call": {"count": 4, "more": (called("os system", touch),)},
        "quantized": {"count": 4, "rebuild": "torch._utils _rebuild_qtensor", "more": ((1,), False)},
        "meta": {"count": 4, "rebuild": "torch._utils _rebuild_meta_tensor_no_storage"},
    }.items():
        yield f"tensor of {name}", state(tensor(**options))


def archives(marker: str) -> Files:
    """Yield bodies of files whose archive is not what it seems."""
    good, evil = state(b"N"), state(called("os system", f"touch {marker}"))
    yield "compressed", archive(good, kind=zipfile.ZIP_DEFLATED)
    yield "bomb", archive(state(text("x")) + bytes(256 << 20), kind=zipfile.ZIP_DEFLATED)
    yield "bomb of memory", archive(state(tensor(4 << 20)), ("data/0", bytes(16 << 20)), kind=zipfile.ZIP_BZIP2)
    yield "lzma", archive(good, kind=zipfile.ZIP_LZMA)
    yield "path traversal", archive(good, ("../../../../tmp/escaped", b"x"), (f"../..{marker}", b"x"))
    yield "another folder", archive(good).replace(b"archive/version", b"elsewhe/version")
    yield "absolute path", archive(good).replace(b"archive/version", b"/rchive/version")
    yield "another folder's pickle", archive(good, ("sub/data.pkl", evil))
    yield "no pickle", archive(good).replace(b"data.pkl", b"data.pkx")
    yield "a pickle in capitals", archive(good).replace(b"data.pkl", b"DATA.PKL")
    yield "TorchScript", archive(good, ("constants.pkl", evil), ("code/__torch__.py", b"import os"))
    twice = archive(good, ("data.pkx", evil)).replace(b"data.pkx", b"data.pkl")
    yield "two pickles", twice
    yield "comment", archive(good)[:-2] + struct.pack("<H", 65535) + b"x" * 65535
    yield "comment that is an archive", archive(good)[:-2] + struct.pack("<H", len(archive(evil))) + archive(evil)
    yield "archive behind an archive", archive(evil) + archive(good)
    yield "archive before an archive", archive(good) + archive(evil)
    yield "text before", b"#!/bin/sh\n" + archive(good)
    body = archive(good)
    directory = body.rindex(b"PK\x05\x06")
    listed = body.index(b"PK\x01\x02")
    for name, place, value in (
        ("entries", directory + 8, b"\xff\xff\xff\xff"), ("size of the directory", directory + 12, b"\xff\xff\xff\x7f"),
        ("place of the directory", directory + 16, b"\xff\xff\xff\x7f"), ("disk", directory + 4, b"\x01\x00\x01\x00"),
        ("size", listed + 24, b"\xff\xff\xff\x7f"), ("stored size", listed + 20, b"\xff\xff\xff\x7f"),
        ("both sizes", listed + 20, b"\xff\xff\xff\x7f" * 2), ("place", listed + 42, b"\xf0\xff\xff\x7f"),
        ("checksum", listed + 16, b"\0\0\0\0"), ("method", listed + 10, b"\x63\x00"), ("flags", listed + 8,
        b"\x01\x00"),
        ("length of a name", listed + 28, b"\xff\xff"), ("length of an extra", listed + 30, b"\xff\xff"),
        ("sizes of ZIP64", listed + 20, b"\xff\xff\xff\xff" * 2),
    ):  # fmt: skip
        yield f"wrong {name}", body[:place] + value + body[place + len(value) :]
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 1 << 40, 1)
    yield "ZIP64 that points away", body[:directory] + locator + body[directory:]
    zip64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, 1 << 40, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, directory, 1)
    end = body[directory : directory + 8] + b"\xff" * 12 + b"\0\0"
    yield "ZIP64 of 2**40 entries", body[:directory] + zip64 + locator + end
    # The pickle that the directory lists is harmless; another stands where a reader that goes by local headers looks.
    header = io.BytesIO()
    with zipfile.ZipFile(header, "w") as other:
        other.writestr("archive/data.pkl", evil)
    yield "a first entry that is not listed", header.getvalue()[: header.getvalue().index(b"PK\x01\x02")] + body
    names = [(f"x{number}", b"") for number in range(20_000)]
    yield "20,000 entries", archive(evil, *names)
    yield "no entries", b"PK\x05\x06" + bytes(18)
    yield "not little-endian", archive(good).replace(b"little", b"bigbig")
    yield "a configuration that is code", archive(evil, (".format_version", b"1"), (".data/x", b"x"))


def foreign(marker: str) -> Files:
    """Yield whole files of other formats, with and without a checksum."""
    evil = {"visreg": "0", "x": Reduced(os.system, (f"touch {marker}",))}
    bodies = {f"pickle of protocol {protocol}": pickle.dumps(evil, protocol) for protocol in (0, 2, 5)}
    for name, options in (("torch", {}), ("legacy torch", {"_use_new_zipfile_serialization": False})):
        buffer = io.BytesIO()
        torch.save(evil, buffer, **options)
        bodies[name] = buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages", "../escaped"):
            entry = tarfile.TarInfo(name)
            entry.size = len(bodies["pickle of protocol 2"])
            tar.addfile(entry, io.BytesIO(bodies["pickle of protocol 2"]))
    bodies["legacy tar"] = buffer.getvalue()
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    bodies["safetensors"] = struct.pack("<Q", len(header)) + header
    bodies["safetensors of 2**62 bytes"] = struct.pack("<Q", 1 << 62) + header
    bodies["script"] = f"#!/bin/sh\ntouch {marker}\n".encode()
    bodies["numpy"] = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }" + b" " * 60
    bodies["HTML"] = b"<html>" * 100
    for name, body in bodies.items():
        yield name, body
        yield f"{name}, with a checksum", sealed(body)


def pickles(marker: str) -> Files:
    """Yield every file that is not to be read at all."""
    for make in (calls, opcodes):
        for name, pickled in make(marker):
            yield name, sealed(archive(pickled))
    for name, pickled in tensors(marker):
        yield name, sealed(archive(pickled, ("data/0", bytes(16))))
    for name, body in archives(marker):
        yield name, sealed(body)
    yield from foreign(marker)


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what puts ``value`` at ``path`` of a state, or takes away what is there where it is `GONE`."""

    def change(state: dict[str, Any]) -> None:
        inside: Any = state
        for step in path[:-1]:
            inside = inside[step]
        if value is GONE:
            del inside[path[-1]]
        else:
            inside[path[-1]] = value

    return change


GONE = object()


def states(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield checkpoints like ``state``, each with something in it that no run would put there."""
    for name in state:
        for kind, value in {"None": None, "text": "x", "a list": [["x"], {}], "a dict": {"x": {1: []}, 2: 3}, "-1": -1,
                            "a float": 0.5, "a tensor": torch.ones(3), "nothing": GONE}.items():  # fmt: skip
            if name in ("visreg", "config", "data", "environment") and kind == "text":
                continue  # what it is now, or told only
            yield f"{name} is {kind}", _changed(state, at(name, value=value))
    weight = next(iter(state["task"]))
    hook = {item["type"]: index for index, item in enumerate(state["hooks"])}
    inner = {
        ("step",): [1 << 80, True, -5, 1 << 40], ("evaluated",): [1 << 80, -1], ("skipped",): [["x"], [None],
        [1 << 90]],
        ("overflows",): [1 << 90], ("accumulate",): [1 << 90, 0, -3, True], ("scores",): [{"x": "y"}, {1: 2},
        {"x": []}],
        ("task", weight): [None, "x", [1.0], torch.ones(1), torch.ones(3, dtype=torch.int64)],
        ("task", 7): [torch.ones(1)],
        ("optimizer", "state"): [None, [], {0: None}, {"x": "y"}, {0: {"momentum_buffer": "x"}}],
        ("optimizer", "state", 0): [{"momentum_buffer": torch.ones(1)}, {"momentum_buffer": [1]}],
        ("optimizer", "param_groups"): [None, [], "x", [None], [{}], [{"params": "x"}]],
        ("optimizer", "param_groups", 0, "lr"): ["x", None, [], {}],
        ("optimizer", "param_groups", 0, "momentum"): ["x", None, []],
        ("optimizer", "param_groups", 0, "params"): [["os.system"] * 4, [0] * 4, [[]] * 4],
        ("schedule", "types"): ["StepLR", [1], None], ("schedule", "schedulers"): [None, [], [None], ["x"], [{}]],
        ("schedule", "schedulers", 0, "step"): ["os.system"], ("schedule", "schedulers", 0, "last_epoch"): ["x", None],
        ("schedule", "schedulers", 0, "optimizer"): [None], ("schedule", "reduced"): [None, ["x"]],
        ("generators", 0): [None, {}, [], "x"], ("generators", 0, "torch"): [None, torch.ones(3), "x"],
        ("generators", 0, "python"): [None, [3, [], None], [3, [1] * 625, "x"], [3, [-1] * 625, None],
                                      [3, [1] * 624 + [1 << 40], None], [9, [1], None]],
        ("generators", 0, "numpy"): [None, ["MT19937", [1], 0, 0, 0.0], ["PCG64", [1] * 624, 0, 0, 0.0],
                                     ["MT19937", [1] * 624, 1 << 30, 0, 0.0], ["MT19937", [1] * 624, -9, 0, 0.0]],
        ("environment", "threads"): [1 << 40, 1 << 20, -1, "x", True],
        ("classes",): [[1, 2], [None]], ("classes", 0): [["x"], 7],
        ("class_names",): [None, ["x"], {1: ["x"]}, {"label": "x"}], ("class_names", "label"): [[1], None],
        ("hooks",): [[None], ["x"], [{}], [{"type": []}], [{"type": "EMA"}]],
        ("hooks", hook["EMA"], "state"): [None, {"x": 1}, "x", {"average": None}, {"average": {weight: "x"}},
                                          {"average": {1: torch.ones(1)}}, {"average": [1]}],
        ("hooks", hook["EarlyStopping"], "state"): [{"best": "x", "waited": 0}, {"best": None, "waited": "x"},
        {"x": 1}],
        ("hooks", hook["Checkpoint"], "state"): [{"best_score": "x"}, {"best_score": [1]}, {"x": 1}],
        ("hooks", hook["MetricsLog"], "state", "offset"): ["x", None, -1, 1 << 80],
        ("hooks", hook["MetricsLog"], "state", "waiting"): [None, 1, b"x"],
        ("hooks", hook["MetricsLog"], "state", "losses"): [None, "x", {"loss": 1}, {"loss": ["x"]}, [1]],
    }  # fmt: skip
    for path, values in inner.items():
        for value in values:
            yield f"{'.'.join(map(str, path))} is {str(value)[:40]}", _changed(state, at(*path, value=value))


def _changed(state: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    changed = copy.deepcopy(state)
    change(changed)
    return changed


IMPORT_PATHS = (
    "os.system", "builtins.eval", "builtins.exec", "builtins.__import__", "subprocess.Popen", "torch.load",
    "torch.hub.load",
    "a.b.c", "__import__", "__class__", "__init__", "__builtins__", "eval", "exec", "open", "os:system", "posix.system",
    "../evil", "./evil.py", "evil.py", "evil", "pickle.loads",
    "visreg.plugin_file.load_file", "visreg.plugin_file:load_file",
    "functools.partial", "torch.nn.Linear.__init__", "lambda: 0", "().__class__", "{{__import__('os')}}", "\0", "",
    "x" * 1_000_000, "torch.utils.cpp_extension.load_inline", "EMA; import os", "runpy.run_path",
    "importlib.import_module",
)  # fmt: skip


def configs(config: dict[str, Any], marker: str, evil: str) -> Iterator[tuple[str, str]]:
    """Yield texts of JSON configs like ``config`` that try to act, or to bring the reader down.

    Args:
        config: a right one, of JSON's own types.
        marker: the file that shows that something was executed.
        evil: a Python file that makes it.
    """

    def text_of(**sections: Any) -> str:
        return json.dumps({**config, **sections})

    code = f"open({marker!r}, 'w').close()"
    for path in IMPORT_PATHS:
        yield f"model of type {path[:40]!r}", text_of(model={"type": path, "command": f"touch {marker}"})
        yield f"hook of type {path[:40]!r}", text_of(hooks=[{"type": path, "args": [code]}])
    for slot in ("task", "loss", "optimizer", "schedule"):
        yield f"{slot} of an import path", text_of(**{slot: {"type": "os.system", "command": f"touch {marker}"}})
    for slot in ("train", "val"):
        section = {**config[slot], "dataset": {"type": "builtins.exec", "source": code}}
        yield f"{slot} of an import path", text_of(**{slot: section})
        section = {**config[slot], "transforms": [{"type": "Lambda", "lambd": f"lambda x: {code}"}]}
        yield f"{slot} through Lambda", text_of(**{slot: section})
    for kind in (1, None, True, ["os.system"], {"type": "os.system"}, {"__tuple__": ["os"]}):
        yield f"model of type {kind}", text_of(model={"type": kind})
    for name in (evil, "./evil.py", "evil.py", "../evil.py", "evil", f"{evil}#egg=x", "file:" + evil, "/dev/stdin"):
        yield f"plugin {name!r}", text_of(plugins=[name])
    for value in (evil, {"0": evil}, [[evil]], [{"type": evil}], [None], 3):
        yield f"plugins {value!r}", text_of(plugins=value)
    for key in ("__class__", "__init__", "__dict__", "__builtins__", "_base_.x", "__items__"):
        yield f"section {key}", text_of(**{key: {"os": "system"}})
        yield f"option {key}", text_of(model={**config["model"], key: code})
    yield "pairs with a list as a key", text_of(model={"__items__": [[["type"], "x"]]})
    yield "tag", text_of(model={"!!python/object/apply:os.system": [f"touch {marker}"]})
    yield "a JSON pickle", text_of(model={"py/reduce": [{"py/function": "os.system"}, [f"touch {marker}"]]})
    yield "not a number", text_of(optimizer={"type": "SGD", "lr": float("nan")})
    yield "an infinity", text_of(optimizer={"type": "SGD", "lr": float("inf"), "momentum": float("-inf")})
    yield "a key twice", json.dumps(config)[:-1] + ', "model": {"type": "os.system"}}'
    yield "a huge integer", text_of(optimizer={"type": "SGD", "lr": 7}).replace(": 7", ": " + "9" * 100_000)
    yield "a large integer", text_of(run={**config["run"], "epochs": 10**1000})
    yield "a huge float", text_of(optimizer={"type": "SGD", "lr": 7}).replace(": 7", ": 1e999999999")
    yield "deep lists", text_of(model=7).replace('"model": 7', '"model": ' + "[" * 100_000 + "]" * 100_000)
    yield "deep dicts", text_of(model=7).replace('"model": 7', '"model": ' + '{"a":' * 100_000 + "1" + "}" * 100_000)
    yield "deep without an end", '{"model":' + "[" * 100_000
    yield "deep tuples", text_of(model=7).replace('"model": 7', '"model": ' + '{"__tuple__":[' * 900 + "]}" * 900)
    yield "10 MB of text", text_of(model={"type": "x" * 10_000_000})
    yield "many keys", json.dumps({**config, "model": {"type": "MLP", **{f"k{n}": n for n in range(3_000)}}})
    yield "many sections", json.dumps({**config, **{f"k{n}": n for n in range(3_000)}})
    yield "many hooks", text_of(hooks=[{"type": "os.system"}] * 3_000)
    yield "not an object", "[1, 2]"
    yield "not JSON", "os.system('touch x')"
    yield "nothing", ""
    yield "Python", f"import os\nos.system('touch {marker}')\n"
    yield "a lone surrogate", text_of(model={"type": 7}).replace(": 7", ': "\\ud800"')
    for reference in ("{{$HOME}}", "{{ fileDirname }}", "{{_base_.model}}", "{{__import__('os').system('x')}}"):
        yield f"reference {reference}", text_of(model={"type": reference})
        yield f"plugin {reference}", text_of(plugins=[f"{reference}/evil.py"])
