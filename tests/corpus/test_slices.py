"""Slices and pieces of sources: folders and manifests that change, groups of rows, and many shards at once."""

import contextlib
import json
import logging
import signal
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raysp
from raysp.corpus import archive, folders, manifests, sources, tars
from raysp.corpus.shards import (
    LEAST_SECONDS,
    Group,
    Piece,
    Shard,
    Survey,
    cut_groups,
)
from raysp.corpus.surveys import Reading, survey_all
from raysp.storage.ranged import open_ranged
from raysp.storage.store import Entry
from tests.corpora import a_pipeline, rows_table, write_shard, write_tar

MOST = 10_000
"""Files or lines of a slice."""


def entries(paths):
    return [Entry(path, 10, "1") for path in sorted(paths)]


def test_files_of_a_folder_keep_their_slices_and_new_ones_make_new_slices():
    draw = Random(0)
    for number in (3, 12_000):
        first = {f"{draw.randrange(10 * number):06}é" for _ in range(number)}
        gone = {path for path in first if draw.random() < 0.1}
        new = {f"{draw.randrange(10 * number):06}é" for _ in range(number)}
        parts = folders.cut(entries(first), [])
        later = folders.cut(entries((first - gone) | new), parts)
        assert later[: len(parts)] == parts
        assert [path for part in parts for path, _, _ in folders.unpack(part)] == sorted(first)
        assert [path for part in later[len(parts) :] for path, _, _ in folders.unpack(part)] == sorted(new - first)
        assert all(0 < len(folders.unpack(part)) <= MOST for part in later)
    assert max(map(len, later)) < 200_000  # bytes in which ten thousand files are recorded


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def slices_of(path: Path, slices: list) -> list[Shard]:
    """Return the shards of slices of a manifest."""
    made = []
    for one in slices:
        found = sources.survey("manifest", str(path), one.part)
        pieces = cut_groups(found.groups)
        made.append(Shard("x", str(path), 1, one.digest, found.num_rows, "i", pieces, "manifest", one.part))
    return made


def numbers_of(shards: list[Shard]) -> list[list[int]]:
    """Return the numbers of the lines of each slice."""
    return [
        sources.read_table(shard, Piece(0, shard.num_rows), ["n"])["n"].to_pylist() if shard.num_rows else []
        for shard in shards
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_manifest_is_cut_again_behind_the_slices_that_did_not_change(tmp_path, seed):
    draw, path = Random(seed), tmp_path / "m.jsonl"
    rows = [{"audio_filepath": "x.wav", "n": n} for n in range(draw.choice([1, 4_000, MOST, 25_000]))]
    after = list(rows)
    for _ in range(draw.randint(1, 3)):
        place = draw.randint(0, len(after))
        new = [{"audio_filepath": "x.wav", "n": draw.randrange(99)}] * draw.randint(0, 3)
        after[place : place + draw.choice([0, 1, 12_000])] = new
    write_lines(path, rows)
    first = slices_of(path, manifests.cut(str(path), ()))
    assert [shard.num_rows for shard in first[:-1]] == [MOST] * (len(first) - 1)
    write_lines(path, after)
    parts, digests = [shard.part for shard in first], [shard.version for shard in first]
    second = slices_of(path, manifests.cut(str(path), parts, None, digests))
    assert [n for part in numbers_of(second) for n in part] == [row["n"] for row in after]
    ends = range(MOST, len(rows) + 1, MOST)
    same = next((k for k, end in enumerate(ends) if rows[end - MOST : end] != after[end - MOST : end]), len(ends))
    assert second[:same] == first[:same]
    assert len(second) >= len(first)


def test_a_slice_of_a_manifest_ends_early_where_lines_are_long(tmp_path):
    """At 64 MB."""
    write_lines(tmp_path / "m.jsonl", [{"audio_filepath": f"{n}.wav", "x": "-" * 15_000_000} for n in range(6)])
    shards = raysp.plan(a_pipeline(f"{tmp_path}/m.jsonl", tmp_path / "out")).corpus.shards
    assert [shard.num_rows for shard in shards] == [5, 1]


def test_headers_of_large_members_of_a_tar_file_are_read_in_few_bytes(tmp_path):
    data = write_tar(tmp_path / "x.tar", [(f"{n}.wav", bytes(3_000_000)) for n in range(4)]).read_bytes()
    fetched = []
    file = open_ranged(len(data), lambda start, end: fetched.append(end - start) or data[start:end])
    opened = archive.ArchiveFile("x.tar", file, may_jump=False)
    assert tars.read_layout(opened, tars.samples_of(opened), tars.values_of).num_rows == 4
    assert sum(fetched) < len(data) / 10


HOUR = 3600.0


@given(
    st.lists(st.builds(Group, st.integers(0, 3000), st.sampled_from([0, 10**6, 10**9]), st.floats(0.0, 4 * HOUR))),
    st.floats(LEAST_SECONDS, 2 * HOUR),
    st.sampled_from([100, 5000]),
)
def test_pieces_cover_every_row_once(groups, seconds, most_rows):
    pieces = cut_groups(groups, seconds, most_rows)
    assert [piece.first for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert sum(piece.num_rows for piece in pieces) == sum(group.num_rows for group in groups)
    assert all(0 < piece.num_rows <= most_rows for piece in pieces)


# Surveys of many shards ----------------------------------------------------------------------------------------------

NUM_SHARDS, WORTH_PROCESSES = 20, 5_000
COLUMNS = Reading({"key": "a", "secret": "never shown"}, ("audio", "id"))


class Target(NamedTuple):
    kind: str
    url: str
    part: str = ""


@pytest.fixture
def targets(tmp_path) -> list[Target]:
    """A few shards of two schemas, with row groups and without rows, of which some cannot be read; most are missing."""
    small = rows_table(3)
    kinds = [small, small.drop_columns("text"), rows_table(40, audio=bytes(10)), small.slice(0, 0)]
    found = []
    for number in range(NUM_SHARDS):
        place = tmp_path / f"{number:03}.parquet"
        if number % 5 == 4:
            place.write_bytes(b"PAR1 cut short")
        elif number % 3:
            write_shard(place, table=kinds[number % 4], row_group_size=16)
        found.append(Target("parquet", str(place)))
    return found


def surveyors() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "raysp.corpus.survey_process" in one.cmdline()]


def test_processes_survey_many_shards_as_this_one_does_also_if_one_is_killed(targets, caplog):
    few = list(survey_all(targets, COLUMNS, processes=8))
    assert len({one.schema for one in few if isinstance(one, Survey)}) == 2
    assert surveyors() == []
    times, found = 1 + WORTH_PROCESSES // NUM_SHARDS, []
    with contextlib.closing(survey_all(targets * times, COLUMNS, processes=2)) as surveyed:
        found.append(next(surveyed))
        first, other = started = surveyors()
        shown = [Path(f"/proc/{one.pid}/{name}").read_bytes() for one in started for name in ("cmdline", "environ")]
        first.kill()
        found += surveyed
    assert found == few * times
    assert not any(b"never shown" in one for one in shown)
    assert not other.is_running()
    [warning] = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert f"ended with signal {signal.SIGKILL.name}" in warning


def test_processes_end_when_no_more_surveys_are_wanted(targets):
    surveyed = survey_all(targets * (1 + WORTH_PROCESSES // NUM_SHARDS), COLUMNS, processes=2)
    next(surveyed)
    assert len(surveyors()) == 2
    with pytest.raises(KeyboardInterrupt):
        surveyed.throw(KeyboardInterrupt)
    assert surveyors() == []
