"""Files that pretend to be weights: each does harm, or takes memory or time without bounds, where it is believed."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

MARK = "code-of-a-pickle-ran"
"""Environment variable with the file that a payload makes."""


class Call:
    """Calls a function where it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Persistent:
    """A persistent id, such as that of a storage."""

    def __init__(self, *values: object) -> None:
        self.values = values


class Pickler(pickle.Pickler):
    """A pickler of persistent ids."""

    def persistent_id(self, value):
        return value.values if isinstance(value, Persistent) else None


def pickled(value: object, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol).dump(value)
    return file.getvalue()


def floats(key: str = "0", num_elements: int = 4) -> Persistent:
    return Persistent("storage", torch.FloatStorage, key, "cpu", num_elements)


def tensor(storage: object, first: object, shape: object, strides: object) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, storage, first, shape, strides, False, OrderedDict())


def archive(program: bytes, *, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """Return a zip file as torch.save writes it, with this data.pkl and these storages (`_0` is data/0)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        zipped.writestr("archive/data.pkl", program)
        for name, content in members.items():
            zipped.writestr(f"archive/data/{name.removeprefix('_')}", content)
    return file.getvalue()


def older(state: bytes, keys: list[str], storages: bytes) -> bytes:
    """Return a file in the format before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [0x1950A86A20F9469CFC6C, 1001, system]
    return b"".join(pickle.dumps(part, 2) for part in parts) + state + pickle.dumps(keys, 2) + storages


def state(value: object) -> bytes:
    return archive(pickled({"lm_head.weight": value}), _0=bytes(16))


def shell(place: Path) -> Call:
    return Call(os.system, f"touch {place}")


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            made.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def one_tensor() -> bytes:
    file = io.BytesIO()
    torch.save({"lm_head.weight": torch.randn(3, 5)}, file)
    return file.getvalue()


def duplicate_members() -> bytes:
    file = io.BytesIO(one_tensor())
    with zipfile.ZipFile(file, "a") as zipped:
        name = next(name for name in zipped.namelist() if name.endswith("data.pkl"))
        import warnings

        with warnings.catch_warnings(action="ignore"):
            zipped.writestr(name, pickled({"other": 1}))
    return file.getvalue()


@cache
def bomb() -> bytes:
    """A pickle of a few kilobytes that decompresses to 500 MB."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped,
        zipped.open("archive/data.pkl", "w", force_zip64=True) as member,
    ):
        for _ in range(32):
            member.write(bytes(1 << 24))
    return file.getvalue()


def claiming(size: int) -> bytes:
    """An archive whose storage claims a size in its headers, and does not have it."""
    data = archive(pickled({"w": tensor(floats(num_elements=size // 4), 0, (size // 4,), (1,))}), _0=b"\0" * 16)
    place = data.rindex(b"PK\x01\x02")
    entry = bytearray(data[place:])
    entry[20:28] = struct.pack("<II", size, size)
    return data[:place] + bytes(entry)


def deep() -> bytes:
    """A tuple in a tuple, 500,000 times, as a name."""
    return b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"Ns."


def many() -> bytes:
    """Ten million empty lists."""
    return b"\x80\x02(" + b"]" * 10_000_000 + b"l."


def huge_memo() -> bytes:
    return b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFFF) + b"."


def huge_text() -> bytes:
    return b"\x80\x04}\x8d" + struct.pack("<Q", 1 << 62) + b"name."


def huge_integer() -> bytes:
    digits = bytes([0xFF]) * 30_000_000 + b"\x01"
    return b"\x80\x02}X\x01\x00\x00\x00w\x8b" + struct.pack("<i", len(digits)) + digits + b"s."


def many_views() -> bytes:
    """Ten thousand names for one storage, at offsets of their own: 10,000 times its bytes when they are written."""
    number, size = 10_000, 100_000
    storage = floats(num_elements=size + number)
    names = {f"w{index}": tensor(storage, index, (size,), (1,)) for index in range(number)}
    return archive(pickled(names), _0=bytes(4 * (size + number)))


def files(mark: Path) -> dict[str, tuple[bytes | Callable[[], bytes], str]]:
    """Return hostile files, or functions that make large ones, each with a pattern of the message that refuses it.

    Args:
        mark: a file that code of a pickle would make.
    """
    code = f"open({str(mark)!r}, 'w')"
    refused_name = "its pickle names {}, which plain weights never need"
    return {
        "a command": (state(shell(mark)), refused_name.format("posix.system")),
        "a command, before any tensor": (archive(pickled([shell(mark), {}])), refused_name.format("posix.system")),
        "a command in the older format": (
            older(pickled({"w": shell(mark)}), [], b""),
            refused_name.format("posix.system"),
        ),
        "a command as the first value of the older format": (pickled(shell(mark)), refused_name.format("posix.system")),
        "a command as system information": (
            b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001)) + pickled(shell(mark)),
            refused_name.format("posix.system"),
        ),
        "a command in the list of storages": (
            older(pickled({"w": tensor(floats(), 0, (4,), (1,))}), [], b"").replace(
                pickle.dumps([], 2), pickled(shell(mark))
            ),
            refused_name.format("posix.system"),
        ),
        "code that is evaluated": (state(Call(eval, code)), refused_name.format("__builtin__.eval")),
        "code that is executed, protocol 4": (
            archive(pickled({"w": Call(exec, code)}, 4)),
            refused_name.format("builtins.exec"),
        ),
        "attributes of attributes": (
            archive(b"\x80\x02c__builtin__\ngetattr\ncos\npath\nX\x07\x00\x00\x00dirname\x86R."),
            refused_name.format("__builtin__.getattr"),
        ),
        "a module that is imported by its name": (
            archive(b"\x80\x02cantigravity\nfly\n."),
            refused_name.format("antigravity.fly"),
        ),
        "dots in an attribute": (
            archive(b"\x80\x04\x8c\x05torch\x8c\x0dload.__init__\x93."),
            refused_name.format("torch.load.__init__"),
        ),
        "an instance": (archive(b"\x80\x02(ios\nsystem\n."), "its pickle has the instruction INST"),
        "an object": (archive(b"\x80\x02(cposix\nsystem\no."), "its pickle names posix.system"),
        "a class with arguments": (archive(b"\x80\x02ccollections\nOrderedDict\n)\x81."), "the instruction NEWOBJ"),
        "an extension": (archive(b"\x80\x02\x82\x01."), "its pickle (has the instruction EXT1|is damaged)"),
        "a buffer": (archive(b"\x80\x05\x97."), "its pickle has the instruction NEXT_BUFFER"),
        "an allocation by a storage's class": (state(Call(torch.FloatStorage, 1 << 40)), "its pickle calls torch"),
        "an allocation by a tensor's class": (state(Call(torch.Tensor, 1 << 40)), "its pickle names torch.* plain"),
        "an allocation by a function": (
            state(Call(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (1 << 40,), (1,), False)),
            "its pickle names torch._utils._rebuild_meta_tensor_no_storage",
        ),
        "a sparse tensor": (
            state(torch.eye(3).to_sparse()),
            "its pickle names torch._utils._rebuild_sparse_tensor",
        ),
        "a quantised tensor": (
            archive(pickled({"w": Call(torch._utils._rebuild_qtensor, floats(), 0, (4,), (1,), (), False, None)})),
            "its pickle names torch._utils._rebuild_qtensor",
        ),
        "hooks of a module": (
            archive(b"\x80\x02}X\x01\x00\x00\x00w" + pickled(torch.nn.Linear(1, 1))[2:-1] + b"s."),
            "its pickle names torch.nn.modules.linear.Linear",
        ),
        "a storage that is not there": (
            archive(pickled({"w": tensor(floats("7"), 0, (4,), (1,))}), _0=bytes(16)),
            "the storage '7' has 16 bytes, and the archive has no such member",
        ),
        "a storage in another folder": (
            archive(pickled({"w": tensor(floats("../../etc/passwd"), 0, (4,), (1,))})),
            "and the archive has no such member",
        ),
        "a storage that claims a terabyte": (
            archive(pickled({"w": tensor(floats(num_elements=1 << 38), 0, (1 << 38,), (1,))}), _0=bytes(16)),
            "the storage '0' has 1,099,511,627,776 bytes, and the archive has one of 16 bytes",
        ),
        "a member that claims three gigabytes": (claiming(3_000_000_000), "is damaged or truncated"),
        "strides beyond the storage": (
            state(tensor(floats(), 0, (2, 2), (1000, 1))),
            r"shape \(2, 2\) and strides \(1000, 1\) from element 0, in a storage of 4 elements",
        ),
        "an offset beyond the storage": (state(tensor(floats(), 4, (1,), (1,))), "from element 4, in a storage of 4"),
        "a negative stride": (state(tensor(floats(), 3, (4,), (-1,))), "strides is -1; expected 0 to"),
        "a negative size": (state(tensor(floats(), 0, (-4,), (1,))), "shape is -4; expected 0 to"),
        "a size that is no number": (state(tensor(floats(), 0, ("4",), (1,))), "shape is str; expected 0 to"),
        "a boolean size": (state(tensor(floats(), 0, (True,), (1,))), "shape is bool; expected 0 to"),
        "an endless size": (state(tensor(floats(), 0, (10**400,), (0,))), "shape is an integer of 1,329 bits"),
        "more sizes than strides": (state(tensor(floats(), 0, (2, 2), (1,))), "expected as many of both"),
        "a thousand dimensions": (state(tensor(floats(), 0, (1,) * 1000, (1,) * 1000)), "has 1,000 dimensions"),
        "one element, a trillion times": (
            state(tensor(floats(), 0, (1_000_000, 1_000_000), (0, 0))),
            "has 4,000,000,000,000 bytes of tensors; expected at most",
        ),
        "ten thousand views of one storage": (many_views, "bytes of tensors; expected at most"),
        "a persistent id of another kind": (
            archive(pickled({"w": tensor(Persistent("module", "os"), 0, (4,), (1,))})),
            "a reference that is not a storage",
        ),
        "a storage of quantised values": (
            archive(pickled({"w": tensor(Persistent("storage", torch.QInt8Storage, "0", "cpu", 4), 0, (4,), (1,))})),
            "its pickle names torch.QInt8Storage",
        ),
        "a number": (state(3), "'lm_head.weight' is a int; expected a tensor"),
        "text": (state("text"), "'lm_head.weight' is a str; expected a tensor"),
        "a dictionary in the dictionary": (
            archive(pickled({"state_dict": {"w": tensor(floats(), 0, (4,), (1,))}}), _0=bytes(16)),
            "'state_dict' is a dict; expected a tensor",
        ),
        "a list of tensors": (archive(pickled([1, 2])), "it holds a list; expected tensors by name"),
        "a tensor alone": (
            archive(pickled(tensor(floats(), 0, (4,), (1,))), _0=bytes(16)),
            "it holds a tensor; expected tensors by name",
        ),
        "a number as a name": (
            archive(pickled({3: tensor(floats(), 0, (4,), (1,))}), _0=bytes(16)),
            "has a int for a name; expected text",
        ),
        "a name of a megabyte": (
            archive(pickled({"w" * 1_000_000: tensor(floats(), 0, (4,), (1,))}), _0=bytes(16)),
            r"has the name 'www.*\.\.\. \(1,000,000 characters\); expected a shorter one",
        ),
        "a name twice": (
            archive(b"\x80\x02}(X\x01\x00\x00\x00wNX\x01\x00\x00\x00wNu."),
            "its pickle has 'w' twice",
        ),
        "the name of the metadata": (
            archive(pickled({"__metadata__": tensor(floats(), 0, (4,), (1,))}), _0=bytes(16)),
            "a tensor has the name __metadata__",
        ),
        "a list that holds itself": (archive(b"\x80\x02]q\x00h\x00a."), "it holds a list"),
        "nested tuples": (lambda: archive(deep()), "has a tuple for a name"),
        "ten million lists": (lambda: archive(many()), r"has 2,000,001 instructions"),
        "a pickle of 70 megabytes": (lambda: archive(bytes(70 << 20)), "bytes of data.pkl; expected at most"),
        "a place in the memo without end": (archive(huge_memo()), "it holds no tensors"),
        "text that claims exabytes": (archive(huge_text()), "reads beyond 67,108,864 bytes"),
        "text that claims exabytes, in the older format": (
            older(huge_text(), [], b""),
            "reads beyond 67,108,864 bytes",
        ),
        "an integer of thirty megabytes": (lambda: archive(huge_integer()), "the instruction LONG4"),
        "a list that is a dictionary": (archive(b"\x80\x02}Na."), "appends to a value that is not a list"),
        "a dictionary that is a list": (archive(b"\x80\x02]NNs."), "sets items of a value that is not a dictionary"),
        "an attribute of a number": (archive(b"\x80\x02K\x01}b."), "attributes of a value that is not a dictionary"),
        "a stack without values": (archive(b"\x80\x02\x85."), "its pickle is damaged or truncated"),
        "a mark without values": (archive(b"\x80\x02u."), "its pickle is damaged or truncated"),
        "no end": (archive(b"\x80\x02}"), "its pickle is (damaged or )?truncated"),
        "a compressed archive": (
            archive(pickled({}), compression=zipfile.ZIP_DEFLATED),
            "is compressed or encrypted; torch.save never does that",
        ),
        "an archive that decompresses to a thousand times its size": (bomb, "is compressed or encrypted"),
        "two pickles of one name": (duplicate_members(), "it has two members"),
        "an archive of something else": (zip_of("readme.txt"), "has 0 members named data.pkl"),
        "a program of TorchScript": (zip_of("m/data.pkl", "m/constants.pkl"), "it is a TorchScript program"),
        "big-endian values": (zip_of("m/data.pkl", "m/byteorder"), "its values are big-endian"),
        "half an archive": (one_tensor()[: len(one_tensor()) // 2], "its zip archive is damaged or truncated"),
        "an archive with a hole": (damaged(), "is damaged or truncated"),
        "a storage of the older format that claims a terabyte": (
            older(pickled({"w": tensor(floats(), 0, (4,), (1,))}), ["0"], struct.pack("<q", 1 << 38) + bytes(16)),
            "the storage '0' has 1,099,511,627,776 bytes, and the file 16 after it begins",
        ),
        "a negative storage of the older format": (
            older(pickled({"w": tensor(floats(), 0, (4,), (1,))}), ["0"], struct.pack("<q", -4) + bytes(16)),
            "the storage '0' has -16 bytes",
        ),
        "an older format without values": (
            older(pickled({"w": tensor(floats(), 0, (4,), (1,))}), ["0"], b""),
            "the storage '0' is not in the file",
        ),
        "an older format without its storage": (
            older(pickled({"w": tensor(floats(), 0, (4,), (1,))}), [], b""),
            "the storage '0' of 'w' is not in the file",
        ),
        "the format of PyTorch before 0.2": (tar(), "it has the tar format of PyTorch before 0.2"),
        "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        "a page of the web": (b"<!DOCTYPE html><html>not found</html>", "it is not a file of torch.save"),
        "a file of compressed data": (zlib.compress(b"x" * 100), "it is not a file of torch.save"),
        "a file of JSON": (json.dumps({"w": [1]}).encode(), "it is not a file of torch.save"),
        "another pickle": (pickle.dumps({"w": 1}), "it is a pickle, but not one of torch.save"),
        "no bytes": (b"", "it is empty"),
    }


def zip_of(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            zipped.writestr(name, pickled({}) if name.endswith("data.pkl") else "big")
    return file.getvalue()


def damaged() -> bytes:
    data = bytearray(one_tensor())
    place = data.rindex(b"PK\x03\x04", 0, data.index(b"/data/0"))
    data[place : place + 4] = bytes(4)
    return bytes(data)
