"""Recognisers of transformers: a row has the text that it has alone, which is that of transformers, in any batch.

CTC classes, transducers and families with a decoder keep the same promises; `loops.written` has what differs.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp
from raysp import CheckpointError
from tests.backends.recognisers.loops import LANGUAGES, let_write, written
from tests.backends.recognisers.tiny_ctc import BUILDERS as CTC_BUILDERS
from tests.backends.recognisers.tiny_ctc import TRANSDUCER_BUILDERS
from tests.backends.recognisers.tiny_omni import BUILDERS
from tests.backends.theirs import RATE, labelling, tiny_waveform_model, together_and_alone, waves
from tests.models.oracles import transformers
from tests.ops.waves import block_of, labels
from tests.soaked import by_drivers, soaked

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
LENGTHS = (24_000, 9_000, 33_333)
TIMED = {*CTC_BUILDERS, *TRANSDUCER_BUILDERS}
"""Model types that write times of words."""
MAPS = ("SPEECH_SEQ_2_SEQ", "CTC", "RNNT", "TDT", "MULTIMODAL_LM")
OTHERS = {"dia", "pop2piano", "vibevoice"}
"""Model types of these maps that write audio or notes."""
QUICK = ("cohere_asr", "qwen2_audio", "qwen3_asr", "voxtral", "nemotron3_5_asr", "omniasr_ctc", "SEWForCTC")
"""Of each kind of model and processor one or two; `make test-drivers` has the others."""
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def quick_first(names):
    """Return names as parameters, of which `make test` has the quick ones."""
    return [*(name for name in names if name in QUICK), *by_drivers(*(name for name in names if name not in QUICK))]


def opened_by() -> dict[str, str]:
    """Return what opens each class, as the page of models has it."""
    rows = re.findall(r"^\| (\w+For\w+[\w, ]*|SpeechEncoderDecoderModel) \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    return {cls: opened for classes, opened in rows for cls in classes.split(", ")}


def test_the_page_of_models_has_each_class_of_transformers_that_recognises_speech():
    auto = transformers.models.auto.modeling_auto
    maps = {name: getattr(auto, f"MODEL_FOR_{name}_MAPPING_NAMES") for name in MAPS}
    images = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    maps["MULTIMODAL_LM"] = {name: cls for name, cls in maps["MULTIMODAL_LM"].items() if name not in images}
    classes: dict[str, str] = {}
    for of_map in maps.values():
        classes = {**of_map, **classes}
    assert opened_by().keys() == {cls for name, cls in classes.items() if name not in OTHERS}
    tried = {"transformers, in padded batches", "transformers, one window a pass"}
    assert sum(opened in tried for opened in opened_by().values()) == len({**BUILDERS, **CTC_BUILDERS})


@pytest.mark.slow
@pytest.mark.parametrize("name", quick_first([*BUILDERS, *CTC_BUILDERS]))
def test_texts_scores_and_times_alone_and_together_are_those_of_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves(LENGTHS if name in TIMED else LENGTHS[:2])
    outputs = [raysp.Transcript(language=LANGUAGES.get(name), words=name in TIMED)]
    outputs += [raysp.Transcript("searched", beams=4, nbest=2)] if name in CTC_BUILDERS else []
    op = labelling(folder, *outputs)
    cls = op.loaded.summary.architecture.replace("Thinker", "")  # the part of an omni model that writes texts
    is_padded = opened_by()[cls] == "transformers, in padded batches"
    assert (op.loaded.summary.takes_padding if name in CTC_BUILDERS else not op.is_alone) == is_padded
    together, alone = together_and_alone(op, recordings)
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
    for row, same in zip(together, alone, strict=True) if name in CTC_BUILDERS else ():
        assert row["searched_text"] == same["searched_text"] == row["searched_nbest"][0]["text"]
        assert row["searched_score"] == pytest.approx(same["searched_score"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", quick_first([*CTC_BUILDERS, "SEWForCTC"]))
def test_frames_of_every_length_are_those_of_the_logits(recogniser, tmp_path, name):
    folder = tiny_waveform_model(tmp_path, name) if name == "SEWForCTC" else recogniser(name)
    summary = labelling(folder, raysp.Transcript()).loaded.summary
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModelForCTC.from_pretrained(folder).eval()
    edges = [summary.receptive_samples + count * summary.frame_stride for count in (1, 2, 5, 13)]
    lengths = {summary.min_samples, *(edge + more for edge in edges for more in (-1, 0, 1))}
    for length in sorted(length for length in lengths if length >= summary.min_samples):
        [wave] = waves([length])
        with torch.inference_mode():
            logits = model(**extractor(wave, sampling_rate=RATE, return_tensors="pt")).logits
        assert (logits.shape[1], length) == (summary.num_frames(length), length)


@pytest.mark.slow
def test_a_vocabulary_of_letters_is_aligned_and_takes_hot_words(recogniser):
    hot = raysp.Transcript("hot", beams=8, hot_words={"abba": 9.0})
    outputs = raysp.Transcript(words=True), raysp.Align(of="pred"), raysp.Transcript("plain", beams=8), hot
    together, alone = together_and_alone(labelling(recogniser("omniasr_ctc"), *outputs), waves(LENGTHS[:3]))
    for row, same in zip(together, alone, strict=True):
        assert [word["word"] for word in row["aligned_words"]] == [word["word"] for word in row["pred_words"]]
        assert row["aligned_skipped"] == 0
        for word, other in zip(row["aligned_words"], row["pred_words"], strict=True):
            assert (word["start"], word["end"]) == pytest.approx((other["start"], other["end"]), abs=0.021)
        assert row["aligned_score"] == pytest.approx(same["aligned_score"], abs=1e-5)
    found = {name: sum(row[f"{name}_text"].count("abba") for row in together) for name in ("plain", "hot")}
    assert found["hot"] > found["plain"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cohere_asr", "omniasr_ctc", "nemotron3_5_asr"])
def test_half_precision_has_the_label_of_a_window_alone(recogniser, name):
    output = raysp.Transcript(language=LANGUAGES.get(name), words=name in TIMED)
    op = labelling(recogniser(name), output, dtype="bfloat16")
    together, alone = together_and_alone(op, waves(LENGTHS[:2]))
    if name in CTC_BUILDERS:  # rows of one length share a pass
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
    layer.weight.data.fill_(torch.nan)
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


@pytest.mark.drivers
def test_recordings_of_several_chunks_or_none_have_the_texts_of_transformers(recogniser):
    folder, recordings = recogniser("voxtral"), waves((33 * RATE, 9_000))
    op = labelling(folder, raysp.Transcript(), window_seconds=70)
    found = [row["pred_text"] for row in labels(op, block_of(recordings)).values()]
    assert found == written(folder, "voxtral", recordings)
    op = labelling(recogniser("qwen3_omni_moe"), raysp.Transcript())
    together, alone = together_and_alone(op, waves((1_601, 64_000)))
    assert [row["pred_text"] for row in together] == [row["pred_text"] for row in alone]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_audio", *soaked(sorted({*BUILDERS, *CTC_BUILDERS} - {"qwen2_audio"}))])
def test_the_last_second_of_the_longest_window_is_heard(recogniser, name):
    summary = labelling(recogniser(name), raysp.Transcript(language=LANGUAGES.get(name))).loaded.summary
    seconds = min((summary.max_samples or 31 * summary.sample_rate) // summary.sample_rate, 31)
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
@pytest.mark.parametrize("name", quick_first(OPTIONS))
def test_prompts_keywords_tasks_and_languages_change_the_text(recogniser, name):
    ops = [labelling(recogniser(name), raysp.Transcript(**one), windows_alone=True) for one in OPTIONS[name]]
    scores = [labels(op, block_of(waves([24_000])))[0]["pred_score"] for op in ops]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_segments_of_moss_are_read(recogniser, tmp_path):
    folder = shutil.copytree(recogniser("moss_transcribe_diarize"), tmp_path / "copy")
    file = folder / "generation_config.json"
    settings, tokenizer = json.loads(file.read_text()), transformers.AutoTokenizer.from_pretrained(folder)
    for raw, text in (
        ("[0.00][S01]Hello there.[7.56][7.90][S02] And you?[01:02]", "Hello there. And you?"),
        ("[0.00][S01]cut off", "[0.00][S01]cut off"),
    ):
        ids = [*tokenizer.encode(raw), tokenizer.eos_token_id]
        file.write_text(json.dumps({**settings, "max_new_tokens": len(ids), "suppress_tokens": None}))
        op = labelling(folder, raysp.Transcript())
        let_write(op.loaded.search.model, ids)
        [row] = labels(op, block_of(waves([16_000]))).values()
        assert row["pred_text"] == text
