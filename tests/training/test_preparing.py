"""Rows that are trained on and rows that are left out; the vocabulary; what a training refuses before it begins."""

import pyarrow as pa
import pytest

import raysp
from raysp import Text
from raysp.models import TextTokenizer
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training.objectives.originals import save_decoder
from tests.training.trained import planned

ROWS = [
    ("kept", wav(8000), "six", "en"),
    ("empty", wav(8000), " !", "en"),
    ("null", wav(8000), None, "en"),
    ("outside", wav(8000), "größe", "en"),
    ("many", wav(1200), "zoo", "en"),  # three frames, and a blank between the equal letters
    ("short", wav(200), "a", "en"),
    ("long", wav(48_000), "six", "en"),
    ("german", wav(8000), "sechs", "de"),
    ("noise", b"RIFF, but not audio", "six", "en"),
    ("nothing", None, "six", "en"),
]
STEPS = [raysp.Keep(where=[("language", "==", "en")]), raysp.Decode(2), raysp.Keep(min_seconds=0.01)]


@pytest.fixture
def odd(tmp_path) -> str:
    """A shard with a row for each reason."""
    names, recordings, texts, languages = zip(*ROWS, strict=True)
    table = pa.table(
        {
            "id": names,
            "audio": pa.array([{"bytes": one, "path": None} for one in recordings], AUDIO),
            "text": texts,
            "language": languages,
        }
    )
    write_shard(tmp_path / "odd" / "a.parquet", table=table, row_group_size=4)
    return f"{tmp_path}/odd/*.parquet"


def upper_half(rows):
    return {"half": [len(text or "") // 2 for text in rows.column("text").to_pylist()]}


@pytest.mark.parametrize("late", [False, True], ids=["by headers", "decoded for a step"])
def test_every_row_that_is_left_out_has_a_reason(odd, tiny, tmp_path, late):
    mapped = [raysp.Map(upper_half, adds={"half": "int32"}, reads=["text"])] if late else []
    recipe = a_recipe(
        odd,
        tiny,
        tmp_path / "out",
        steps=[*STEPS, *mapped],
        objective={"vocabulary": "keep", "text": Text(keep="letters")},
    )
    found = planned(recipe)
    assert (found["rows"], found["rows_trained"], found["audio_seconds"]) == (10, 1, 0.5)
    assert found["left_out"] == {
        "empty_text": 2,
        "outside_vocabulary": 1,
        "label_too_long": 1,
        "too_short": 1,
        "too_long": 1,
        "filtered": 1,
        "unsupported_format": 1,
        "no_audio": 1,
    }


@pytest.mark.parametrize("vocabulary", ["build", "keep"])
def test_a_text_with_a_token_that_has_a_meaning_of_its_own_is_left_out(tiny, tmp_path, vocabulary):
    texts = ["a|b", "a | b", "<pad>", "a <unk>", "ab b a"]
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(len(texts), texts=texts))
    found = planned(a_recipe(f"{tmp_path}/in", tiny, tmp_path / "out", objective={"vocabulary": vocabulary}))
    assert (found["rows_trained"], found["left_out"]) == (1, {"outside_vocabulary": 4})


@pytest.mark.parametrize(("fastest", "left_out"), [(1.0, {}), (1.2, {"too_short": 1})])
def test_a_row_that_is_too_short_at_the_highest_speed_is_left_out(tiny, tmp_path, fastest, left_out):
    table = words_table(8, texts=["e"] * 8)
    audio = [{"bytes": wav(420), "path": None}, *table["audio"].to_pylist()[1:]]
    write_shard(tmp_path / "in" / "a.parquet", table=table.set_column(1, "audio", pa.array(audio, AUDIO)))
    recipe = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", augment=[raysp.Speed((0.9, fastest))])
    assert planned(recipe)["left_out"] == left_out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2", "bart"])
def test_a_text_with_a_special_token_of_the_decoder_is_left_out(headless, tmp_path, kind):
    decoder = save_decoder(kind, tmp_path / "decoder")
    special = TextTokenizer.from_pretrained(decoder).all_special_tokens
    texts = [*(f"the {token} cat" for token in special), "the cat"]
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(len(texts), texts=texts))
    objective = raysp.Seq2Seq(str(headless), decoder=str(decoder))
    found = planned(a_recipe(f"{tmp_path}/in/*.parquet", headless, tmp_path / "out", objective=objective))
    assert special
    assert (found["rows_trained"], found["left_out"]) == (1, {"outside_vocabulary": len(special)})


def test_a_shard_without_rows_and_one_that_cannot_be_read(tiny, tmp_path):
    url = write_words(tmp_path / "in", 12)
    write_shard(tmp_path / "in" / "none.parquet", table=words_table(3).slice(0, 0))
    (tmp_path / "in" / "zz.parquet").write_bytes(b"PAR1 not really")
    found = planned(a_recipe(url, tiny, tmp_path / "out"))
    assert found["rows_trained"] == 12
    assert [*found["shards_unreadable"]] == ["zz.parquet"]
