"""Files that pretend to be weights: each does harm, or takes memory or time without bounds, where it is believed."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch


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


def pickled(value: object) -> bytes:
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def tensor(shape: object, strides: object) -> Call:
    storage = Persistent("storage", torch.FloatStorage, "0", "cpu", 4)
    return Call(torch._utils._rebuild_tensor_v2, storage, 0, shape, strides, False, OrderedDict())


def archive(program: bytes, **members: bytes) -> bytes:
    """Return a zip file as torch.save writes it, with this data.pkl and these storages (`_0` is data/0)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("archive/data.pkl", program)
        zipped.writestr("archive/version", "3")
        for name, content in members.items():
            zipped.writestr(f"archive/data/{name.removeprefix('_')}", content)
    return file.getvalue()


def state(value: object, name: object = "lm_head.weight") -> bytes:
    return archive(pickled({name: value}), _0=bytes(16))


ONE = tensor((4,), (1,))
"""A tensor of one storage, whose values `state` has."""


def shell(place: Path) -> Call:
    return Call(os.system, f"touch {place}")


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save({"lm_head.weight": value}, file)
    return file.getvalue()


def bomb() -> bytes:
    """A pickle of a kilobyte that decompresses to one megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("archive/data.pkl", bytes(1 << 20))
    return file.getvalue()


def deep() -> bytes:
    """A tuple in a tuple, 500,000 times, as a name."""
    return archive(b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"Ns.")


def torch_script() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in ("m/code/m.py", "m/data.pkl", "m/constants.pkl"):
            zipped.writestr(name, pickled({}) if name.endswith("data.pkl") else "big")
    return file.getvalue()


def files(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Return hostile files, each with a pattern of the message that refuses it.

    Args:
        mark: a file that code of a pickle would make.
    """
    runs = "its pickle names posix.system, which plain weights never need"
    damaged = r"it is damaged, truncated or no file of torch.save \({}.*\)"
    return {
        "a command": (state(shell(mark)), runs),
        "an allocation": (
            state(Call(torch.FloatTensor, 1 << 40)),
            "reading it takes more than 536,870,912 bytes of memory beyond the size of the file",
        ),
        "a sparse tensor": (
            saved(torch.eye(3).to_sparse()),
            "is a tensor of torch.float32 and torch.sparse_coo on cpu",
        ),
        "strides beyond the storage": (state(tensor((2, 2), (1000, 1))), damaged.format("RuntimeError")),
        "one element, a trillion times": (
            state(tensor((1_000_000, 1_000_000), (0, 0))),
            "has 4,000,000,000,000 bytes of tensors; expected at most",
        ),
        "a number": (state(3), "'lm_head.weight' is a int; expected a tensor"),
        "a list": (archive(pickled([1, 2])), "it holds a list; expected tensors by name"),
        "a number as a name": (state(ONE, 3), "it has a int for a name; expected text"),
        "a name of a megabyte": (
            state(ONE, "w" * 1_000_000),
            r"it has the name 'www.*\.\.\. \(1,000,000 characters\); expected a shorter one",
        ),
        "the name of the metadata": (state(ONE, "__metadata__"), "a tensor has the name __metadata__"),
        "an archive that is compressed": (bomb(), "is compressed; torch.save never does that"),
        "a program of TorchScript": (torch_script(), "it is a TorchScript program"),
        "half an archive": (saved(torch.ones(3, 5))[:500], damaged.format("BadZipFile")),
        "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        "a page of the web": (b"<!DOCTYPE html><html>not found</html>", "it is not a file of torch.save"),
        "no bytes": (b"", "it is empty"),
    }
