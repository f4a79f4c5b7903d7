"""JSON of `raysp inspect` and `raysp models`."""

import json

from tests import kit
from tests.corpora import CHECKPOINT
from tests.models.tokenizers.word_pieces import save_parakeet


def test_outputs_that_a_vocabulary_of_pieces_does_not_support_are_left_out(tmp_path):
    save_parakeet(tmp_path / "pieces")
    assert json.loads(kit.run(["inspect", tmp_path / "pieces", "--json"]).out)["outputs"] == ["Transcript", "Embedding"]
    assert json.loads(kit.run(["inspect", CHECKPOINT, "--json"]).out)["sample_rate"] == 16_000


def test_models_lists_what_transformers_runs_and_what_is_refused_with_the_reason():
    words = " ".join(kit.run("models").out.split())
    assert "granite_speech5_ctc, lasr_ctc, moonshine, omniasr_ctc" in words
    assert "fun_asr_nano, granite_speech, granite_speech_plus: its features need torchaudio" in words
    facts = json.loads(kit.run("models --json").out)
    assert "whisper" in facts["others"]
    assert "random noise" in facts["refused"]["vibevoice_asr"]
