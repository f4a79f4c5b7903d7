"""Exports that go on, that are killed, and that are refused."""

import contextlib
import itertools
import os
import re
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import ChangedError, PlanError, RunError, SpecError, StoreError
from raysp.storage.store import LocalStore
from raysp.verbs.export import destination
from raysp.verbs.export.export_formats import OPTIONS
from tests.sink.sinks import CrashingStore, Killed
from tests.verbs.export.sinks import content, exported, with_errors

SHORT = {"min_seconds": 0.2, "max_seconds": 1.5}
TEXT_FORMATS = ["srt", "ctm", "jsonl"]


def changes(sink: Path, folder: Path, to: str, **options: object) -> int:
    """Export and count the changes of the store."""
    store = CrashingStore(LocalStore(folder), 10**9, "before")
    raysp.export(str(sink), to=to, dest=store, **options)
    return 10**9 - store._left


class TestGoingOn:
    @pytest.mark.slow
    @pytest.mark.parametrize("to", TEXT_FORMATS)
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_an_export_killed_at_any_change_gives_the_same_files(self, made, tmp_path, monkeypatch, to, when):
        monkeypatch.setattr(destination, "AT_ONCE", 1)
        options = {"one_file": True} if to == "ctm" else {}
        num_changes = changes(made / "out", tmp_path / "whole", to, **options)
        expected = content(tmp_path / "whole")
        assert num_changes >= 4
        for number in range(1, num_changes + 1):
            folder = tmp_path / f"{number}"
            store = CrashingStore(LocalStore(folder), number, when)
            with pytest.raises(Killed):
                raysp.export(str(made / "out"), to=to, dest=store, **options)
            raysp.export(str(made / "out"), to=to, dest=str(folder), **options)
            assert content(folder) == expected

    @pytest.mark.lengthy
    def test_a_store_that_is_lost_during_an_export_fails_it_and_the_same_call_goes_on(
        self, made, tmp_path, monkeypatch
    ):
        raysp.export(str(made / "out"), to="srt", dest=str(tmp_path / "whole"))
        with monkeypatch.context() as patched:
            finish = destination.Destination.finish

            def lost(self, mark):
                finish(self, mark)
                raise StoreError("no space left on the device")

            patched.setattr(destination.Destination, "finish", lost)
            with pytest.raises(RunError, match=r"no space left on the device; finished files are kept: run the same"):
                raysp.export(str(made / "out"), to="srt", dest=str(tmp_path / "dest"))
        found = raysp.export(str(made / "out"), to="srt", dest=str(tmp_path / "dest"))
        assert found.shards_before == 1
        assert content(tmp_path / "dest") == content(tmp_path / "whole")

    @pytest.mark.parametrize(
        ("to", "options"),
        [("dataset", {}), pytest.param("clips", SHORT, marks=pytest.mark.soak), ("clips", {**SHORT, "layout": "tar"})],
        ids=["dataset", "clips", "tar"],
    )
    @pytest.mark.slow
    def test_an_export_with_recordings_killed_at_any_change_gives_the_same_files(self, long, tmp_path, to, options):
        num_changes = changes(long / "out", tmp_path / "whole", to, **options)
        expected = content(tmp_path / "whole")
        assert num_changes >= 5
        for number in range(1, num_changes + 1):
            folder = tmp_path / f"{number}"
            store = CrashingStore(LocalStore(folder), number, "before" if number % 2 else "after")
            with pytest.raises(Killed):
                raysp.export(str(long / "out"), to=to, dest=store, **options)
            assert exported(folder).items() <= exported(tmp_path / "whole").items()
            raysp.export(str(long / "out"), to=to, dest=str(folder), **options)
            assert content(folder) == expected

    @pytest.mark.parametrize("to", TEXT_FORMATS)
    def test_no_reader_sees_a_part_of_a_file(self, made, tmp_path, monkeypatch, to):
        monkeypatch.setattr(destination, "AT_ONCE", 1)
        num_changes = changes(made / "out", tmp_path / "whole", to)
        expected = exported(tmp_path / "whole")
        for number in range(1, num_changes + 1):
            store = CrashingStore(LocalStore(tmp_path / f"{number}"), number, "before")
            with pytest.raises(Killed):
                raysp.export(str(made / "out"), to=to, dest=store)
            assert exported(tmp_path / f"{number}").items() <= expected.items()

    @pytest.mark.lengthy
    def test_a_replacement_killed_at_any_change_is_finished_by_the_same_call(self, made, tmp_path):
        raysp.export(str(made / "out"), to="ctm", dest=str(tmp_path / "whole"))
        expected = content(tmp_path / "whole")
        raysp.export(str(made / "out"), to="jsonl", dest=str(tmp_path / "before"))
        for number in itertools.count(1):
            folder = shutil.copytree(tmp_path / "before", tmp_path / f"{number}")
            store = CrashingStore(LocalStore(folder), number, "after")
            with contextlib.suppress(Killed):
                raysp.export(str(made / "out"), to="ctm", dest=store, restart=True)
                break
            raysp.export(str(made / "out"), to="ctm", dest=str(folder), restart=True)
            assert content(folder) == expected
        assert number > 8

    def test_each_label_shard_is_reported(self, export):
        seen: list[tuple[int, int]] = []
        export("jsonl", on_shard=lambda done, of: seen.append((done, of)))
        assert seen == [(1, 2), (2, 2)]

    def test_what_is_there_is_not_written_again(self, export, made, tmp_path):
        export("jsonl")
        times = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "dest").rglob("*") if path.is_file()}
        again = export("jsonl")
        assert (again.shards, again.shards_before, again.rows) == (2, 2, 7)
        assert {path: os.stat(path).st_mtime_ns for path in times} == times

    def test_a_file_that_is_gone_or_was_cut_is_written_again(self, export, tmp_path):
        export("jsonl")
        expected = exported(tmp_path / "dest")
        (tmp_path / "dest" / "a.jsonl").unlink()
        (tmp_path / "dest" / "more" / "b.jsonl").write_bytes(b"{")
        assert export("jsonl").shards_before == 0
        assert exported(tmp_path / "dest") == expected

    def test_a_label_shard_that_changed_is_exported_again_without_files_of_rows_that_are_not_ok(self, made, tmp_path):
        sink = shutil.copytree(made / "out", tmp_path / "out")
        raysp.export(str(sink), to="srt", dest=str(tmp_path / "dest"))
        before = exported(tmp_path / "dest")
        with_errors(sink / "a.parquet", rows={1})
        found = raysp.export(str(sink), to="srt", dest=str(tmp_path / "dest"))
        assert (found.shards, found.shards_before, found.left_out) == (2, 1, {"unsupported_format": 1, "not_found": 1})
        assert before.keys() - exported(tmp_path / "dest").keys() == {"a/a_b~1.srt"}

    def test_a_label_shard_that_is_finished_later_is_added(self, made, tmp_path):
        sink = shutil.copytree(made / "out", tmp_path / "out")
        (sink / "more" / "b.parquet").rename(tmp_path / "b.parquet")
        found = raysp.export(str(sink), to="ctm", dest=str(tmp_path / "dest"), one_file=True)
        assert (found.unfinished, found.rows, found.exit_code) == (("more/b.parquet",), 4, 3)
        (tmp_path / "b.parquet").rename(sink / "more" / "b.parquet")
        found = raysp.export(str(sink), to="ctm", dest=str(tmp_path / "dest"), one_file=True)
        assert (found.unfinished, found.rows, found.exit_code) == ((), 7, 0)
        assert len(exported(tmp_path / "dest")["labels.ctm"].splitlines()) == 7


