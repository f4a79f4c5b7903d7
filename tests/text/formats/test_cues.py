"""Cues keep the rules of broadcasters, as an independent parser reads them."""

import math
import unicodedata
from itertools import pairwise

import pysubs2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.text.formats.cues import Rules, cues_of, srt
from raysp.text.formats.line_breaks import width_of
from raysp.text.times import Span

MARKS = st.sampled_from(["", "", "", "", ",", ".", "?", ";"])


def spoken(text: str, seconds: float = 0.4, start: float = 0.0) -> list[Span]:
    """Time words evenly."""
    return [
        Span(word, start + number * seconds, start + (number + 1) * seconds, 0.9)
        for number, word in enumerate(text.split())
    ]


@st.composite
def speech(draw, most: int = 60) -> list[Span]:
    """Words that are all different, as people say them: 40 to 700 ms long, with pauses between some."""
    found, place = [], draw(st.integers(0, 5000))
    for number in range(draw(st.integers(0, most))):
        text = f"{'w' * draw(st.integers(0, 9))}{number}{draw(MARKS)}"
        start = place + draw(st.sampled_from([0, 0, 0, 0, 20, 80, 300, 700, 1500]))
        place = start + draw(st.integers(40, 700))
        found.append(Span(text, start / 1000, place / 1000, 0.5))
    return found


RULES = st.builds(
    Rules,
    max_chars=st.integers(14, 60),
    max_lines=st.integers(1, 3),
    min_seconds=st.floats(0.1, 1.5),
    max_seconds=st.floats(2, 10),
    max_chars_per_second=st.floats(8, 30),
    min_gap_seconds=st.sampled_from([0.0, 0.04, 0.083, 0.2]),
)


CHINESE = (
    "今天我们来谈谈城市的历史。很多人都不知道，这座城市已经有三千多年了！他们说“河边的老街”最美，所以我们先去那里。"
)
JAPANESE = (
    "今日はチョコレートの歴史について話します。昔は、飲み物として楽しまれていました。ちょっと変わっていますよね？"
)
THAI = "ภาษาไทยไม่มีช่องว่างระหว่างคำและประโยคนี้ยาวกว่าหนึ่งบรรทัดมากเพราะเขียนติดกันทั้งหมดโดยไม่มีช่องว่างเลย"


class TestScriptsWithoutSpaces:
    @pytest.mark.parametrize("text", [CHINESE, JAPANESE])
    @pytest.mark.parametrize("max_chars", [20, 42])
    def test_a_parser_reads_lines_that_break_where_unicode_allows_it(self, text, max_chars):
        word = Span(text, 0.0, 0.25 * len(text), 1.0)
        cues = list(pysubs2.SSAFile.from_string(srt(cues_of([word], Rules(max_chars=max_chars))), format_="srt"))
        lines = [line for cue in cues for line in cue.plaintext.split("\n")]
        assert "".join(lines) == text
        assert all(sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) <= max_chars for line in lines)
        assert all(cue.plaintext.count("\n") <= 1 for cue in cues)
        assert not any(line[0] in "。，！？、”ーゃゅょっ" or line[-1] == "“" for line in lines)
        assert all(833 <= cue.duration <= 7000 for cue in cues)

    def test_a_word_whose_characters_are_of_another_text_is_not_cut_by_them(self):
        text = "历史悠久城市美丽"
        chars = [Span("x", at, at + 0.2, 1.0) for at in [0, 0.2, 0.4, 0.6, 4, 4.2, 4.4, 4.6]]
        assert [cue.lines for cue in cues_of([Span(text, 0.0, 4.8, 1.0)], chars=chars)] == [(text,)]

    def test_no_space_is_written_between_words_that_have_none(self):
        said = spoken("今 天 你 好 OK 吗 สวัส ดี ครับ")
        assert [cue.lines for cue in cues_of(said)] == [("今天你好 OK 吗สวัสดีครับ",)]
        assert [cue.lines for cue in cues_of(said, text="今天 你好OK吗 สวัสดี ครับ")] == [("今天 你好OK吗 สวัสดี ครับ",)]

    def test_japanese_lines_begin_with_phrases(self):
        [cue] = cues_of([Span("私たちは古い町の歴史について話します", 0.0, 4.0, 1.0)], Rules(max_chars=26))
        assert cue.lines == ("私たちは古い町の", "歴史について話します")

    def test_thai_is_cut_between_letters_with_their_vowels_and_marks(self):
        cues = cues_of([Span(THAI, 0.0, 12.0, 1.0)])
        lines = [line for cue in cues for line in cue.lines]
        assert "".join(lines) == THAI
        assert not any(line[0] in "ะาำๆฯ" or unicodedata.combining(line[0]) or line[-1] in "เแโใไ" for line in lines)
        assert max(sum(unicodedata.category(c) != "Mn" for c in line) for line in lines) <= 42 < max(map(len, lines))

    @given(st.text(st.sampled_from("今日はチョコ、。“”A1 -เกี่ยวกับ가"), max_size=60), st.integers(8, 42))
    def test_all_characters_are_kept_in_lines_of_the_width(self, text, max_chars):
        words = [Span(one, 0.5 * place, 0.5 * place + 0.5, 1.0) for place, one in enumerate(text.split())]
        lines = [line for cue in cues_of(words, Rules(max_chars=max_chars), text=text) for line in cue.lines]
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(width_of(line) <= max_chars for line in lines)


