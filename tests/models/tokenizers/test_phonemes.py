"""The tokenizer of phonemes against that of transformers, which needs no phonemizer to decode."""

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.models import AutoTokenizer, Wav2Vec2PhonemeCTCTokenizer
from tests.models.tokenizers.phonemes import PHONEMES, write_tokenizer

FOLDERS = {"phonemes": {}, "words": {"words": True}, "other delimiter": {"phone_delimiter_token": "|"}}


@pytest.fixture(scope="module", params=FOLDERS)
def both(request, tmp_path_factory):
    folder = write_tokenizer(tmp_path_factory.mktemp("tokens") / "tokens", **FOLDERS[request.param])
    return Wav2Vec2PhonemeCTCTokenizer.from_pretrained(folder), theirs_of(folder)


def theirs_of(folder):
    return transformers.Wav2Vec2PhonemeCTCTokenizer.from_pretrained(folder)


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 4, 5, 8, 9, 18, 18, 40]), min_size=1, max_size=40))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"group_tokens": False},
        {"filter_word_delimiter_token": False},
        {"clean_up_tokenization_spaces": True, "skip_special_tokens": True},
    ],
)
def test_decoding_equals_theirs(both, ids, options):
    ours, theirs = both
    if not options.get("skip_special_tokens") or {*ids} - {0, 1, 2, 3}:  # theirs raises on nothing
        assert ours.decode(ids, **options) == theirs.decode(ids, **options)


def test_text_in_letters_is_refused_with_what_is_expected(tmp_path):
    tokenizer = Wav2Vec2PhonemeCTCTokenizer.from_pretrained(write_tokenizer(tmp_path))
    message = (
        r"do_phonemize is true, and raysp does not turn text into phonemes \(espeak\): expected phonemes separated by "
        r"spaces, such as 'n s t ə'; pass do_phonemize=False with phonemes"
    )
    with pytest.raises(ValueError, match=message):
        tokenizer("hello")
    assert tokenizer("n s", do_phonemize=False)["input_ids"] == [4, 5]


@pytest.mark.parametrize("options", FOLDERS.values())
def test_a_saved_tokenizer_is_read_by_both(tmp_path, options):
    first = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / "a", phonemizer_lang="it", **options))
    first.save_pretrained(tmp_path / "b")
    theirs = theirs_of(tmp_path / "b")
    theirs.save_pretrained(tmp_path / "c")
    last = AutoTokenizer.from_pretrained(tmp_path / "c")
    ids = [4, 4, 0, 8, len(PHONEMES), 5]
    for one in (AutoTokenizer.from_pretrained(tmp_path / "b"), theirs, last):
        assert type(one).__name__ == "Wav2Vec2PhonemeCTCTokenizer"
        assert (one.phonemizer_lang, one.do_phonemize) == ("it", True)
        assert (one.phone_delimiter_token, one.word_delimiter_token) == (
            first.phone_delimiter_token,
            first.word_delimiter_token,
        )
        assert one.get_vocab() == first.get_vocab()
        assert one.decode(ids) == first.decode(ids)
