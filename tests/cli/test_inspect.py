"""The verb inspect."""

import json
import re

from tests.corpora import CHECKPOINT
from tests.models.tokenizers.word_pieces import save_parakeet


class TestInspect:
    def test_it_lists_the_outputs_of_a_checkpoint(self, raysp_command):
        ran = raysp_command("inspect", CHECKPOINT)
        assert (ran.code, ran.err) == (0, "")
        facts = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:])
        assert facts["architecture"].strip() == "UniSpeechForCTC (unispeech)"
        assert "Transcript" in facts["outputs"]
        assert re.search(r"float32: 4\.3 MB, .* bfloat16, float16: 2\.2 MB, ", facts["memory"])
        assert "16,000 samples a second, a frame every 20 ms, at least 25 ms" in facts["rate"]
        assert re.search(r"20 tokens: <pad> .* E F G ", facts["vocabulary"])

    def test_outputs_that_a_vocabulary_of_pieces_does_not_support_are_left_out(self, raysp_command, tmp_path):
        save_parakeet(tmp_path / "pieces")
        ran = raysp_command("inspect", tmp_path / "pieces", "--json")
        assert json.loads(ran.out)["outputs"] == ["Transcript", "Embedding"]

    def test_as_json_it_prints_one_object(self, raysp_command):
        ran = raysp_command("inspect", CHECKPOINT, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["sample_rate"] == 16_000


def test_models_lists_what_transformers_runs_and_what_is_refused_with_the_reason(raysp_command):
    ran = raysp_command("models")
    assert (ran.code, ran.err) == (0, "")
    words = " ".join(ran.out.split())
    assert "granite_speech5_ctc, lasr_ctc, moonshine, omniasr_ctc" in words
    assert "fun_asr_nano, granite_speech, granite_speech_plus: its features need torchaudio" in words
    assert "docs/models.md" in words
    facts = json.loads(raysp_command("models", "--json").out)
    assert "whisper" in facts["others"]
    assert "random noise" in facts["refused"]["vibevoice_asr"]
