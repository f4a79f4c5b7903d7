import io
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import benchmarks
from benchmarks import __main__ as command
from benchmarks import models, recognisers, scale, throughput, timing, whole
from benchmarks.inputs import checkpoints, corpus
from benchmarks.programs import systems


@pytest.fixture(scope="module")
def utterances() -> dict[str, corpus.Utterance]:
    return {one.id: one for speaker in corpus.read_utterances(corpus.DEMO_DIGITS).values() for one in speaker}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    def built(name: str, seed: int) -> list[bytes]:
        shards = corpus.build(tmp_path / name, "test-like", minutes=0.5, seed=seed, shards=2)
        return [shard.read_bytes() for shard in shards]

    first = built("a", 1)
    assert len(first) == 2
    assert built("b", 1) == first
    assert built("c", 2) != first


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_a_recording_is_the_utterances_of_its_reference_with_gaps_between_them(
    tmp_path: Path, kind: str, utterances: dict[str, corpus.Utterance]
) -> None:
    shards = corpus.build(tmp_path, kind, minutes=1, seed=3, shards=2)
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        parts = [utterances[name] for name in row["parts"]]
        gap = round(corpus.GAP_SECONDS * rate)
        assert row["text"].split() == [one.text for one in parts]
        assert row["duration"] == len(samples) / rate
        start = 0
        for one in parts:
            np.testing.assert_array_equal(samples[start : start + len(one.samples)], one.samples)
            start += len(one.samples) + gap
        assert start - gap == len(samples)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("kind", "low", "high", "mean"), [("train-like", 1, 35, 12.3), ("test-like", 1, 35, 7.0), ("equal", 10, 10, 10)]
)
def test_durations_have_the_range_and_the_mean_of_their_kind(kind: str, low: float, high: float, mean: float) -> None:
    seconds = corpus.target_seconds(kind, np.random.default_rng(0), 100_000)
    assert low <= min(seconds)
    assert max(seconds) <= high
    assert np.mean(seconds) == pytest.approx(mean, rel=0.03)


def test_the_steady_state_is_between_a_tenth_and_nine_tenths_of_the_audio() -> None:
    blocks = [
        {"finished": 10.0, "busy_seconds": 10.0, "audio_seconds": 50.0},
        {"finished": 30.0, "busy_seconds": 10.0, "audio_seconds": 50.0},
    ]
    assert throughput.steady_window(blocks) == pytest.approx((2.0, 28.0))


def test_labels_that_differ_in_a_letter_stop_the_measurement() -> None:
    throughput.check_agreement({"a": "ONE"}, {"a": "ONE"})
    with pytest.raises(SystemExit, match="1 of 2 labels differ"):
        throughput.check_agreement({"a": "ONE", "b": "TWO"}, {"a": "ONE", "b": "TWQ"})


def test_every_model_to_measure_is_one_of_both_libraries() -> None:
    import transformers

    import raysp.models

    assert len({case.name for case in models.CASES}) == len(models.CASES)
    for case in models.CASES:
        assert case.model in raysp.models.__all__
        getattr(transformers, case.model).config_class(**case.flags)
        [inputs] = case.inputs(2, 0.5).values()
        assert inputs.shape[:2] in {(2, 8000), (2, 50), (2, 25)}


THEIRS, OURS = ((2, 4), (9, 4), (4, 4)), ((2, 3), (1, 3), (8, 9))


def test_a_ratio_is_that_of_medians_and_a_low_one_is_marked() -> None:
    theirs, ours = (timing.median([timing.Taken(*one) for one in times]) for times in (THEIRS, OURS))
    row = models.row(models.Measured("x", 1, 1.5, theirs, ours))
    assert (row["ratio"], row["CPU ratio"], row[""]) == ("2.00", "1.33", "below its floor")


def test_ways_run_in_turn_and_those_of_warming_up_do_not_count() -> None:
    called = []
    ways = {name: lambda name=name: called.append(name) or len(called) for name in "ab"}
    assert timing.in_turn(ways, 2, warm_up=1) == {"a": [3, 5], "b": [4, 6]}
    assert called == ["a", "b"] * 3


