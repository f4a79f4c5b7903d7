"""Outputs of checkpoints that write phonemes: transcripts with times and beams, given phonemes, trainings."""

import pytest

import raysp
from tests.corpora import label_arrays
from tests.models.tokenizers.phonemes import save_phonemes
from tests.ops.test_precision import noise

WAVES = noise([1.0, 2.0], seed=2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save_phonemes(tmp_path_factory.mktemp("plain") / "phonemes")


def test_given_phonemes_are_aligned_unknown_ones_are_counted_and_letters_are_an_error(plain):
    texts = {"said": ["l xx ɛ ʔ tʃ", "hello there"]}
    found, refused = label_arrays(plain, raysp.Align("said", chars=True), WAVES, texts)
    assert found["aligned_skipped"] == 2
    assert [one["start"] is None for one in found["aligned_words"]] == [False, True, False, True, False]
    known = [one["start"] for one in found["aligned_chars"] if one["start"] is not None]
    assert known == sorted({*known})
    assert len(known) == 3
    assert refused["error_type"] == "step_failed"
    expected = "'hello there' has none of the checkpoint's phonemes; expected phonemes sep"
    assert expected in refused["error_message"]
