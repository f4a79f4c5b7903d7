"""Rows of every kind, and the label rows that a run gives them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from tests.corpora import AUDIO, CHECKPOINT, DEMO, wav
from tests.labelling.engine.datasets.comparing import by_id
from tests.user_specs import Counted, Spoken, loudness

COLUMNS = {"keep": ["speaker", "text"], "row": "place"}


@pytest.fixture(scope="session")
def steps():
    """Filters and added columns of raysp and of a user before a model that reads six seconds at once."""
    outputs = [raysp.Transcript(words=True), raysp.Align("text"), raysp.Embedding()]
    return [
        Spoken(min_words=1),
        Counted(),
        raysp.Decode(),
        raysp.Map(loudness, adds={"loudness": "float32", "duration": "float64"}, reads=["audio", "text"]),
        raysp.Keep(max_seconds=30, where=[("speaker", "!=", "nobody")]),
        raysp.Label(str(CHECKPOINT), outputs=outputs, window_seconds=6, overlap_seconds=2),
    ]


@pytest.fixture(scope="session")
def rows() -> pa.Table:
    """Digits, long rows of many windows, and rows that are skipped or fail for each kind of reason."""
    digits = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 24).to_pylist()
    found = [(one["id"], one["audio"]["bytes"], one["speaker_id"], one["text"]) for one in digits]
    long = _joined([one[1] for one in found])
    odd = [
        ("long", long, "many", "one two"),
        ("cut off", long[: len(long) * 2 // 3], "many", "one"),
        ("too long", _joined([one[1] for one in found] * 3), "many", "one"),
        ("nothing", None, "none", "one"),
        ("empty", b"", "none", "one"),
        ("no audio", b"not a recording", "none", "one"),
        ("too short", wav(200), "none", "one"),
        ("of nobody", wav(8000), "nobody", "one"),
        ("without words", wav(8000), "some", ""),
        ("refused", wav(8000), "some", "unbearable"),
    ]
    for place, one in enumerate(odd):
        found.insert(3 * place, one)
    audio = [{"bytes": one[1], "path": None} for one in found]
    return pa.table(
        {
            "id": [one[0] for one in found],
            "audio": pa.array(audio, AUDIO),
            "speaker": [one[2] for one in found],
            "text": [one[3] for one in found],
            "place": range(len(found)),
        }
    )


def _joined(recordings: list[bytes]) -> bytes:
    samples = np.concatenate([soundfile.read(io.BytesIO(one), dtype="int16")[0] for one in recordings])
    file = io.BytesIO()
    soundfile.write(file, samples, soundfile.info(io.BytesIO(recordings[0])).samplerate, format="FLAC")
    return file.getvalue()


@pytest.fixture(scope="session")
def shard(rows, tmp_path_factory):
    """The rows as a shard."""
    place = tmp_path_factory.mktemp("in") / "a.parquet"
    pq.write_table(rows, place, row_group_size=10)
    return place


@pytest.fixture(scope="session")
def labelled_sink(steps, shard, tmp_path_factory):
    """The sink of a run over the shard."""
    sink = tmp_path_factory.mktemp("labels")
    keep = raysp.Parquet(str(sink), keep=COLUMNS["keep"])
    raysp.run(
        raysp.Pipeline(raysp.Shards(str(shard)), steps=steps, sink=keep, max_error_rate=1),
        engine="here",
        progress=False,
    )
    return sink


@pytest.fixture(scope="session")
def label_rows(labelled_sink):
    """The label rows of the run, by id."""
    return by_id(pq.read_table(labelled_sink / "a.parquet"))
