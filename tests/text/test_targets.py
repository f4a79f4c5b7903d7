"""Targets of reference texts: ids, and reasons for which rows are left out."""

import pytest

from raysp import PlanError
from raysp.models import Wav2Vec2CTCTokenizer
from raysp.text.error_rates import TextRules
from raysp.text.targets import BAR, OUTSIDE, CharacterTargets, build, count_characters, frames_needed, outside
from raysp.training.objectives.head_tokenizers import encode_of, letters_of, read_vocabulary, tokenizer_for


def targets_of(*texts: str, **rules: str) -> CharacterTargets:
    return CharacterTargets(TextRules(**rules), encode_of(tokenizer_for(build(count_characters(texts)))))


@pytest.mark.parametrize("text", ["a|b", "a | b", "|", "<pad>", "a <unk>"])
def test_a_text_with_a_token_that_has_a_meaning_of_its_own_is_left_out(text):
    for targets in (CharacterTargets(TextRules()), targets_of("ab <pad><unk>|")):
        assert targets(text) == ((), OUTSIDE)
        assert targets("ab").reason == ""
        assert targets(text.replace("|", " ").replace("<", "").replace(">", "") + " a").reason == ""


def test_a_bar_in_a_text_is_counted_apart_from_spaces_and_is_outside_the_vocabulary():
    targets = CharacterTargets(TextRules())
    targets("a b|c|")
    assert targets.counts == {"a": 1, "b": 1, "c": 1, "|": 1, BAR: 2}
    assert outside(targets.counts, letters_of(tokenizer_for(build(targets.counts)))) == {BAR: 2}


def test_a_tokenizer_with_another_delimiter_reads_a_bar_as_a_character():
    vocabulary = {"_": 0, "<unk>": 1, " ": 2, "|": 3, "a": 4}
    tokenizer = Wav2Vec2CTCTokenizer(
        vocabulary, bos_token=None, eos_token=None, pad_token="_", word_delimiter_token=" "
    )
    targets = CharacterTargets(TextRules(), encode_of(tokenizer))
    assert [*targets("a|a a").ids] == [4, 3, 4, 2, 4]
    assert targets("a_a") == ((), OUTSIDE)  # the blank of this vocabulary


@pytest.mark.parametrize(("ids", "frames"), [([], 0), ([1, 2, 1], 3), ([1, 1], 3), ([4, 4, 4, 5, 5], 8)])
def test_equal_neighbours_need_a_blank_between_them(ids, frames):
    assert frames_needed(ids) == frames


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected 'keep', 'build' or a vocab.json"),
        ("[1, 2]", "expected an object of tokens with the ids 0, 1, 2, ..., each once"),
        ('{"<pad>": 0, "<unk>": 2, "|": 3}', "expected an object of tokens with the ids 0, 1, 2"),
        ('{"<pad>": 0, "<unk>": 1, "a": 2}', r"found none of the tokens \|; add one"),
    ],
)
def test_a_vocabulary_that_no_head_can_have_is_refused(tmp_path, content, message):
    file = tmp_path / "vocab.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PlanError, match=message):
        read_vocabulary(str(file), {})
