"""Every architecture and head through a whole run: each row has the label that it has alone."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from tests.corpora import AUDIO, DEMO, write_shard
from tests.device.class_cases import CASES, make_checkpoint

NAMES = [
    "Wav2Vec2ForCTC",
    "Wav2Vec2ForSequenceClassification",
    "Wav2Vec2ForAudioFrameClassification",
    "Wav2Vec2ForXVector",
    "SEWDForCTC",
    "adapted Wav2Vec2BertModel",
    "UniSpeechForCTC UniSpeechForSequenceClassification",
    "ParakeetForCTC",
    "ParakeetForRNNT",
    "ParakeetForTDT",
    "SpeechEncoderDecoderModel",
]
"""A case for each head, and for each encoder."""
NUM_DIGITS = (4, 2, 5, 3, 6, 3)
RATE = 8_000  # of the recordings; the models want 16,000
WINDOW_SECONDS, LONG_SECONDS = 2.5, 6.3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Real speech: recordings of two to six spoken digits, and one that is several windows long."""
    digits = iter(pq.read_table(min((DEMO / "audio").glob("*.parquet"))).column("audio").to_pylist())
    waves = [joined(digits, count)[: int(WINDOW_SECONDS * RATE)] for count in NUM_DIGITS]
    rows = [*waves, joined(digits, 20)[: int(LONG_SECONDS * RATE)]]
    audio = pa.array([{"bytes": as_flac(wave), "path": None} for wave in rows], AUDIO)
    table = pa.table({"id": [f"u{number}" for number in range(len(rows))], "audio": audio})
    return write_shard(tmp_path_factory.mktemp("every") / "in" / "all.parquet", table=table)


def joined(digits, count) -> np.ndarray:
    return np.concatenate([soundfile.read(io.BytesIO(next(digits)["bytes"]), dtype="int16")[0] for _ in range(count)])


def as_flac(wave) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_row_has_the_label_that_it_has_alone(name, corpus, tmp_path):
    folder = tmp_path / "checkpoint"
    make_checkpoint(name, folder)
    pipeline = raysp.Pipeline(
        source=raysp.Shards(str(corpus)),
        steps=[
            raysp.Decode(),
            raysp.Label(
                str(folder), outputs=CASES[name], batch_seconds=20, window_seconds=WINDOW_SECONDS, overlap_seconds=0.5
            ),
        ],
        sink=raysp.Parquet(str(tmp_path / "labels")),
    )
    raysp.run(pipeline, engine="here", progress=False)
    labels = pq.read_table(tmp_path / "labels" / "all.parquet").to_pylist()
    assert [row["status"] for row in labels] == ["ok"] * 7, labels
    check_long(labels[-1], CASES[name])
    verified = raysp.verify(str(tmp_path / "labels"), sample=7, trust=True)
    assert (verified.sampled_equal, verified.differences) == (7, ())


def check_long(row, outputs) -> None:
    """A row of several windows has all columns, and times that do not go beyond its end."""
    assert row["seconds"] == pytest.approx(LONG_SECONDS)
    for output in outputs:
        for column in output.columns:
            assert row[column] is not None, column
    for segment in row.get("pred_segments") or []:
        assert 0 <= segment["start"] < segment["end"] <= LONG_SECONDS


@pytest.mark.slow
def test_outputs_that_a_checkpoint_lacks_are_refused_before_any_work(corpus, tmp_path):
    make_checkpoint("UniSpeechForSequenceClassification", tmp_path / "classes")
    make_checkpoint("SpeechEncoderDecoderModel", tmp_path / "writes")
    make_checkpoint("Wav2Vec2ForXVector", tmp_path / "speaker")

    def refused(folder, output, words):
        pipeline = raysp.Pipeline(
            source=raysp.Shards(str(corpus)),
            steps=[raysp.Decode(), raysp.Label(str(tmp_path / folder), outputs=[output])],
            sink=raysp.Parquet(str(tmp_path / "out")),
        )
        with pytest.raises(raysp.CheckpointError, match=words):
            raysp.plan(pipeline)

    refused("classes", raysp.Transcript(), "does not support Transcript; it supports Classes, Embedding")
    refused("classes", raysp.Embedding(layer=3), "layer=3, found 2 layers; give -1 to 2")
    refused("classes", raysp.Embedding(pooling="xvector"), "has no x-vectors; use pooling='mean'")
    refused("writes", raysp.Transcript(words=True), "words and chars need a CTC checkpoint")
    for options, words in {
        ("num_bims", 2): "generate: generation does not support num_bims=2",
        ("num_beams", 0): "generate: num_beams is 0, expected at least 1",
        ("num_beams", "4"): "generate: num_beams is '4', expected int",
        ("eos_token_id", 9999): "generate: eos_token_id has 9999, expected ids below the vocabulary's",
        ("decoder_start_token_id", -1): "decoder_start_token_id is -1, expected an id below",
        ("max_new_tokens", 5000): "max_length is 5001 tokens, the decoder has .* positions .*pass generate=",
        ("temperature", 0.7): "generate: temperature acts only with do_sample=True: add that, or leave it out",
        ("seed", 1): "generate: seed acts only with do_sample=True",
        ("length_penalty", 2.0): "generate: length_penalty acts only with num_beams above 1",
        ("num_return_sequences", 2): "num_return_sequences is 2; a label holds only one text",
    }.items():
        refused("writes", raysp.Transcript(generate=dict([options])), words)
    refused("speaker", raysp.Classes(), "does not support Classes")
