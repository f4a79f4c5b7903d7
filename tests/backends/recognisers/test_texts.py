"""Recognisers of transformers: a row has the text that it has alone, which is that of transformers, in any batch."""

import numpy as np
import pytest

import raysp
from raysp.backends.hugging_face.padded_batches import PADDED, why_alone
from raysp.backends.hugging_face.recogniser_families import FAMILIES
from tests.backends.recognisers import tiny_ctc
from tests.backends.recognisers.builders import BUILDERS
from tests.backends.recognisers.loops import LANGUAGES, written
from tests.backends.theirs import labelling, waves
from tests.ops.test_labelling import block_of, labels

LENGTHS = (24_000, 9_000, 16_000, 33_333)


def test_each_family_has_a_checkpoint_here():
    assert BUILDERS.keys() == FAMILIES.keys()
    assert {*BUILDERS, *tiny_ctc.BUILDERS} >= PADDED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cohere_asr", "omniasr", "qwen3_asr"])
def test_half_precision_has_the_text_of_a_window_alone(recogniser, name):
    recordings = waves(LENGTHS[:2])
    op = labelling(recogniser(name), raysp.Transcript(language=LANGUAGES.get(name)), dtype="bfloat16")
    together = labels(op, block_of(recordings))
    alone = [labels(op, block_of([wave]))[0] for wave in recordings]
    assert [row["pred_text"] for row in together.values()] == [row["pred_text"] for row in alone]
    assert [row["pred_score"] for row in together.values()] == [row["pred_score"] for row in alone]
    op.loaded.check_padding()


@pytest.mark.slow
def test_a_row_whose_logits_are_not_finite_is_an_error_row(recogniser):
    op = labelling(recogniser("omniasr"), raysp.Transcript())
    op.loaded.search.model.get_output_embeddings().weight.data.fill_(float("nan"))
    [row] = labels(op, block_of(waves([16_000]))).values()
    assert (row["status"], row["error_type"], row["pred_text"]) == ("error", "step_failed", None)
    assert "the probability of a token is not finite" in row["error_message"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("[0.00][S01]Hello there.[7.56][7.90][S02] And you?[01:02]", "Hello there. And you?"),
        ("[0.00][S01]cut off", "[0.00][S01]cut off"),
        ("no no no no no no no no no no no no no no no no no no no no no no ", "no" + 21 * " no"),
    ],
)
def test_segments_are_read_and_repetitions_stay(raw, text):
    assert FAMILIES["moss_transcribe_diarize"].text_of(raw) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_texts_alone_and_together_are_those_of_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves(LENGTHS)
    op = labelling(folder, raysp.Transcript(language=LANGUAGES.get(name)), windows_alone=bool(why_alone(name)))
    assert op.is_alone == (name not in PADDED)
    together = labels(op, block_of(recordings))
    alone = [labels(op, block_of([wave]))[0] for wave in recordings]
    assert {row["status"] for row in together.values()} == {"ok"}
    texts = [row["pred_text"] for row in alone]
    assert texts == [row["pred_text"] for row in together.values()]
    assert texts == written(folder, name, recordings)
    assert any(texts)
    scores = [[row["pred_score"] for row in rows] for rows in (together.values(), alone)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert max(scores[0]) < 0


@pytest.mark.slow
def test_a_recording_of_several_chunks_of_voxtral_has_the_text_of_transformers(recogniser):
    folder, recordings = recogniser("voxtral"), waves((33 * 16_000, 9_000, 61 * 16_000))
    op = labelling(folder, raysp.Transcript(), window_seconds=70)
    texts = [row["pred_text"] for row in labels(op, block_of(recordings)).values()]
    assert texts == written(folder, "voxtral", recordings)
    other = labelling(folder, raysp.Transcript(language="de"), window_seconds=70)
    scores = [labels(one, block_of(recordings[1:2]))[0]["pred_score"] for one in (op, other)]
    assert scores[0] != scores[1]
