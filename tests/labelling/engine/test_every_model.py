"""Every architecture and head through a whole run: each row has the label that the model gives it alone."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch

import raysp
from raysp.models import load_checkpoint
from tests.corpora import AUDIO, DEMO, write_shard
from tests.device.class_cases import (  # noqa: F401 - those of small models, for programs beside the tests
    CASES,
    CONFIGS,
    SMALL,
    TDNN,
    WAVES,
    make_checkpoint,
)

REPEATED = {
    "UniSpeechForSequenceClassification",
    "HubertForCTC",
    "SEWDForSequenceClassification",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2BertForAudioFrameClassification",
    "Wav2Vec2BertForXVector",
}
"""Cases that are left out: another case has the same head, and another the same encoder."""
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
@pytest.mark.parametrize("name", sorted(CASES.keys() - REPEATED))
def test_each_row_has_the_label_that_the_model_gives_it_alone(name, corpus, tmp_path):
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
    audio = pq.read_table(corpus).column("audio").to_pylist()
    loaded = load_checkpoint(folder)
    given = {tuple(sorted(row.items(), key=str)).__repr__() for row in labels}
    assert len(given) == 7
    for row, recording in zip(labels[:-1], audio, strict=False):
        alone = Alone(loaded, resampled(recording["bytes"]))
        for output in CASES[name]:
            alone.check(output, row)
    check_long(labels[-1], CASES[name])
    assert raysp.verify(str(tmp_path / "labels"), sample=4, trust=True).differences == ()


def resampled(recording: bytes) -> np.ndarray:
    """Return the samples of a recording at the rate of the models."""
    samples, rate = soundfile.read(io.BytesIO(recording), dtype="float32")
    return soxr.resample(samples, rate, 16_000, quality="HQ")


class Alone:
    """The model run on one recording, by nothing but itself."""

    @torch.inference_mode()
    def __init__(self, loaded, wave) -> None:
        self.loaded = loaded
        waves = torch.from_numpy(wave)[None]
        self.features = loaded.feature_extractor.extract(waves, torch.tensor([waves.shape[1]]))
        encoder = loaded.model.speech_encoder
        self.encoded = encoder(**self.features, output_hidden_states=True)
        self.frames = int(loaded.model.num_frames(waves.shape[1]))

    def head(self, capability):
        """Run the head that gives a capability."""
        heads = [head for head in (self.loaded.model, *self.loaded.more_heads) if capability in head.gives]
        return heads[0](**self.features)

    @torch.inference_mode()
    def check(self, output, row) -> None:
        getattr(self, f"_{type(output).__name__.lower()}")(output, row)

    def _embedding(self, output, row) -> None:
        if output.pooling == "xvector":
            expected = self.head("xvector").embeddings[0]
        else:
            layer = output.layer
            frames = self.encoded.last_hidden_state[0] if layer == -1 else self.encoded.hidden_states[layer][0]
            if layer == -1:
                assert len(frames) == self.frames
            expected = frames if output.pooling == "none" else frames.mean(0)
        if output.normalize:
            expected = torch.nn.functional.normalize(expected, dim=-1)
        np.testing.assert_allclose(np.array(row[output.name]), expected.numpy(), atol=1e-4)

    def _classes(self, output, row) -> None:
        scores = self.head("classes").logits[0].softmax(-1)
        best = scores.argsort(descending=True)[: output.top_k].tolist()
        labels, given = row[output.name], row[f"{output.name}_scores"]
        names = ["cat", "dog", "owl"]
        assert (labels if output.top_k > 1 else [labels]) == [names[index] for index in best]
        assert (given if output.top_k > 1 else [given]) == pytest.approx(scores[best].tolist(), abs=1e-4)

    def _segments(self, output, row) -> None:
        scores = self.head("frame_classes").logits[0].sigmoid()
        seconds = self.loaded.summary.frame_seconds
        for index, name in enumerate(["cat", "dog", "owl"]):
            heard = (scores[:, index] > output.threshold).tolist()
            spans = [(s["start"], s["end"]) for s in row[output.name] if s["label"] == name]
            covered = [any(a <= (t + 0.5) * seconds < b for a, b in spans) for t in range(len(heard))]
            assert covered == heard

    def _transcript(self, output, row) -> None:
        if "transducer" in self.loaded.summary.gives:
            self._transducer(row)
            return
        if not self.loaded.summary.writes_text:
            ids = self.head("ctc").logits[0].argmax(-1)
            assert row["pred_text"] == self.loaded.text_tokenizer.decode(ids)
            return
        ids = self.loaded.model.generate(**self.features, **output.generate)
        assert row["pred_text"] == self.loaded.tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()
        logits = self.loaded.model(**self.features, decoder_input_ids=ids[:, :-1]).logits.log_softmax(-1)
        chosen = logits.gather(-1, ids[:, 1:, None])[0, :, 0]
        end = (ids[0, 1:] == 3).nonzero()
        count = int(end[0]) + 1 if len(end) else len(chosen)
        assert row["pred_score"] == pytest.approx(float(chosen[:count].mean()), abs=1e-4)

    def _transducer(self, row) -> None:
        """Follow `generate`, whose steps are those of transformers."""
        model, tokenizer = self.loaded.model, self.loaded.text_tokenizer
        steps = model.generate(**self.features)
        tokens = [one for one in steps.sequences[0].tolist() if one != model.config.blank_token_id]
        assert row["pred_text"] == tokenizer.decode_collapsed(one for one in tokens if one != tokenizer.pad_token_id)
        assert row["pred_text"]
        assert [one["word"] for one in row["pred_words"]] == row["pred_text"].split()


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
