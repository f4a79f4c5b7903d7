"""CTC recognisers of transformers: frames, texts, times and searches are those of the class, in any batch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.backends import hf_installed
from raysp.backends.hugging_face import describing
from raysp.backends.hugging_face.models import HuggingFaceModel
from raysp.backends.hugging_face.padded_batches import PADDED
from raysp.capabilities import Capability
from raysp.models.tokenizers.named_tokenizers import read_ctc_tokenizer
from tests.backends.killed_runs import check_killed
from tests.backends.recognisers.loops import load
from tests.backends.recognisers.tiny_ctc import BUILDERS
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import RATE, labelling, tiny_waveform_model, waves
from tests.ops.test_labelling import block_of, labels

LENGTHS = (24_000, 9_000, 16_000, 33_333, 24_000, 2_400)
OF_WAVEFORMS = ("Data2VecAudioForCTC", "SEWForCTC", "WavLMForCTC")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def written(folder: Path, name: str, recordings) -> list[str]:
    """Return the texts of transformers, one recording after another."""
    processor, model = load(folder, name)
    texts = []
    for wave in recordings:
        inputs = processor(audio=wave, sampling_rate=RATE, return_tensors="pt")
        texts += processor.decode(model.generate(**inputs), skip_special_tokens=True)
    return [text.strip() for text in texts]


def rows_of(folder: Path, recordings, *outputs, **options) -> tuple[list[dict], list[dict]]:
    """Return the rows of recordings together, and those of each alone."""
    op = labelling(folder, *outputs, **options)
    together = [*labels(op, block_of(recordings)).values()]
    assert {row["status"] for row in together} == {"ok"}
    return together, [labels(op, block_of([wave]))[0] for wave in recordings]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILDERS, *OF_WAVEFORMS])
def test_frames_of_every_length_are_those_of_the_logits(recogniser, tmp_path, name):
    folder = tiny_waveform_model(tmp_path, name) if name in OF_WAVEFORMS else recogniser(name)
    summary, extractor = describing.describe(folder), describing.extractor_of(folder)
    model = describing.kind_of(folder).model_class.from_pretrained(folder).eval()
    least, stride = summary.min_samples, summary.frame_stride
    edges = [summary.receptive_samples + count * stride for count in (1, 2, 3, 4, 5, 8, 13, 21, 34, 55, 89)]
    drawn = np.random.default_rng(0).integers(least, min(6 * RATE, 100 * stride), 70).tolist()
    lengths = [length for edge in edges for length in (edge - 1, edge, edge + 1) if length >= least]
    lengths += [least, least + 1, *drawn]
    assert len(lengths) > 100
    for length in lengths:
        [wave] = waves([length])
        with torch.inference_mode():
            logits = model(**describing.features_of(extractor, wave)).logits
        assert (logits.shape[1], length) == (summary.num_frames(length), length)
        assert torch.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_the_table_has_the_classes_whose_logits_do_not_depend_on_padding(recogniser, name):
    model, recordings = HuggingFaceModel(recogniser(name), dtype="float32", device="cpu"), waves(LENGTHS)
    counts = [model.summary.num_frames(len(wave)) for wave in recordings]
    with torch.inference_mode():
        together = model.model(**model.prepare(recordings)).logits
        alone = [model.model(**model.prepare([wave])).logits[0] for wave in recordings]
    for row, logits, count in zip(together, alone, counts, strict=True):
        assert len(logits) == count
        difference = float((row[:count] - logits).abs().max())
        assert (difference <= 1e-5 * float(logits.abs().max())) == (name in PADDED)
    model.check_padding()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("version", [None, "5.99.1"])
def test_texts_and_times_alone_and_together_are_those_of_transformers(recogniser, monkeypatch, name, version):
    if version:  # not measured: rows of one length a pass
        monkeypatch.setattr(hf_installed, "version", lambda library="transformers": version)
    folder, recordings = recogniser(name), waves(LENGTHS)
    output = raysp.Transcript(words=True)
    assert labelling(folder, output).of_one_length == bool(version)
    together, alone = rows_of(folder, recordings, output)
    texts = [row["pred_text"] for row in together]
    assert texts == [row["pred_text"] for row in alone] == written(folder, name, recordings)
    assert all(texts[:5])
    for row, same, wave in zip(together, alone, recordings, strict=True):
        assert [word["word"] for word in row["pred_words"]] == row["pred_text"].split()
        assert row["pred_score"] == pytest.approx(same["pred_score"], abs=1e-5)
        times = [(word["start"], word["end"]) for word in row["pred_words"]]
        assert times == [(word["start"], word["end"]) for word in same["pred_words"]]
        assert times == sorted(times)
        assert all(0 <= start < end <= len(wave) / RATE + 0.08 for start, end in times)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_half_precision_has_the_text_of_a_row_alone(recogniser, name):
    folder, recordings = recogniser(name), waves([24_000, 24_000, 9_000])
    together, alone = rows_of(folder, recordings, raysp.Transcript(), dtype="bfloat16")
    for row, same in zip(together, alone, strict=True):
        assert row["pred_score"] == pytest.approx(same["pred_score"], abs=0.05)
    labelling(folder, raysp.Transcript(), dtype="bfloat16").loaded.check_padding()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_beams_find_texts_that_do_not_depend_on_the_batch(recogniser, name):
    output = raysp.Transcript(beams=4, nbest=2, words=True)
    together, alone = rows_of(recogniser(name), waves(LENGTHS[:3]), output)
    for row, same in zip(together, alone, strict=True):
        assert row["pred_text"] == same["pred_text"] == row["pred_nbest"][0]["text"]
        assert row["pred_score"] == pytest.approx(same["pred_score"], abs=1e-5)


@pytest.mark.slow
def test_a_vocabulary_of_letters_is_aligned_and_takes_hot_words(recogniser):
    folder, recordings = recogniser("omniasr_ctc"), waves(LENGTHS[:3])
    outputs = raysp.Transcript(words=True), raysp.Align(of="pred")
    together, alone = rows_of(folder, recordings, *outputs)
    for row, same in zip(together, alone, strict=True):
        assert [word["word"] for word in row["aligned_words"]] == [word["word"] for word in row["pred_words"]]
        assert row["aligned_skipped"] == 0
        for word, other in zip(row["aligned_words"], row["pred_words"], strict=True):
            assert (word["start"], word["end"]) == pytest.approx((other["start"], other["end"]), abs=0.021)
        assert row["aligned_score"] == pytest.approx(same["aligned_score"], abs=1e-5)
    [plain, hot] = [
        [row["pred_text"] for row in rows_of(folder, recordings, raysp.Transcript(beams=8, hot_words=words))[0]]
        for words in ({}, {"abba": 9.0})
    ]
    assert sum(text.count("abba") for text in hot) > sum(text.count("abba") for text in plain)


@pytest.mark.parametrize("name", ["granite_speech5_ctc", "lasr_ctc"])
def test_pieces_of_words_are_not_aligned(recogniser, name):
    summary = describing.describe(recogniser(name))
    with pytest.raises(CheckpointError, match="Align spells texts by letters, and this vocabulary has pieces of words"):
        raysp.Align("text").check(summary)
    with pytest.raises(CheckpointError, match="hot_words need a vocabulary of characters"):
        raysp.Transcript(beams=2, hot_words={"a": 1.0}).check(summary)


def test_a_vocabulary_of_all_languages_takes_no_language(recogniser, tmp_path):
    made = pipeline(write_corpus(tmp_path), recogniser("omniasr_ctc"), outputs=[raysp.Transcript(language="de")])
    with pytest.raises(CheckpointError, match="OmniASRForCTC has one vocabulary: leave language out"):
        raysp.plan(made)


@pytest.mark.parametrize("name", BUILDERS)
def test_special_tokens_are_no_text_and_the_blank_is_that_of_the_model(recogniser, name):
    tokenizer = read_ctc_tokenizer(recogniser(name))
    special = sorted({*tokenizer.all_special_ids} - {tokenizer.pad_token_id})
    [a, b] = tokenizer.convert_tokens_to_ids(["a", "b"])
    assert tokenizer.pad_token_id == 0
    assert tokenizer.decode_collapsed([a, *special, b]) == "ab"
    assert tokenizer.decode_collapsed_rows(np.array([a, special[-1], b]), np.array([3])) == ["ab"]
    assert tokenizer.written_characters([a, special[-1]]) == ["a", ""]
    assert not {*tokenizer.ids_of_written("ab")} & {*special}


@pytest.mark.slow
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, recogniser):
    options = "outputs=[raysp.Transcript(words=True)], backend='transformers'"
    check_killed(tmp_path, recogniser("omniasr_ctc"), options, "before_piece_staged:2")


@pytest.fixture
def copied(tmp_path, recogniser):
    """Return the function that returns a copy of a checkpoint."""
    return lambda name: Path(shutil.copytree(recogniser(name), tmp_path / name))


@pytest.mark.parametrize(
    ("name", "file", "values", "words"),
    [
        ("omniasr_ctc", "config.json", {"blank_token_id": 99}, "blank_token_id 99, expected the id of a token"),
        ("omniasr_ctc", "config.json", {"vocab_size": 17}, r"tokenizer has 19 tokens, the head has 17 classes"),
        ("lasr_ctc", "config.json", {"pad_token_id": 2}, "pad_token '<pad>' is id 0, config.json has pad_token_id 2"),
        ("lasr_ctc", "tokenizer.json", None, "tokenizer.json not found, expected the tokens of the head"),
        ("lasr_ctc", "processor_config.json", None, "transformers 5.* cannot read it"),
        ("granite_speech5_ctc", "tokenizer.json", None, "tokenizer.json not found"),
        ("granite_speech5_ctc", "tokenizer_config.json", {"pad_token": "<unk>"}, "both are the CTC blank"),
    ],
)
def test_damaged_files_are_refused_by_name(copied, name, file, values, words):
    folder = copied(name)
    if values is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **values}))
    with pytest.raises(CheckpointError, match=words):
        describing.describe(folder)


def test_frames_that_the_model_does_not_have_are_refused_when_it_is_loaded(recogniser, monkeypatch):
    folder = recogniser("lasr_ctc")
    cls = describing.kind_of(folder).model_class
    monkeypatch.setattr(cls, "_get_subsampling_output_length", lambda self, length: length // 4)
    with pytest.raises(CheckpointError, match=r"LasrForCTC has \d+ frames of \d+ samples, and \d+ by its function"):
        HuggingFaceModel(folder, dtype="float32", device="cpu")


def test_hidden_states_are_not_offered(recogniser):
    assert describing.describe(recogniser("granite_speech5_ctc")).gives == (Capability.CTC,)


def test_a_processor_of_other_features_is_refused(recogniser, copied):
    folder = copied("omniasr_ctc")
    shutil.copy(recogniser("lasr_ctc") / "processor_config.json", folder)
    with pytest.raises(
        CheckpointError, match=r"LasrFeatureExtractor makes input_features, expected the input_values of OmniASRForCTC"
    ):
        describing.describe(folder)
