"""Subtitles beside the recordings of a folder: named as these, and no file of others is replaced."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, SpecError
from tests import kit
from tests.by_promise.export.sinks import WORDS, content, make_folder_sink, make_sink, with_errors
from tests.corpora import a_pipeline
from tests.exports import export_to

NAMES = ["interviews/rec 48.wav", "interviews/what?.wav", "x.wav", "x.flac", "Zoë: day 2.wav", "a" * 240 + ".wav"]
SRT = [
    "interviews/rec 48.srt",
    "interviews/what?.srt",
    "x.srt",
    "x~5.srt",
    "Zoë: day 2.srt",
    "a" * 240 + ".srt",
]
MINE = b"1\n00:00:00,000 --> 00:00:01,000\nwritten by hand\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder `whole` of recordings `in` and their labels `out`, and a copy of it."""
    folder = tmp_path_factory.mktemp("beside")
    make_folder_sink(folder / "whole", NAMES)
    shutil.copytree(folder / "whole", folder / "copy")
    return folder


@pytest.fixture
def folder(made) -> Iterator[Path]:
    """The recordings and their labels, which each test has as they were made."""
    yield made / "whole"
    shutil.rmtree(made / "whole")
    shutil.copytree(made / "copy", made / "whole")


def beside(folder: Path, **options: object) -> Any:
    return export_to("srt", f"{folder}/out", beside=True, **{"trust": True, **options})


def subtitles(folder: Path, suffix: str = ".srt") -> dict[str, bytes]:
    return {name: data for name, data in content(folder / "in").items() if Path(name).suffix == suffix}


def test_a_file_that_no_export_wrote_stays_and_is_named_until_it_is_moved(folder):
    mine = folder / "in" / "x.srt"
    mine.write_bytes(MINE)
    for _ in range(2):
        found = beside(folder)
        assert (found.kept, found.first_kept, found.exit_code) == (1, "x.srt", 0)
        assert "1 file that no export wrote" in found.facts["kept"]
        assert mine.read_bytes() == MINE
    beside(folder, restart=True)
    assert mine.read_bytes() == MINE
    mine.rename(folder / "mine")
    assert beside(folder).kept == 0
    assert sorted(subtitles(folder)) == sorted(SRT)


def test_files_of_rows_that_are_no_longer_ok_are_removed_unless_edited(folder):
    beside(folder)
    (folder / "in" / "interviews" / "rec 48.srt").write_bytes(MINE)
    [shard] = (folder / "out").glob("*.parquet")
    ids = {row["id"]: row["row"] for row in pq.read_table(shard, columns=["id", "row"]).to_pylist()}
    with_errors(shard, {ids["x.wav"], ids["interviews/rec 48.wav"]})
    found = beside(folder)
    assert found.left_out == {"not_found": 2}
    assert sorted(subtitles(folder)) == sorted({*SRT} - {"x~5.srt"})
    assert subtitles(folder)["interviews/rec 48.srt"] == MINE


@pytest.mark.lengthy
def test_an_export_that_ends_anywhere_replaces_no_file_of_others(folder, tmp_path):
    (folder / "in" / "x.srt").write_bytes(MINE)
    with kit.failing_files() as files:
        files.put(folder / "in", "talks")
        recordings = files.content("talks")
        pipeline = a_pipeline(files.url("talks"), f"{tmp_path}/out", label={"outputs": [WORDS]})
        raysp.run(pipeline, engine="here", progress=False)

        def beside_again() -> Any:
            return raysp.export(f"{tmp_path}/out", to="srt", beside=True, trust=True)

        files.changes = 0
        beside_again()
        expected, num_changes = files.content("talks"), files.changes
        assert num_changes > len(NAMES)
        for number in range(1, num_changes + 1):
            for name in files.content("talks").keys() - recordings.keys():
                files.remove(f"talks/{name}")
            files.fail_at(number, "death")
            with contextlib.suppress(SystemExit, raysp.RayspError):
                beside_again()
            assert {**files.content("talks"), **recordings} == files.content("talks")
            assert beside_again().kept == 1
            assert files.content("talks") == expected
        assert expected["x.srt"] == MINE
        assert sorted(name for name in expected if name.endswith(".srt")) == sorted(SRT)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"to": "textgrid"}, "beside=True does not apply to textgrid; it is an option of srt, vtt"),
        ({"to": raysp.Srt(names="id")}, "files beside recordings have their names"),
        ({"dest": "elsewhere"}, "dest: without effect: beside=True"),
        ({"beside": False}, "found no destination; give DEST"),
    ],
)
def test_options_that_contradict_it_are_refused(tmp_path, options, error):
    with pytest.raises(SpecError, match=error):
        raysp.export(f"{tmp_path}/out", **{"to": "srt", "beside": True, **options})


def test_a_source_that_is_no_folder_of_recordings_is_refused(tmp_path):
    make_sink(tmp_path)
    with pytest.raises(PlanError, match=r"needs a source that is one folder of recordings, found .*/in; give a dest"):
        beside(tmp_path)


def test_a_folder_that_is_gone_is_not_made(folder):
    (folder / "in").rename(folder / "moved")
    with pytest.raises(PlanError, match="the folder of the recordings is no longer there"):
        beside(folder)
    assert not (folder / "in").exists()