def test_the_documentation_lists_each_format_with_its_options():
    document = Path(__file__).parents[3] / "docs" / "export.md"
    rows = [line for line in document.read_text().splitlines() if line.startswith("| `")]
    named = {name: row for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named.keys() == OPTIONS.keys()
    for to, options in OPTIONS.items():
        for name in options.keys() - {"split", "sample_rate"}:
            option = {"layout": "as", "audio": "no-audio"}.get(name, name).replace("_", "-")
            assert f"--{option}" in named[to], (to, name)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"to": "ass"}, "found the format 'ass'; expected one of srt, vtt, ctm"),
            ({"to": "ctm", "max_chars": 30}, "max_chars=30 does not apply to ctm; it is an option of srt, vtt"),
            ({"to": "srt", "max_lines": 4}, "max_lines=4; expected 1 to 3"),
            ({"to": "srt", "max_chars_per_second": 0}, "max_chars_per_second=0; expected 1 to 1000"),
            ({"to": "srt", "min_gap_seconds": 2}, "min_gap_seconds=2; expected 0 to 1"),
            ({"to": "srt", "max_seconds": 0.5}, "min_seconds=0.833; expected from 0 to below max_seconds=0.5"),
            ({"to": "srt", "max_chars": 2}, "max_chars=2; expected 8 to 1000"),
            ({"to": "srt", "max_seconds": 0}, "max_seconds=0; expected more than 0"),
            ({"to": "srt", "max_seconds": float("nan")}, "max_seconds=nan; expected more than 0"),
            ({"to": "clips", "min_seconds": 30.0}, "min_seconds=30.0; expected from 0 to below max_seconds=20.0"),
            ({"to": "clips", "min_score": 2}, "min_score=2; expected a probability"),
            ({"to": "clips", "layout": "zip"}, "layout='zip'; expected one of parquet, tar"),
            ({"to": "clips", "sample_rate": 10}, "sample_rate=10; expected 1000 to 192000 Hz"),
            ({"to": "dataset", "split": "../x"}, "split='../x'; expected a name"),
            ({"to": "srt", "names": "row"}, "names='row'; expected one of id, path"),
            ({"to": "ctm", "names": "id"}, "names='id' does not apply to ctm; it is an option of srt, vtt, textgrid"),
            ({"to": "csv", "rows": "bad"}, "rows='bad'; expected one of ok, all"),
            ({"to": "srt", "max_chars": True}, "max_chars=True; expected a number"),
        ],
    )
    def test_options_that_are_wrong_for_any_data(self, tmp_path, options, expected):
        with pytest.raises(SpecError, match=expected):
            raysp.export(str(tmp_path / "nothing"), dest=str(tmp_path / "dest"), **options)

    def test_a_folder_with_other_files_is_left_as_it_is(self, export, tmp_path):
        (tmp_path / "dest").mkdir()
        (tmp_path / "dest" / "mine.srt").write_text("1")
        for restart in (False, True):
            with pytest.raises(PlanError, match=r"holds 'mine.srt', which no export wrote; .*another destination"):
                export("srt", restart=restart)
        assert content(tmp_path / "dest") == {"mine.srt": b"1"}

    def test_another_export_is_refused_with_what_differs_and_replaced_on_demand(self, export, tmp_path):
        export("srt", max_chars=30)
        before = content(tmp_path / "dest")
        with pytest.raises(ChangedError, match=r"`options.max_chars` was 30, now 42.*another destination.*--restart"):
            export("srt")
        with pytest.raises(ChangedError, match="`to` was 'srt', now 'ctm'"):
            export("ctm")
        assert content(tmp_path / "dest") == before
        (tmp_path / "dest" / "notes.txt").write_text("mine")
        export("ctm", restart=True)
        assert sorted(exported(tmp_path / "dest")) == ["a.ctm", "more/b.ctm", "notes.txt"]

    @pytest.mark.parametrize("place", ["out", "out/exports", "."])
    def test_a_destination_and_a_sink_in_each_other(self, made, place):
        with pytest.raises(PlanError, match=r"is in the same folder as the sink .*choose a destination outside"):
            raysp.export(str(made / "out"), to="srt", dest=str(made / place))

    def test_a_sink_without_a_finished_shard(self, made, tmp_path):
        sink = shutil.copytree(made / "out", tmp_path / "out")
        for path in sink.rglob("*.parquet"):
            path.unlink()
        with pytest.raises(PlanError, match="has no finished label shard; `raysp status`"):
            raysp.export(str(sink), to="srt", dest=str(tmp_path / "dest"))

    def test_a_damaged_record_of_an_export(self, export, tmp_path):
        export("ctm")
        (tmp_path / "dest" / ".raysp" / "export.json").write_text("[")
        with pytest.raises(PlanError, match=r"export\.json: not the record of an export"):
            export("ctm")
