"""Benchmarks: their corpora, their checks of what they compare, and their commands in the documents."""

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from benchmarks import __main__ as command
from benchmarks import models, scale, throughput
from benchmarks.inputs import corpus


@pytest.mark.parametrize("kind", corpus.KINDS)
def test_a_recording_is_the_utterances_of_its_reference_with_gaps_between_them_and_follows_from_a_seed(
    tmp_path: Path, kind: str
) -> None:
    utterances = {one.id: one for speaker in corpus.read_utterances(corpus.DEMO_DIGITS).values() for one in speaker}
    shards, again, other = (
        corpus.build(tmp_path / name, kind, minutes=0.5, seed=seed, shards=2)
        for name, seed in {"a": 3, "b": 3, "c": 4}.items()
    )
    contents = [[shard.read_bytes() for shard in found] for found in (shards, again, other)]
    assert contents[0] == contents[1] != contents[2]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        parts = [utterances[name] for name in row["parts"]]
        assert row["text"].split() == [one.text for one in parts]
        assert row["duration"] == len(samples) / rate
        start, gap = 0, round(corpus.GAP_SECONDS * rate)
        for one in parts:
            np.testing.assert_array_equal(samples[start : start + len(one.samples)], one.samples)
            start += len(one.samples) + gap
        assert start - gap == len(samples)
    assert len({row["id"] for row in rows}) == len(rows)


def test_labels_that_differ_in_a_letter_stop_the_measurement() -> None:
    throughput.check_agreement({"a": "ONE"}, {"a": "ONE"})
    with pytest.raises(SystemExit, match="1 of 2 labels differ"):
        throughput.check_agreement({"a": "ONE", "b": "TWO"}, {"a": "ONE", "b": "TWQ"})


@pytest.mark.drivers
def test_every_model_to_measure_is_one_of_both_libraries() -> None:
    import transformers

    import raysp.models

    assert len({case.name for case in models.CASES}) == len(models.CASES)
    for case in models.CASES:
        assert case.model in raysp.models.__all__
        getattr(transformers, case.model).config_class(**case.flags)
        [inputs] = case.inputs(2, 0.5).values()
        assert inputs.shape[:2] in {(2, 8000), (2, 50), (2, 25)}


@pytest.mark.drivers
@pytest.mark.slow
def test_a_sink_of_many_shards_is_planned_resumed_and_shown_by_a_few_requests() -> None:
    rows = {row["part"]: row for row in scale.measure(40)}
    assert rows["first plan"]["GET"] == 40
    others = [row for part, row in rows.items() if part != "first plan"]
    assert max(row["GET"] + row["HEAD"] + row["LIST"] + row["PUT"] for row in others) < 30


DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page: page.read_text() for page in (*sorted(DOCS.rglob("*.md")), DOCS.parent / "README.md")}
COMMANDS = sorted(
    {
        " ".join(shlex.split(found[1], comments=True))
        for text in PAGES.values()
        for found in re.finditer(r"python3? -m benchmarks((?: [^`\n]*)?)", text)
    }
)


@pytest.mark.slow
def test_every_command_of_docs_is_a_part_that_is_listed_with_options_that_it_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit, match=r"^0$"):
            command.main([*words])
        return capsys.readouterr().out

    assert [line.split()[0] for line in said().splitlines() if line.startswith("  ")] == [*command.PARTS]
    assert all(command.summary(name).endswith("?") for name in command.MEASUREMENTS.values())
    assert len(COMMANDS) > 12
    assert {line.split()[0] for line in COMMANDS if line and not line.startswith("-")} <= {*command.PARTS}
    for part in command.PARTS:
        options = {*re.findall(r"--[a-z][a-z-]*", said(part, "--help"))}
        given = [words for line in COMMANDS if (words := line.split()) and words[0] == part]
        assert {word for words in given for word in words if word.startswith("--")} <= options, part
    with pytest.raises(SystemExit, match="benchmarks parts: no such part"):
        command.main(["parts"])