class TestRules:
    @settings(max_examples=40)
    @given(speech(), RULES)
    def test_a_parser_reads_cues_that_keep_all_rules(self, spans, rules):
        cues = list(pysubs2.SSAFile.from_string(srt(cues_of(spans, rules)), format_="srt")) if spans else []
        gap = round(rules.min_gap_seconds * 1000)
        assert [word for cue in cues for word in cue.plaintext.split()] == [one.text for one in spans]
        assert all(after.start - before.end >= gap for before, after in pairwise(cues))
        for cue, after in zip(cues, [*cues[1:], None], strict=False):
            lines = cue.plaintext.split("\n")
            assert 1 <= len(lines) <= rules.max_lines
            assert all(0 < len(line) <= rules.max_chars for line in lines)
            assert 0 < cue.duration <= round(rules.max_seconds * 1000)
            is_bounded = (after and after.start - cue.end == gap) or cue.duration == round(rules.max_seconds * 1000)
            chars = len(cue.plaintext)
            assert is_bounded or cue.duration >= round(rules.min_seconds * 1000)
            assert is_bounded or chars * 1000 <= math.ceil(cue.duration * rules.max_chars_per_second)


JOINED = [*spoken("no.", 0.2), *spoken("we did not see that.", 0.3, start=0.3)]
PAUSED = [
    *spoken("when it rained all day", 0.3),
    *spoken("the quick brown foxes stayed at home", 0.3, start=1.9),
]
LATER = [*spoken("so it is done, all of it. And then it was"), *spoken("later", start=6.0)]
RIVER = "we walked along the river until the evening came, and then somebody from the village called us back home"
CUES = {
    "a line ends after a clause": (
        spoken("when it rained all day, the quick brown foxes stayed at home"),
        Rules(),
        [(0, 4800, "when it rained all day,|the quick brown foxes stayed at home")],
    ),
    "a line ends at a pause": (
        PAUSED,
        Rules(),
        [(0, 4000, "when it rained all day|the quick brown foxes stayed at home")],
    ),
    "a cue ends after a clause": (
        spoken(RIVER, 0.35),
        Rules(),
        [
            (0, 3067, "we walked along the river|until the evening came,"),
            (3150, 6650, "and then somebody from the|village called us back home"),
        ],
    ),
    "a pause and the end of a sentence end a cue": (
        LATER,
        Rules(),
        [(0, 2717, "so it is done, all of it."), (2800, 4400, "And then it was"), (6000, 6833, "later")],
    ),
    "a cue that would be too short is joined": (JOINED, Rules(), [(0, 1800, "no. we did not see that.")]),
    "a cue is shown until it is read": (spoken("a" * 34, 0.5), Rules(), [(0, 2000, "a" * 34)]),
    "a gap that would be a flash is closed": (
        [Span("a" * 30 + ".", 0.0, 2.0, 1.0), Span("b", 2.4, 4.0, 1.0)],
        Rules(),
        [(0, 2317, "a" * 30 + "."), (2400, 4000, "b")],
    ),
    "speakers": (
        [Span("no.", 0.0, 0.2, 1.0, "a"), Span("yes", 0.5, 0.7, 1.0, "b")],
        Rules(),
        [(0, 417, "no."), (500, 1333, "yes")],
    ),
}


@pytest.mark.parametrize("case", CUES)
def test_cues_have_their_times_and_lines(case):
    said, rules, expected = CUES[case]
    assert [(cue.start, cue.end, "|".join(cue.lines)) for cue in cues_of(said, rules)] == expected
