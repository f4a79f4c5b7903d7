"""Rows that are trained on and rows that are left out; the vocabulary; what a training refuses before it begins."""

import json

import pyarrow as pa
import pytest

import raysp
from raysp import Text
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training.trained import indexed, planned

ROWS = [
    ("kept", wav(8000), "six", "en"),
    ("empty", wav(8000), " !", "en"),
    ("null", wav(8000), None, "en"),
    ("outside", wav(8000), "größe", "en"),
    ("many", wav(1600), "seven", "en"),
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


def test_durations_of_a_manifest_are_used_without_reading_audio(tiny, tmp_path):
    rows = [{"audio_filepath": f"missing-{n}.wav", "duration": 0.5 + n, "text": "six"} for n in range(3)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = a_recipe(str(tmp_path / "m.jsonl"), tiny, tmp_path / "out")
    found = planned(recipe)
    assert (found["rows_trained"], found["audio_seconds"], found["left_out"]) == (3, 4.5, {})


def test_an_index_is_made_once_for_a_shard_and_a_recipe(words, tiny, tmp_path):
    recipe = a_recipe(words, tiny, tmp_path / "out")
    assert indexed(recipe) == [(0, 2), (1, 2)]
    file = tmp_path / "out" / ".raysp" / "index" / "source.parquet"
    written = file.stat().st_mtime_ns
    assert indexed(recipe) == []
    assert file.stat().st_mtime_ns == written
    other = a_recipe(words, tiny, tmp_path / "out", objective={"text": Text("upper")})
    assert planned(other)["vocabulary"].keys() >= {*"SIX"}
    assert indexed(other, restart=True) == [(0, 2), (1, 2)]


@pytest.mark.slow
def test_a_vocabulary_is_built_from_the_texts_by_their_rules(words, headless, tmp_path):
    found = planned(a_recipe(words, headless, tmp_path / "out", objective={"text": Text("upper")}))
    assert [*found["vocabulary"]] == ["<pad>", "<unk>", "|", *"EFGHINORSTUVWXZ"]


def test_a_shard_without_rows_and_one_that_cannot_be_read(tiny, tmp_path):
    url = write_words(tmp_path / "in", 12)
    write_shard(tmp_path / "in" / "none.parquet", table=words_table(3).slice(0, 0))
    (tmp_path / "in" / "zz.parquet").write_bytes(b"PAR1 not really")
    found = planned(a_recipe(url, tiny, tmp_path / "out"))
    assert found["rows_trained"] == 12
    assert [*found["shards_unreadable"]] == ["zz.parquet"]


@pytest.fixture(scope="module")
def with_a_long_row(tmp_path_factory) -> str:
    """A shard with rows of 0.5 s, 120 s and 121 s."""
    folder = tmp_path_factory.mktemp("long")
    recordings = [{"bytes": wav(round(16_000 * seconds)), "path": None} for seconds in (0.5, 120, 121)]
    table = pa.table({"id": ["a", "b", "c"], "audio": pa.array(recordings, AUDIO), "text": ["six", "six", "six"]})
    write_shard(folder / "a.parquet", table=table)
    return f"{folder}/*.parquet"


@pytest.mark.parametrize("late", [False, True], ids=["by headers", "decoded for a step"])
def test_rows_above_the_default_limit_are_left_out_and_counted(with_a_long_row, tiny, tmp_path, late):
    mapped = [raysp.Map(upper_half, adds={"half": "int32"}, reads=["text"])] if late else []
    recipe = a_recipe(with_a_long_row, tiny, tmp_path / "out", steps=[raysp.Decode(), *mapped])
    found = planned(recipe)
    assert (found["rows_trained"], found["audio_seconds"]) == (2, 120.5)
    assert found["left_out"] == {"too_long": 1}
    assert found.facts["longest row"] == "120 s, by default"
    assert "left out: 1 too_long (above 120 s; Decode(max_seconds=...) changes it)" in found.facts["rows"]
