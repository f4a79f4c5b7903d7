"""Exports that go on, that are killed, and that are refused."""

import contextlib
import dataclasses
import re
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import ChangedError, PlanError, RunError, SpecError
from tests import kit
from tests.by_promise.export.sinks import content
from tests.exports import FORMATS, export_to, exported

SHORT = {"min_seconds": 0.2, "max_seconds": 1.5}


def ends_at_any_change(sink: Path, to: str, how: str, **options: object) -> None:
    """Check that readers see whole files of an export that ends at any of its changes, and that it can go on."""
    with kit.failing_files() as files:
        export_to(to, str(sink), dest=files.url("whole"), **options)
        expected, num_changes = files.content("whole"), files.changes
        assert num_changes >= 4
        for number in range(1, num_changes + 1):
            files.fail_at(number, how)
            with contextlib.suppress(SystemExit, raysp.RayspError):
                export_to(to, str(sink), dest=files.url(f"{number}"), **options)
            seen = files.content(f"{number}")
            assert {name: data for name, data in seen.items() if name[0] != "."}.items() <= expected.items()
            export_to(to, str(sink), dest=files.url(f"{number}"), **options)
            assert files.content(f"{number}") == expected


class TestGoingOn:
    @pytest.mark.slow
    @pytest.mark.parametrize(("to", "how"), [("srt", "death"), ("ctm", "lost")])
    def test_an_export_that_ends_at_any_change_gives_the_same_files(self, made, to, how):
        ends_at_any_change(made / "out", to, how, **({"one_file": True} if to == "ctm" else {}))

    @pytest.mark.lengthy
    def test_a_store_that_is_lost_during_an_export_fails_it_and_the_same_call_goes_on(self, made):
        with kit.failing_files() as files:
            seen: list[int] = []
            of_shard = {"on_shard": lambda done, of: seen.append(files.changes)}
            export_to("srt", str(made / "out"), dest=files.url("whole"), **of_shard)
            files.fail_at(seen[0] + 1, "full")
            with pytest.raises(RunError, match=r"change \d+ failed.*; finished files are kept: run the same"):
                raysp.export(str(made / "out"), to="srt", dest=files.url("dest"))
            files.revive()
            found = raysp.export(str(made / "out"), to="srt", dest=files.url("dest"))
            assert found.shards_before == 1
            assert files.content("dest") == files.content("whole")

    @pytest.mark.parametrize(
        ("to", "options"),
        [("dataset", {}), ("clips", SHORT)],
        ids=["dataset", "clips"],
    )
    @pytest.mark.slow
    def test_an_export_with_recordings_that_ends_at_any_change_gives_the_same_files(self, long, to, options):
        ends_at_any_change(long / "out", to, "death", trust=True, **options)

    @pytest.mark.lengthy
    def test_a_replacement_killed_at_any_change_is_finished_by_the_same_call(self, made, tmp_path):
        raysp.export(str(made / "out"), to="jsonl", dest=str(tmp_path / "before"))
        with kit.failing_files() as files:
            raysp.export(str(made / "out"), to="ctm", dest=files.url("whole"))
            expected = files.content("whole")

            def replaced(folder: str) -> None:
                raysp.export(str(made / "out"), to="ctm", dest=files.url(folder), restart=True)

            files.put(tmp_path / "before", "counted")
            replaced("counted")
            num_changes = files.changes
            assert num_changes > 8
            for number in range(2, num_changes + 1):
                files.put(tmp_path / "before", f"{number}")
                files.fail_at(number, "death")
                with contextlib.suppress(SystemExit, raysp.RayspError):
                    replaced(f"{number}")
                files.revive()
                replaced(f"{number}")
                assert files.content(f"{number}") == expected

    def test_a_label_shard_that_is_finished_later_is_added(self, made, tmp_path):
        sink = shutil.copytree(made / "out", tmp_path / "out")
        (sink / "more" / "b.parquet").rename(tmp_path / "b.parquet")
        found = raysp.export(str(sink), to=raysp.Ctm(one_file=True), dest=str(tmp_path / "dest"))
        assert (found.unfinished, found.rows, found.exit_code) == (("more/b.parquet",), 4, 3)
        (tmp_path / "b.parquet").rename(sink / "more" / "b.parquet")
        found = raysp.export(str(sink), to=raysp.Ctm(one_file=True), dest=str(tmp_path / "dest"))
        assert (found.unfinished, found.rows, found.exit_code) == ((), 7, 0)
        assert len(exported(tmp_path / "dest")["labels.ctm"].splitlines()) == 7


def test_each_format_comes_back_from_its_representation_and_documents_its_options():
    for spec in FORMATS.values():
        assert eval(repr(spec()), vars(raysp)) == spec()
        text = "".join(base.__doc__ or "" for base in spec.__mro__)
        for field in dataclasses.fields(spec):
            assert re.search(rf"^ +[\w, ]*\b{field.name}\b[\w, ]*: ", text, re.MULTILINE), (spec, field.name)
    with pytest.raises(SpecError, match=f"expected one of {', '.join(FORMATS)}, or module:Class"):
        raysp.export("nothing", to="ass", dest="nowhere")


class TestRefusals:
    @pytest.mark.parametrize(
        ("to", "options", "expected"),
        [
            ("ctm", {"max_chars": 30}, "Ctm has no field 'max_chars'; its fields are column, one_file"),
            ("srt", {"max_seconds": 0.5}, "min_seconds=0.833; expected less than max_seconds=0.5"),
            ("clips", {"min_seconds": 30.0}, "min_seconds=30; expected less than max_seconds=20"),
            ("clips", {"split": {"train": 0.5, "dev": 0.4}}, "the shares add up to 0.9; expected 1"),
            ("clips", {"split": {"a/b": 1.0}}, "split"),
            (
                "clips",
                {"split": {"dev": 0.5, "Dev": 0.5}},
                "split: dev, Dev have one folder where letter case is ignored",
            ),
            ("clips", {"split": {}}, "split"),
            (
                "clips",
                {"speaker": "speaker_id"},
                "speaker='speaker_id': has no effect, since split='train' names one split",
            ),
            ("clips", {"shard_bytes": 0}, "Clips.shard_bytes: found 0"),
            ("dataset", {"split": "../x"}, r"Dataset.split: found '\.\./x'; "),
            ("srt", {"names": "row"}, "Srt.names: found 'row'; input should be 'id' or 'path'"),
            ("srt", {"max_chars": "many"}, "Srt.max_chars: found 'many'; "),
        ],
    )
    def test_options_that_are_wrong_for_any_data(self, to, options, expected):
        with pytest.raises(SpecError, match=expected):
            FORMATS[to](**options)

    @pytest.mark.parametrize("to", [raysp.Pool(), raysp.Srt, "raysp:Pool"], ids=repr)
    def test_what_is_no_format(self, to, raysp_command):
        expected = f"export: found to={to!r}, expected a format such as raysp.Srt() or its name"
        with pytest.raises(SpecError, match=f"^{re.escape(expected)}$"):
            raysp.export("nothing", to=to, dest="nowhere")
        if isinstance(to, str):
            ran = raysp_command("export", "nothing", "--to", to, "nowhere")
            assert (ran.code, expected in " ".join(ran.err.split())) == (2, True), ran.err

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
