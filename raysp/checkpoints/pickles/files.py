"""Files of `torch.save`: where the values of each tensor are. Nothing is loaded but the pickle that names them.

The zip format (since PyTorch 1.6) and the older format of a pickle followed by the values are read; the tar format of
PyTorch before 0.2 is refused.
"""

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from raysp import bounds
from raysp.bounds import shortened
from raysp.checkpoints.pickles.program import ITEM_BYTES, NotWeightsError, Storage, View, read_program

MAGIC_NUMBER, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""First two values of the older format."""
_ZIP, _PICKLE, _TAR_PLACE, _TAR = b"PK", b"\x80", 257, b"ustar"
_POINTER = b"version https://git-lfs"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, and the lengths of name and extra field, of the header before a member of a zip file."""


@dataclass(frozen=True)
class Weight:
    """A tensor of a file: its name, its view, and the byte at which its storage begins."""

    name: str
    view: View
    storage_place: int

    @property
    def place(self) -> int:
        """First byte of the tensor in the file."""
        first = self.view.storage.first + self.view.first
        return self.storage_place + first * ITEM_BYTES[self.view.storage.dtype]

    @property
    def identity(self) -> tuple[object, ...]:
        """A value that is equal for tensors of the same bytes of the file."""
        view = self.view
        return self.place, view.storage.dtype, view.shape, view.strides


def read_weights(path: Path) -> list[Weight]:
    """Return the tensors of a file of `torch.save`, in its order.

    Raises:
        NotWeightsError: it holds anything else, or is damaged.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_TAR_PLACE + len(_TAR))
        file.seek(0)
        if start.startswith(_ZIP):
            weights = _of_zip(file, num_bytes)
        elif start.startswith(_PICKLE):
            weights = _of_pickle(file, num_bytes)
        else:
            raise NotWeightsError(_other_kind(start))
    total = sum(weight.view.num_bytes for weight in weights)
    bounds.check(total, max(bounds.FREE_BYTES, bounds.MOST_GROWTH * num_bytes), "bytes of tensors")
    return weights


def _other_kind(start: bytes) -> str:
    if start[_TAR_PLACE:] == _TAR:
        return "it has the tar format of PyTorch before 0.2, which is not read: save it again with a newer PyTorch"
    if start.startswith(_POINTER):
        return "it is a pointer of Git LFS, without the weights: download the file itself"
    return "it is not a file of torch.save" if start else "it is empty"


def _state(found: object) -> dict[str, View]:
    """Return the tensors of a pickle by name."""
    if type(found) is not dict:
        raise NotWeightsError(f"it holds a {_kind(found)}; expected tensors by name")
    if not found:
        raise NotWeightsError("it holds no tensors")
    for name, value in found.items():
        if not isinstance(value, View):
            raise NotWeightsError(f"{shortened(name)} is a {_kind(value)}; expected a tensor")
    return found


def _kind(value: object) -> str:
    return "tensor" if isinstance(value, View) else type(value).__name__


def _of_zip(file: BinaryIO, num_bytes: int) -> list[Weight]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive)
            folder = _folder(members)
            program = members[f"{folder}data.pkl"]
            bounds.check(program.file_size, bounds.MOST_PICKLE_BYTES, "bytes of data.pkl")
            if (order := members.get(f"{folder}byteorder")) and _content(file, order, num_bytes) != b"little":
                raise NotWeightsError("its values are big-endian, which is not read: save it on another machine")
            state = _state(read_program(io.BytesIO(_content(file, program, num_bytes))))
        return [
            Weight(name, view, _storage_place(file, num_bytes, members, folder, view)) for name, view in state.items()
        ]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error, UnicodeDecodeError, EOFError) as error:
        raise NotWeightsError(f"its zip archive is damaged or truncated ({bounds.plain(str(error))})") from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive by name; raise for those that are compressed, encrypted or repeated."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.filename in members:
            raise NotWeightsError(f"it has two members {shortened(member.filename)}; expected one")
        is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        if not is_plain or member.file_size != member.compress_size:
            raise NotWeightsError(
                f"its member {shortened(member.filename)} is compressed or encrypted; torch.save never does that"
            )
        members[member.filename] = member
    bounds.check(len(members), bounds.MOST_WEIGHTS, "members")
    return members


def _folder(members: Mapping[str, zipfile.ZipInfo]) -> str:
    """Return the common beginning of the names of members."""
    found = [name.removesuffix("data.pkl") for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise NotWeightsError(f"it has {len(found)} members named data.pkl; expected one, as torch.save writes it")
    if f"{found[0]}constants.pkl" in members:
        raise NotWeightsError("it is a TorchScript program, not weights: use the checkpoint that it was made from")
    return found[0]


def _place(file: BinaryIO, member: zipfile.ZipInfo, num_bytes: int) -> int:
    """Return the first byte of a member's content; raise unless all of it is in the file."""
    file.seek(member.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    place = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or place + member.file_size > num_bytes:
        raise NotWeightsError(f"its member {shortened(member.filename)} is damaged or truncated")
    return int(place)


def _content(file: BinaryIO, member: zipfile.ZipInfo, num_bytes: int) -> bytes:
    file.seek(_place(file, member, num_bytes))
    return file.read(member.file_size)


def _storage_place(
    file: BinaryIO, num_bytes: int, members: Mapping[str, zipfile.ZipInfo], folder: str, view: View
) -> int:
    storage = view.storage
    member = members.get(f"{folder}data/{storage.key}")
    needed = (storage.first + storage.num_elements) * ITEM_BYTES[storage.dtype]
    if member is None or member.file_size < needed:
        found = "no such member" if member is None else f"one of {member.file_size:,} bytes"
        raise NotWeightsError(f"the storage {shortened(storage.key)} has {needed:,} bytes, and the archive has {found}")
    return _place(file, member, num_bytes)


def _of_pickle(file: BinaryIO, num_bytes: int) -> list[Weight]:
    """Return the tensors of the older format: five pickles, then the number of elements and values of each storage."""
    if read_program(file) != MAGIC_NUMBER or read_program(file) != PROTOCOL:
        raise NotWeightsError("it is a pickle, but not one of torch.save")
    system = read_program(file)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise NotWeightsError("its values are big-endian, which is not read: save it on another machine")
    state, keys = _state(read_program(file)), read_program(file)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise NotWeightsError("it lacks the list of its storages")
    places = dict(_storage_places(file, num_bytes, keys, {view.storage.key: view.storage for view in state.values()}))
    weights = []
    for name, view in state.items():
        place, num_elements = places.get(view.storage.key, (0, 0))
        if view.storage.first + view.storage.num_elements > num_elements:
            raise NotWeightsError(f"the storage {shortened(view.storage.key)} of {shortened(name)} is not in the file")
        weights.append(Weight(name, view, place))
    return weights


def _storage_places(
    file: BinaryIO, num_bytes: int, keys: list[str], storages: Mapping[str, Storage]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the first byte and the number of elements of each storage, by its key."""
    place = file.tell()
    for key in keys:
        file.seek(place)
        prefix = file.read(8)
        if key not in storages or len(prefix) < 8:
            raise NotWeightsError(f"the storage {shortened(key)} is not in the file, or no tensor uses it")
        (num_elements,) = struct.unpack("<q", prefix)
        place += 8
        size = num_elements * ITEM_BYTES[storages[key].dtype]
        if not 0 <= size <= num_bytes - place:
            raise NotWeightsError(
                f"the storage {shortened(key)} has {size:,} bytes, and the file {num_bytes - place:,} after it begins"
            )
        yield key, (place, num_elements)
        place += size
