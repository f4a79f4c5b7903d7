"""The exported checkpoint: whole, or a folder that nothing loads."""

import pytest

from raysp import CheckpointError
from raysp.sink.fencing import FencedStore
from raysp.storage.store import LocalStore
from raysp.training.sink import exports

FIRST = {"adapter.tur.safetensors": b"1", "config.json": b"{}", "model.safetensors": b"one", "vocab.json": b"[1]"}
SECOND = {"config.json": b"{2}", "model.safetensors": b"two", "vocab.json": b"[2]", "README.md": b"read"}


class Killed(BaseException):
    """Kill of a process."""


def export(store, files: dict[str, bytes], *, until: int = 100, **facts) -> None:
    """Publish files; the process is killed after some of them."""
    put = []

    def publish(name: str) -> None:
        if len(put) == until:
            raise Killed
        put.append(name)
        store.replace(name, files[name])

    sizes = {name: len(data) for name, data in files.items()}
    exports.publish(store, sizes, publish, **{"fingerprint": "f", "state": "s", **facts})


def root(store) -> dict[str, bytes]:
    return {entry.path: store.read(entry.path) for entry in store.list() if not entry.path.startswith(".raysp")}


@pytest.fixture
def sink(tmp_path) -> FencedStore:
    return FencedStore(LocalStore(tmp_path / "model"), 1)


@pytest.mark.parametrize("until", range(4))
def test_an_export_that_is_killed_leaves_a_folder_that_does_not_load(sink, until):
    from raysp import models

    export(sink, FIRST)
    with pytest.raises(Killed):
        export(sink, SECOND, until=until)
    found = root(sink)
    weights = {name: found[name] for name in exports.WEIGHTS if name in found}
    assert exports.NOTE in weights.values()
    if until < len(SECOND) - 2:
        assert found["config.json"] == exports.NOTE
    assert not exports.is_exported(sink, "f", "s")
    with pytest.raises(CheckpointError):
        models.AutoModel.from_pretrained(sink.url)
    export(sink, SECOND)
    assert root(sink) == SECOND  # no file of the first is left
