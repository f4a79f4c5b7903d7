"""The process that writes pickled weights as safetensors, with bounds on its memory and time.

It reads one line of JSON from its standard input, and writes a line of JSON for each event to its standard output:
`{"bytes": n}` for every tensor that is read, `{"written": digests, "tied": names}` after a file, `{"refused": reason}`
or `{"failed": reason}` at its end. It ends with its standard input, hence with the process that started it.
"""

import json
import os
import re
import signal
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from raysp import bounds
from raysp.bounds import shortened
from raysp.models.base.pickled_weights import BYTES_PER_SECOND
from raysp.models.base.weights import DTYPES, digest, write_safetensors

MEMORY_BYTES = 512 * bounds.MIB
"""Address space in addition to the started process and the tensors."""
START_SECONDS = 60
"""Processor time beyond that for the size of the files."""
TIED = (
    ("shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")),
    ("embed_tokens.weight", ("lm_head.weight", "proj_out.weight")),
    ("word_embeddings.weight", ("predictions.decoder.weight",)),
    ("predictions.bias", ("predictions.decoder.bias",)),
    ("wte.weight", ("lm_head.weight",)),
)
"""Suffixes of the names of embeddings, and of weights tied to them, which a checkpoint may lack."""
_ZIP, _PICKLE, _TAR_PLACE, _TAR = b"PK", b"\x80", 257, b"ustar"
_FRAME = 149
"""Instruction with which pickles of protocols above 3 begin."""
_POINTER = b"version https://git-lfs"


class NotWeightsError(ValueError):
    """A file of anything but plain weights; the message names it."""


def main() -> None:
    """Convert the files of the request on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    request = bounds.parse_json(sys.stdin.buffer.readline())
    # After the request was read: the thread reads the same pipe up to its end.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    files = [(Path(source), Path(target)) for source, target in request["files"]]
    bounds.limit_time(START_SECONDS + sum(source.stat().st_size for source, _ in files) // BYTES_PER_SECOND)
    for source, target in files:
        try:
            _convert(source, target, are_tied=request["are_tied"])
        except OSError as error:
            _say(failed=error.strerror or str(error))
            return
        except Exception as error:  # `torch.load` can fail in any way
            _say(refused=_reason(error))
            return


def _convert(source: Path, target: Path, *, are_tied: bool) -> None:
    num_bytes = source.stat().st_size
    bounds.limit_memory(MEMORY_BYTES + num_bytes)  # the file is mapped, or read as a whole in the older format
    tensors = read_weights(source)
    total = sum(tensor.nbytes for tensor in tensors.values())
    bounds.check(total, max(bounds.FREE_BYTES, bounds.MOST_GROWTH * num_bytes), "bytes of tensors")
    bounds.limit_memory(MEMORY_BYTES + 2 * total)  # tensors with gaps are copied, and some releases of safetensors copy
    tied = _tied(tensors) if are_tied else {}
    values = _separate({name: tensor for name, tensor in tensors.items() if name not in tied})
    digests = {}
    for name, tensor in values.items():
        digests[name] = digest(tensor)
        _say(bytes=tensor.nbytes)
    write_safetensors(target, values)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    _say(written=digests, tied=tied)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of `torch.save`, which stay in the file if it has the zip format.

    Raises:
        Exception: it holds anything else, or is damaged.
    """
    with path.open("rb") as file:
        start = file.read(_TAR_PLACE + len(_TAR))
    is_zip = start.startswith(_ZIP)
    if is_zip:
        _check_members(path)
    elif not start.startswith(_PICKLE):
        raise NotWeightsError(_other_kind(start))
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    if not isinstance(state, dict):
        raise NotWeightsError(f"it holds a {type(state).__name__}; expected tensors by name")
    if not state:
        raise NotWeightsError("it holds no tensors")
    bounds.check(len(state), bounds.MOST_WEIGHTS, "tensors")
    for name, value in state.items():
        _check_tensor(name, value)
    return {name: tensor.detach() for name, tensor in state.items()}


def _check_members(path: Path) -> None:
    """Raise for members that are compressed, which decode to any size, and for a program of TorchScript."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(Path(member.filename).name == "constants.pkl" for member in members):  # its code is compressed
        raise NotWeightsError("it is a TorchScript program, not weights: use the checkpoint that it was made from")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise NotWeightsError(f"its member {shortened(member.filename)} is compressed; torch.save never does that")


def _other_kind(start: bytes) -> str:
    if start[_TAR_PLACE:] == _TAR:
        return "it has the tar format of PyTorch before 0.2, which is not read: save it again with a newer PyTorch"
    if start.startswith(_POINTER):
        return "it is a pointer of Git LFS, without the weights: download the file itself"
    return "it is not a file of torch.save" if start else "it is empty"


def _check_tensor(name: object, value: object) -> None:
    if type(name) is not str:
        raise NotWeightsError(f"it has a {type(name).__name__} for a name; expected text")
    if len(name) > bounds.MOST_NAME_CHARACTERS:
        raise NotWeightsError(f"it has the name {shortened(name)}; expected a shorter one")
    if name == "__metadata__":
        raise NotWeightsError("a tensor has the name __metadata__, which safetensors files do not allow")
    if not isinstance(value, Tensor):
        raise NotWeightsError(f"{shortened(name)} is a {type(value).__name__}; expected a tensor")
    is_dense = value.layout is torch.strided and value.device.type == "cpu" and not value.is_nested
    if not is_dense or value.dtype not in DTYPES.values():
        kind = f"{value.dtype} and {value.layout} on {value.device}"
        raise NotWeightsError(f"{shortened(name)} is a tensor of {kind}; expected a dense one of numbers")


def _tied(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return names that share one tensor with another name and may be left out, each with the name that is kept."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            names.setdefault((tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), []).append(name)
    return {dropped: kept for shared in names.values() for dropped, kept in _tied_names(shared)}


def _tied_names(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for ending, tied in TIED:
        if kept := next((name for name in names if name.endswith(ending)), None):
            yield from ((name, kept) for name in names if name.endswith(tied) and name != kept)
            return


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors without common storage, which safetensors refuses."""
    storages: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = (
            tensor.contiguous() if storage not in storages else tensor.clone(memory_format=torch.contiguous_format)
        )
        storages.add(storage)
    return separate


def _reason(error: Exception) -> str:
    """Return why a file is refused, without the advice of `torch.load` to trust it."""
    text = str(error)
    if isinstance(error, NotWeightsError | bounds.TooLargeError):
        return text
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return f"reading it takes more than {MEMORY_BYTES:,} bytes of memory beyond the size of the file"
    if re.search(rf"Unsupported operand {_FRAME}\b", text):
        return "its pickle has protocol 4 or higher; expected 2: save it again by torch.save, as it is by default"
    if named := re.search(r"GLOBAL (\S+)", text):
        return f"its pickle names {bounds.plain(named[1])}, which plain weights never need"
    cause = bounds.plain((text.partition("WeightsUnpickler error: ")[2] or text).strip().partition("\n")[0])
    return f"it is damaged, truncated or no file of torch.save ({type(error).__name__}: {cause})"


def _say(**event: object) -> None:
    sys.stdout.buffer.write(json.dumps(event).encode() + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    # Not `sys.exit`, which ends the calling thread alone.
    os._exit(1)


if __name__ == "__main__":
    main()
