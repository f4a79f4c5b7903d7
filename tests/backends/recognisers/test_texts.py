"""Recognisers of transformers: a row has the text that it has alone, which is that of transformers, in any batch.

CTC classes, transducers and families with a decoder keep the same promises; `loops.written` has what differs.
"""

import numpy as np
import pytest

import raysp
from raysp import CheckpointError
from raysp.backends import hf_installed
from raysp.backends.hugging_face.padded_batches import PADDED, VERSIONS, why_alone
from raysp.backends.hugging_face.recogniser_families import FAMILIES
from tests.backends.recognisers import tiny_ctc
from tests.backends.recognisers.builders import BUILDERS
from tests.backends.recognisers.loops import LANGUAGES, written
from tests.backends.recognisers.tiny_transducers import TRANSDUCER_BUILDERS
from tests.backends.theirs import RATE, labelling, waves
from tests.ops.test_labelling import block_of, labels

LENGTHS = (24_000, 9_000, 16_000, 33_333, 2_400)
TIMED = {*tiny_ctc.BUILDERS, *TRANSDUCER_BUILDERS}
"""Model types that write times of words."""
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def rows_of(op, recordings) -> tuple[list[dict], list[dict]]:
    """Return the rows of recordings together, and those of each alone."""
    together = [*labels(op, block_of(recordings)).values()]
    assert {row["status"] for row in together} == {"ok"}
    return together, [labels(op, block_of([wave]))[0] for wave in recordings]


def test_each_family_has_a_checkpoint_here():
    assert BUILDERS.keys() == FAMILIES.keys()
    assert {*BUILDERS, *tiny_ctc.BUILDERS} >= PADDED


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILDERS, *tiny_ctc.BUILDERS])
def test_texts_scores_and_times_alone_and_together_are_those_of_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves(LENGTHS if name in TIMED else LENGTHS[:4])
    output = raysp.Transcript(language=LANGUAGES.get(name), words=name in TIMED)
    is_alone = name in BUILDERS and bool(why_alone(name))
    op = labelling(folder, output, windows_alone=is_alone)
    assert (op.of_one_length if name in tiny_ctc.BUILDERS else op.is_alone) == (name not in PADDED)
    together, alone = rows_of(op, recordings)
    texts = [row["pred_text"] for row in together]
    assert texts == [row["pred_text"] for row in alone] == written(folder, name, recordings)
    assert any(texts)
    scores = [[row["pred_score"] for row in rows] for rows in (together, alone)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert max(scores[0]) < 0
    for row, same, wave in zip(together, alone, recordings, strict=True) if name in TIMED else ():
        assert [word["word"] for word in row["pred_words"]] == row["pred_text"].split()
        times = [(word["start"], word["end"]) for word in row["pred_words"]]
        assert times == [(word["start"], word["end"]) for word in same["pred_words"]] == sorted(times)
        assert all(0 <= start <= end <= len(wave) / RATE + 0.08 for start, end in times)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cohere_asr", "qwen3_asr", "omniasr_ctc", *TRANSDUCER_BUILDERS])
def test_half_precision_has_the_label_of_a_window_alone(recogniser, name):
    output = raysp.Transcript(language=LANGUAGES.get(name), words=name in TIMED)
    op = labelling(recogniser(name), output, dtype="bfloat16")
    together, alone = rows_of(op, waves(LENGTHS[:2]))
    if name in tiny_ctc.BUILDERS:  # rows of one length share a pass
        scores = [[row["pred_score"] for row in rows] for rows in (together, alone)]
        np.testing.assert_allclose(*scores, atol=0.05)
    else:
        columns = output.columns
        assert [[row[one] for one in columns] for row in together] == [[row[one] for one in columns] for row in alone]
    op.loaded.check_padding()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["omniasr", "nemotron_asr_streaming"])
def test_a_row_whose_probabilities_are_not_finite_is_an_error_row(recogniser, name):
    op = labelling(recogniser(name), raysp.Transcript())
    model = op.loaded.search.model
    layer = model.encoder_projector if name in TRANSDUCER_BUILDERS else model.get_output_embeddings()
    layer.weight.data.fill_(float("nan"))
    [row] = labels(op, block_of(waves([16_000]))).values()
    assert (row["status"], row["error_type"], row["pred_text"]) == ("error", "step_failed", None)
    assert "the probability of a token is not finite" in row["error_message"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_asr", "nemotron_asr_streaming"])
def test_a_model_that_padding_changes_here_is_refused_when_it_is_loaded(recogniser, name):
    loaded = labelling(recogniser(name), raysp.Transcript()).loaded
    loaded.check_padding()
    model = loaded.search.model if name in TRANSDUCER_BUILDERS else loaded.search.model.model
    encode = model.get_audio_features

    def leak(*features, **inputs):
        found = encode(*features, **inputs)
        padded, *_ = features or [inputs["input_features"]]
        found.pooler_output = found.pooler_output + max(padded.shape[1:]) / 100
        return found

    model.get_audio_features = leak
    with pytest.raises(CheckpointError, match=r"differ by .* alone and in a padded batch.*batch_seconds=0.01"):
        loaded.check_padding()


def test_windows_are_passes_of_their_own_with_a_version_that_was_not_measured(monkeypatch):
    assert hf_installed.version().startswith(tuple(f"{version}." for version in VERSIONS))
    assert why_alone("qwen3_asr") == ""
    monkeypatch.setattr(hf_installed, "version", lambda: "5.99.1")
    assert why_alone("qwen3_asr") == "padded batches were not measured with transformers 5.99.1, but with 5.24"
    assert why_alone("speecht5") == "padding changes its results, or was not measured"


@pytest.mark.slow
def test_recordings_of_several_chunks_or_none_have_the_texts_of_transformers(recogniser):
    folder, recordings = recogniser("voxtral"), waves((33 * RATE, 9_000, 61 * RATE))
    op = labelling(folder, raysp.Transcript(), window_seconds=70)
    assert [row["pred_text"] for row in labels(op, block_of(recordings)).values()] == written(
        folder, "voxtral", recordings
    )
    together, alone = rows_of(labelling(recogniser("qwen3_omni_moe"), raysp.Transcript()), waves((1_601, 64_000)))
    assert [row["pred_text"] for row in together] == [row["pred_text"] for row in alone]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILDERS, *tiny_ctc.BUILDERS])
def test_the_last_second_of_the_longest_window_is_heard(recogniser, name):
    most = FAMILIES[name].max_seconds if name in FAMILIES else None
    seconds = min(most or 31, 31)
    [wave] = waves([seconds * RATE])
    output = raysp.Transcript(language=LANGUAGES.get(name))
    op = labelling(recogniser(name), output, windows_alone=True, window_seconds=seconds, overlap_seconds=0)
    scores = [labels(op, block_of([one]))[0]["pred_score"] for one in (wave, wave[:-RATE])]
    assert scores[0] != scores[1]


OPTIONS = {
    "qwen3_asr": ({}, {"prompt": "numbers"}),
    "canary": ({"language": "de"}, {"language": "de", "task": "translate"}),
    "moss_transcribe_diarize": ({}, {"keywords": ["Ray"]}),
    "voxtral": ({}, {"language": "de"}),
    "phi4_multimodal": ({}, {"prompt": "numbers"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_prompts_keywords_tasks_and_languages_change_the_text(recogniser, name):
    ops = [labelling(recogniser(name), raysp.Transcript(**one), windows_alone=True) for one in OPTIONS[name]]
    scores = [labels(op, block_of(waves([24_000])))[0]["pred_score"] for op in ops]
    assert scores[0] != scores[1]


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
