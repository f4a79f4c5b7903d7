"""CTC recognisers of transformers: frames, texts, times and searches are those of the class, in any batch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.backends.hugging_face import describing
from raysp.backends.hugging_face.models import HuggingFaceModel
from raysp.capabilities import Capability
from raysp.models.tokenizers.named_tokenizers import read_ctc_tokenizer
from tests.backends.recognisers.tiny_ctc import BUILDERS
from tests.backends.theirs import RATE, labelling, tiny_waveform_model, waves
from tests.ops.test_labelling import block_of, labels

LENGTHS = (24_000, 9_000, 16_000, 33_333, 24_000, 2_400)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def rows_of(folder: Path, recordings, *outputs, **options) -> tuple[list[dict], list[dict]]:
    """Return the rows of recordings together, and those of each alone."""
    op = labelling(folder, *outputs, **options)
    together = [*labels(op, block_of(recordings)).values()]
    assert {row["status"] for row in together} == {"ok"}
    return together, [labels(op, block_of([wave]))[0] for wave in recordings]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BUILDERS, "SEWForCTC"])
def test_frames_of_every_length_are_those_of_the_logits(recogniser, tmp_path, name):
    folder = tiny_waveform_model(tmp_path, name) if name == "SEWForCTC" else recogniser(name)
    summary, extractor = describing.describe(folder), describing.extractor_of(folder)
    model = describing.kind_of(folder).model_class.from_pretrained(folder).eval()
    least, stride = summary.min_samples, summary.frame_stride
    edges = [summary.receptive_samples + count * stride for count in (1, 2, 5, 13, 89)]
    drawn = np.random.default_rng(0).integers(least, min(6 * RATE, 100 * stride), 8).tolist()
    lengths = [length for edge in edges for length in (edge - 1, edge, edge + 1) if length >= least]
    lengths += [least, least + 1, *drawn]
    for length in lengths:
        [wave] = waves([length])
        with torch.inference_mode():
            logits = model(**describing.features_of(extractor, wave)).logits
        assert (logits.shape[1], length) == (summary.num_frames(length), length)
        assert torch.isfinite(logits).all()


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


def test_frames_that_the_model_does_not_have_are_refused_when_it_is_loaded(recogniser, monkeypatch):
    folder = recogniser("lasr_ctc")
    cls = describing.kind_of(folder).model_class
    monkeypatch.setattr(cls, "_get_subsampling_output_length", lambda self, length: length // 4)
    with pytest.raises(CheckpointError, match=r"LasrForCTC has \d+ frames of \d+ samples, and \d+ by its function"):
        HuggingFaceModel(folder, dtype="float32", device="cpu")


def test_a_processor_of_other_features_is_refused_and_hidden_states_are_not_offered(recogniser, tmp_path):
    assert describing.describe(recogniser("granite_speech5_ctc")).gives == (Capability.CTC,)
    folder = shutil.copytree(recogniser("omniasr_ctc"), tmp_path / "copy")
    shutil.copy(recogniser("lasr_ctc") / "processor_config.json", folder)
    with pytest.raises(CheckpointError, match=r"LasrFeatureExtractor makes input_features, expected the input_values"):
        describing.describe(folder)
