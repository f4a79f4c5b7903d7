"""Published checkpoints, by name: `raysp inspect` opens each, and a row has the label of transformers."""

import json
import shutil
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch

import raysp
from tests.corpora import AUDIO, wav
from tests.published import theirs
from tests.published.layout import PICKLE, SAFETENSORS, Layout
from tests.published.table import TABLE
from tests.soaked import by_drivers

ALWAYS = {"Mos", "Speech", "Signals"}
"""Outputs that need nothing of a checkpoint."""
ALIKE = {
    *("jonatasgrosman/wav2vec2-large-xlsr-53-english", "openai/whisper-tiny.en", "openai/whisper-small"),
    *("facebook/wav2vec2-xls-r-300m-en-to-15@refs/pr/3", "facebook/mms-lid-126", "anton-l/wav2vec2-base-superb-sd"),
    *("Qwen/Qwen3-ASR-1.7B-hf", "CohereLabs/cohere-transcribe-03-2026"),
}
"""Layouts of the kind of another; they are opened by the drivers."""


def text_of(layout: Layout) -> str:
    """Return a text of two words of letters, or of four phonemes, of a layout."""
    vocab, is_of_phonemes = layout.vocab, "phone_delimiter_token" in layout.tokenizer
    if isinstance(next(iter(vocab.values())), dict):
        vocab = vocab[layout.tokenizer["target_lang"]]
    chosen = [token for token in vocab if token.isalpha() and (is_of_phonemes or len(token) == 1)][:4]
    return " ".join(chosen if is_of_phonemes else ("".join(chosen[:2]), "".join(chosen[2:])))


def labelled(name: str, layout: Layout, wave: bytes) -> dict[str, Any]:
    """Label one row by the outputs of a layout."""
    specs = {
        "Transcript": raysp.Transcript(language=layout.language),
        "Embedding": raysp.Embedding(),
        "Classes": raysp.Classes(top_k="all" if layout.is_regression else 1),
        "Align": raysp.Align("text", chars=True),
    }
    outputs = [specs[one] for one in layout.outputs if one in specs]
    text = text_of(layout) if "Align" in layout.outputs else None
    audio = pa.array([{"bytes": wave, "path": None}], AUDIO)
    rows = pa.table({"id": ["a"], "audio": audio, "text": pa.array([text], pa.string())})
    label = raysp.Labeller([raysp.Decode(), raysp.Label(name, outputs=outputs, **layout.label)])
    return label(rows).to_pylist()[0]


@pytest.mark.parametrize("name", [*sorted(TABLE.keys() - ALIKE), *by_drivers(*sorted(ALIKE))])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM in transformers, with a mask
def test_a_published_checkpoint_opens_by_its_name_and_a_row_has_the_label_of_transformers(
    name, hub, laid_out, raysp_command, tmp_path
):
    layout, folder, opened = TABLE[name], laid_out(name), hub(name)
    if layout.is_pickle:  # `raysp convert` is run by the commands of the page
        done = raysp_command("inspect", name)
        assert done.code == 2
        assert "raysp convert" in done.err
        folder = shutil.copytree(folder, tmp_path / "saved")
        weights = {key: value.clone() for key, value in torch.load(folder / PICKLE, weights_only=True).items()}
        safetensors.torch.save_file(weights, folder / SAFETENSORS, metadata={"format": "pt"})
        opened = str(folder)
    done = raysp_command("inspect", opened, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {*found["outputs"]} - ALWAYS == {*layout.outputs}
    assert found["backend"] == layout.backend
    row = labelled(opened, layout, wav(16_000))
    assert row["status"] == "ok", row["error_message"]
    expected = theirs.results(layout, folder, theirs.samples_of(wav(16_000)))
    if "Transcript" in layout.outputs:
        assert row["pred_text"] == expected["pred_text"] != "", "a label that shows nothing"
        if "pred_score" in expected:
            assert row["pred_score"] == pytest.approx(expected["pred_score"], abs=1e-4)
    if "Align" in layout.outputs:  # by the letters of the text, all of which the vocabulary has
        assert "".join(one["char"] for one in row["aligned_chars"]) == text_of(layout).replace(" ", "")
        assert row["aligned_skipped"] == 0
    if "Embedding" in layout.outputs:
        assert torch.allclose(torch.tensor(row["embedding"]), expected["embedding"], atol=1e-4)
    if "Classes" in layout.outputs:
        assert row["pred_label"] == expected["pred_label"]
        assert row["pred_label_scores"] == pytest.approx(expected["pred_label_scores"], abs=1e-4)