def test_whole_jobs_are_compared_within_each_repeat() -> None:
    def job(system: str, seconds: float, model: float | None = None, text: str = "ONE") -> whole.Whole:
        return whole.Whole(system, seconds, model, {"a": text, "b": "TWO"})

    jobs = {"S0": [job("S0", 6, 4), job("S0", 8, 6)], "S4": [job("S4", 10, 5, "WON"), job("S4", 8, 5, "WON")]}
    found = whole.row("test-like", 4.0, jobs)
    assert (found["S0 model / S4"], found["S0 whole / S4"]) == ("0.57 (0.40-0.75)", "0.80 (0.60-1.00)")
    assert found["S4 whole s"] == "9.0 (8.0-10.0)"
    assert found["S4 model s"] == "5.0 (5.0-5.0)"
    assert "S1 whole s" not in found
    costs = whole.system_rows("test-like", jobs, {"a": "one", "b": "two"})
    assert [(one["system"], one["texts as S0"], one["WER"]) for one in costs] == [
        ("S0", "1.000", "0.00%"),
        ("S4", "0.500", "50.00%"),
    ]


@pytest.mark.soak
@pytest.mark.slow
def test_other_programs_give_the_texts_of_the_bare_model_where_they_pad_nothing(tmp_path) -> None:
    corpus.build(tmp_path, "equal", minutes=0.5, seed=0, shards=1)
    shards = f"{tmp_path}/*.parquet"
    bare = whole.job("S0", checkpoints.BUNDLED, shards)
    for system in ("S1", "S2"):
        found = whole.job(system, checkpoints.BUNDLED, shards)
        assert found.texts == bare.texts
        assert found.peak_gigabytes > 0.1


def test_windows_of_a_recording_are_joined_in_their_order(tmp_path) -> None:
    table = pa.table({"id": ["a", "b", "a", "a"], "number": [2, 0, 0, 1], "text": ["C", "D", "A", ""]})
    pq.write_table(table, tmp_path / "0.parquet")
    assert systems.program_texts(tmp_path) == {"a": "A C", "b": "D"}


@pytest.mark.drivers
@pytest.mark.slow
def test_a_sink_of_many_shards_is_planned_resumed_and_shown_by_a_few_requests() -> None:
    rows = {row["part"]: row for row in scale.measure(40)}
    assert rows["first plan"]["GET"] == 40
    others = [row for part, row in rows.items() if part != "first plan"]
    assert max(row["GET"] + row["HEAD"] + row["LIST"] + row["PUT"] for row in others) < 30


def test_starts_of_correct_words_are_compared_with_those_of_the_joined_sentences(tmp_path) -> None:
    parts = [
        {"utterance": "a.flac", "start": 0.0, "text": "one two"},
        {"utterance": "b.flac", "start": 5.0, "text": "well-known words"},
    ]
    joined = {"audio_filepath": str(tmp_path / "joined.flac"), "text": "one two well known words", "segments": parts}
    heard = [("One,", 0.25), ("too", 1.0), ("well-known", 5.5), ("words.", 7.0)]
    labels = {
        "joined.flac": {
            "text": "One, too well-known words.",
            "words": [{"word": word, "start": start} for word, start in heard],
        }
    }
    starts = {"a.flac": [0.5, 1.5], "b.flac": [0.25, 0.75, 1.5]}
    rate, distances = recognisers.errors([joined], labels, starts)
    assert rate == pytest.approx(1 / 5)
    assert distances == pytest.approx([0.25, 0.25, 0.5])  # without "two", and the start of "known", which is not given
    _, none = recognisers.errors([joined], labels, {})
    assert none == []


DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page: page.read_text() for page in (*sorted(DOCS.rglob("*.md")), DOCS.parent / "README.md")}
COMMANDS = sorted(
    {
        " ".join(shlex.split(found[1], comments=True))
        for text in PAGES.values()
        for found in re.finditer(r"python3? -m benchmarks((?: [^`\n]*)?)", text)
    }
)


def test_each_module_at_the_top_answers_a_question() -> None:
    helpers = {"__init__", "__main__", "tables", "timing"}
    names = {path.stem for path in Path(benchmarks.__file__).parent.glob("*.py")} - helpers
    assert names == {*command.MEASUREMENTS.values()}
    for name in names:
        assert command.summary(name).endswith("?"), name


def test_the_command_alone_lists_its_parts_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main([])
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ")] == [*command.PARTS]
    with pytest.raises(SystemExit, match="benchmarks parts: no such part"):
        command.main(["parts"])


@pytest.mark.slow
@pytest.mark.parametrize("part", command.PARTS)
def test_every_command_of_docs_has_options_that_its_part_has(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [words for line in COMMANDS if (words := line.split()) and words[0] == part]
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main([part, "--help"])
    options = {*re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)}
    used = {word for words in given for word in words if word.startswith("--")}
    assert used <= options


def test_every_command_of_docs_is_a_part() -> None:
    assert len(COMMANDS) > 12
    named = {line.split()[0] for line in COMMANDS if line and not line.startswith("-")}
    assert named <= {*command.PARTS}
