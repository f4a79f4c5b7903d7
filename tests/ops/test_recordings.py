"""Recordings by path are opened ahead, a few at once: in order, with their errors, and not too far."""

import pyarrow as pa
import pytest

from raysp import AudioError
from raysp.ops.recordings import Recordings
from raysp.storage.audio_root import AudioRoot
from tests.corpora import AUDIO, wav
from tests.ops.test_decoding import decoded, decoding

COUNT = 40


@pytest.fixture
def root(tmp_path) -> AudioRoot:
    for number in range(COUNT):
        (tmp_path / f"{number}.wav").write_bytes(wav(400 + number, seed=number))
    return AudioRoot(str(tmp_path))


def table(count: int = COUNT) -> pa.Table:
    audio = [{"bytes": None, "path": f"{number}.wav"} for number in range(count)]
    return pa.table({"audio": pa.array(audio, AUDIO)})


def test_rows_stay_in_their_order_with_errors_in_their_places(root, tmp_path):
    for number in (0, 17, COUNT - 1):
        (tmp_path / f"{number}.wav").unlink()
    found = list(Recordings(table(), "audio", root).ahead(range(COUNT)))
    assert [index for index, _ in found] == list(range(COUNT))
    assert [index for index, one in found if isinstance(one, AudioError)] == [0, 17, COUNT - 1]
    assert [bytes(found[index][1]) for index in (1, 30)] == [wav(401, seed=1), wav(430, seed=30)]


def parts(paths: list[str]) -> pa.Table:
    audio = pa.array([{"bytes": None, "path": path} for path in paths], AUDIO)
    seconds = [0.01 + 0.001 * (place * 7 % 5) for place in range(len(paths))]
    return pa.table({"audio": audio, "offset": pa.array([0.0] * len(paths)), "duration": seconds})


@pytest.mark.parametrize(
    ("paths", "in_order"),
    [(["a.mp3"] * 8, True), (["a.wav"] * 8, False), ([f"{number}.mp3" for number in range(8)], False)],
)
def test_parts_of_what_is_read_from_its_beginning_are_decoded_in_their_order(paths, in_order):
    assert Recordings(parts(paths), "audio", None, ("offset", "duration")).are_sequential == in_order


def test_neighbouring_parts_of_a_recording_share_an_open_file(root, monkeypatch):
    paths = [f"{number}.wav" for number in (3, 3, 3, 5, 5, 3)]
    opened: list[str] = []
    real = AudioRoot.open

    def counted(self, path, *arguments):
        opened.append(path)
        return real(self, path, *arguments)

    monkeypatch.setattr(AudioRoot, "open", counted)
    rows = parts(paths)
    rows = rows.set_column(2, "duration", pa.array([0.01] * len(paths)))
    op = decoding(root=root, excerpt_columns=("offset", "duration"))
    found = decoded(op, rows)
    assert sorted(opened) == ["3.wav", "3.wav", "5.wav"]
    assert [row["samples"] for row in found] == [160] * len(paths)
    recorded = [value for block in op(rows, 0) for value in block.column("recording").to_pylist()]
    assert recorded == paths
