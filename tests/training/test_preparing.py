"""Rows that are trained on and rows that are left out; the vocabulary; what a training refuses before it begins."""

import json

import numpy as np
import pyarrow as pa
import pytest

import raysp
from raysp import Batching, CheckpointError, PlanError, Speakers, Text, finetune
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


def test_a_filter_by_an_added_column_leaves_rows_out(words, tiny, tmp_path):
    steps = [
        raysp.Decode(),
        raysp.Map(upper_half, adds={"half": "int32"}, reads=["text"]),
        raysp.Keep(where=[("half", "==", 2)]),
    ]
    found = planned(a_recipe(words, tiny, tmp_path / "out", steps=steps))
    assert found["left_out"] == {"filtered": 11}  # one, two, six
    assert found["rows_trained"] == 19


def test_durations_are_those_of_the_recordings(words, tiny, tmp_path):
    found = planned(a_recipe(words, tiny, tmp_path / "out"))
    lengths = [np.random.default_rng(seed).integers(4800, 11_200, rows) for seed, rows in ((0, 18), (100, 12))]
    assert found["audio_seconds"] == pytest.approx(np.concatenate(lengths).sum() / 16_000, abs=1e-5)
    longest = np.concatenate(lengths).max() / 16_000
    for least, rows in ((longest - 1e-6, 1), (longest + 1e-6, 0)):
        steps = [raysp.Decode(), raysp.Keep(min_seconds=0.0), raysp.Keep(min_seconds=least)]
        recipe = a_recipe(words, tiny, tmp_path / "out", steps=steps)
        if rows:
            assert planned(recipe)["rows_trained"] == rows
        else:
            with pytest.raises(PlanError, match="no row is left"):
                finetune(recipe)


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


def test_facts_say_what_is_trained_on(odd, tiny, tmp_path):
    recipe = a_recipe(odd, tiny, tmp_path / "out", objective={"vocabulary": "keep"})
    facts = planned(recipe).facts
    assert facts["rows"].startswith("3 rows, 0:04 of audio; left out: ")
    assert facts["characters"] == "29 tokens; outside: '!' (1), 'ß' (1), 'ö' (1)"
    assert facts["epoch"].startswith("1 step of 3 rows on average, padding efficiency ")


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"steps": [raysp.Decode(0.1)]}, PlanError, r"no row is left to train on: 30 rows, left out: 30 too_long"),
        ({"pool": raysp.Pool(4)}, PlanError, r"pool.actors=4: a step has 2 micro-batches, .*; lower pool.actors"),
        ({"source": "words"}, PlanError, "words"),
        ({"device": "cuda"}, PlanError, "device='cuda': found no GPU on this machine; set device='cpu'"),
    ],
)
def test_what_cannot_begin_is_refused(words, tiny, tmp_path, fields, error, message):
    fields = {**fields}
    if "source" in fields:
        fields["source"] = raysp.Shards(words, text=str(fields["source"]))
    recipe = a_recipe(words, tiny, tmp_path / "out", **fields)
    with pytest.raises(error, match=message):
        raysp.estimate(recipe)


def test_fewer_rows_than_workers_are_refused(tiny, tmp_path):
    url = write_words(tmp_path / "few", 2)
    batching = Batching(seconds=6, micro_batches=3)
    recipe = a_recipe(url, tiny, tmp_path / "out", pool=raysp.Pool(3, cpus=1), batching=batching)
    with pytest.raises(PlanError, match=r"2 rows to train on, and 3 workers: lower pool.actors"):
        raysp.estimate(recipe)


def test_a_vocabulary_is_kept_only_from_a_head(words, headless, tmp_path):
    with pytest.raises(CheckpointError, match="UniSpeechModel has no CTC head whose vocabulary could be kept"):
        finetune(a_recipe(words, headless, tmp_path / "out", objective={"vocabulary": "keep"}))


def test_a_column_of_numbers_is_no_text(tiny, tmp_path):
    table = words_table(3).set_column(2, "text", pa.array([1, 2, 3]))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    expected = r"column 'text' holds int64, expected strings: source.text holds the texts of rows; set it to a column"
    with pytest.raises(PlanError, match=expected):
        finetune(a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out"))


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


@pytest.mark.parametrize(
    "steps",
    [
        [raysp.Decode(150)],
        [raysp.Decode(), raysp.Keep(max_seconds=150)],
        [raysp.Decode(), raysp.Keep(min_seconds=0.1), raysp.Keep(max_seconds=400)],
    ],
)
def test_a_limit_of_the_recipe_takes_the_place_of_the_default_one(with_a_long_row, tiny, tmp_path, steps):
    indexed(a_recipe(with_a_long_row, tiny, tmp_path / "out", steps=[raysp.Decode()]))
    found = planned(a_recipe(with_a_long_row, tiny, tmp_path / "out", steps=steps))  # not by that index
    assert (found["rows_trained"], found["audio_seconds"], found["left_out"]) == (3, 241.5, {})
    assert "longest row" not in found.facts


def test_an_objective_that_cuts_rows_has_no_default_limit(with_a_long_row, tiny, tmp_path):
    recipe = a_recipe(with_a_long_row, tiny, tmp_path / "out")
    assert not recipe.limits_rows
    assert recipe.longest_seconds == 120
    speakers = a_recipe(with_a_long_row, tiny, tmp_path / "out", objective=Speakers(str(tiny), column="id"))
    assert speakers.limits_rows
    assert speakers.longest_seconds == raysp.Decode().max_seconds


def test_a_corpus_of_long_rows_alone_is_refused_with_the_limit(tiny, tmp_path):
    recordings = pa.array([{"bytes": wav(16_000 * 121), "path": None}], AUDIO)
    table = pa.table({"id": ["a"], "audio": recordings, "text": ["six"]})
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    with pytest.raises(PlanError, match=r"no row is left .* 1 too_long \(above 120 s; Decode\(max_seconds=\.\.\.\)"):
        finetune(a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SIX", r"outside: 'I' \(1\), 'S' \(1\), 'X' \(1\); text=raysp\.Text\('lower'\) brings them into it$"),
        ("Größe", r"left out: 1 outside_vocabulary; characters: 29 tokens; outside: 'G' \(1\), 'ß' \(1\), 'ö' \(1\)$"),
    ],
)
def test_characters_outside_the_vocabulary_are_named_where_no_row_is_left(tmp_path, tiny, text, message):
    recordings = pa.array([{"bytes": wav(8000), "path": None}], AUDIO)
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": ["a"], "audio": recordings, "text": [text]}))
    objective = {"vocabulary": "keep", "text": Text()}
    with pytest.raises(PlanError, match=message):
        finetune(a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", objective=objective))
