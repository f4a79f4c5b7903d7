"""The verb plan."""

import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from tests.corpora import AUDIO, CHECKPOINT, DEMO, a_pipeline, rows_table, write_shard


def write_paths(folder: Path, form: str, bytes_of_last: bytes | None = None) -> None:
    """Write rows with paths in the place of recordings, as `datasets` does."""
    rows = [{"bytes": None, "path": f"/clips/en/{row}.wav"} for row in range(120)]
    rows[-1]["bytes"] = bytes_of_last
    table = pa.table({"id": [str(row) for row in range(120)], "audio": pa.array(rows, AUDIO)})
    folder.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        write_shard(folder / "p.parquet", table=table, row_group_size=50)
        return
    with pa.OSFile(str(folder / "p.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


class TestPlan:
    def test_it_prints_what_a_run_would_do_and_writes_nothing(self, raysp_command, recipe, tmp_path):
        ran = raysp_command("plan", recipe)
        assert ran.code == 0
        assert ran.complaints == []
        lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
        assert lines["source"] == f"{tmp_path}/in/*.parquet: 1 shard, 3 rows"
        assert lines["checkpoint"].startswith(f"{CHECKPOINT}: UniSpeechForCTC, ")
        assert lines["to"] == "do        3 rows in 1 piece of 1 shard"
        assert len(lines["fingerprint"]) == 16
        assert not (tmp_path / "out").exists()

    def test_as_json_it_prints_one_object_and_nothing_else(self, raysp_command, recipe, tmp_path):
        ran = raysp_command("plan", recipe, "--json", "--set", f"sink.url={tmp_path}/other")
        found = json.loads(ran.out)
        assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
        assert (found["rows"], found["rows_todo"], found["shards"], found["shards_committed"]) == (3, 3, 1, 0)
        assert found["sink"] == f"{tmp_path}/other"
        assert found["settings"]["checkpoint"]["architecture"] == "UniSpeechForCTC"
        assert found["fingerprint"]
        assert found["audio_seconds"] is None

    @pytest.mark.slow
    def test_estimates_are_printed_and_json_has_the_same_values(self, raysp_command, recipe):
        options = ("--rtfx", "50", "--price", "2")
        ran = raysp_command("plan", recipe, *options)
        lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
        assert lines["sample"].startswith("3 of 3 rows at 1 place, ")
        assert lines["audio"] == "0:00 to label by headers; a row has 0.1 s on average, at most 0.1 s in the sample"
        assert lines["speed"] == "50.0x real time on one actor, as stated"
        found = json.loads(raysp_command("plan", recipe, *options, "--json").out)["estimate"]
        assert found["rows_sampled"] == 3
        assert found["audio_seconds"] == {"value": pytest.approx(0.3), "margin": 0.0}
        assert found["cost"]["money"]["value"] == pytest.approx(2 * found["cost"]["device_hours"]["value"])
        assert json.loads(raysp_command("plan", recipe, "--sample", "0", "--json").out)["estimate"] is None

    def test_money_and_hours_are_plain_numbers(self, raysp_command, recipe):
        ran = raysp_command("plan", recipe, "--rtfx", "50", "--price", "1e10")
        lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
        assert lines["time"].endswith(", below 0.01 CPU-hours")
        assert lines["money"] == f"{2 * 1e10 * 0.3 / 50 / 3600:,.0f}"

    def test_a_price_without_a_speed_says_what_it_needs(self, raysp_command, recipe):
        ran = raysp_command("plan", recipe, "--price", "2")
        assert (ran.code, "money" in ran.out) == (0, False)
        assert "--price without effect: a cost needs a speed; give --rtfx N, --like OUT, or --calibrate" in ran.err

    @pytest.mark.slow
    def test_hours_are_shown_where_a_manifest_knows_them_also_once_it_is_recorded(
        self, raysp_command, recipe, tmp_path
    ):
        lines = [{"audio_filepath": f"{n}.wav", "duration": 1800 + n} for n in range(3)]
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
        manifest = ("--set", f"source.url={tmp_path}/m.jsonl")
        for _ in range(2):
            ran = raysp_command("plan", recipe, *manifest)
            assert ran.out.splitlines()[0].split(maxsplit=1)[1].endswith("m.jsonl: 1 shard, 3 rows, 1:30:03 of audio")
            assert json.loads(raysp_command("plan", recipe, *manifest, "--json").out)["audio_seconds"] == 5403.0
            raysp.run(a_pipeline(f"{tmp_path}/m.jsonl", tmp_path / "out"), engine="here", progress=False)
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"audio_filepath": "x.wav"}])))
        assert "of audio" not in raysp_command("plan", recipe, *manifest, "--set", f"sink.url={tmp_path}/other").out

    def test_a_shard_that_cannot_be_read_is_named_with_its_reason(self, raysp_command, recipe, tmp_path):
        (tmp_path / "in" / "b.parquet").write_text("nothing")
        ran = raysp_command("plan", recipe)
        assert ran.code == 0
        assert len(ran.complaints) == 1
        assert ran.complaints[0].startswith("raysp: not committed: b.parquet: ")
        assert "found 7 bytes; expected a Parquet file" in ran.complaints[0]

    def test_files_that_are_passed_over_are_counted_and_recordings_of_any_format_are_rows(
        self, raysp_command, recipe, tmp_path
    ):
        folder = tmp_path / "audio"
        folder.mkdir()
        for name in ("a.wav", "b.wav", "c.m4a", "d.aac", "e.webm", "f.mp4", "g.wma", "t.txt", "u.txt", "v.json"):
            (folder / name).write_bytes(b"x")
        ran = raysp_command("plan", recipe, "--sample", "0", "--set", f"source.url={folder}")
        assert ran.complaints == ["raysp: 3 other files passed over: 2 .txt, 1 .json"]
        assert "7 rows" in ran.out
        found = json.loads(raysp_command("plan", recipe, "--set", f"source.url={folder}", "--json").out)
        assert (found["rows"], found["files_passed_over"]) == (7, {".txt": 2, ".json": 1})

    @pytest.mark.parametrize("form", ["parquet", "arrow"])
    def test_paths_without_bytes_and_without_a_root_for_them_are_refused_before_any_work(
        self, raysp_command, recipe, tmp_path, form
    ):
        write_paths(tmp_path / "paths", form)
        settings = ("--set", f"source.url={tmp_path}/paths")
        for verb in ("plan", "run"):
            ran = raysp_command(verb, recipe, *settings)
            assert (ran.code, ran.out, len(ran.complaints)) == (2, "", 1)
            assert "column 'audio' holds no bytes in any of 120 rows, only paths such as '/clips/en/0.wav'" in ran.err
            assert "source.audio_root='/clips/en', or embed the recordings" in ran.err
        assert not (tmp_path / "out").exists()
        assert raysp_command("plan", recipe, *settings, "--set", "source.audio_root=/clips").code == 0

    @pytest.mark.parametrize("form", ["parquet", "arrow"])
    def test_one_recording_is_enough_for_a_plan_which_notes_shards_without_any_and_without_rows(
        self, raysp_command, recipe, tmp_path, form
    ):
        write_paths(tmp_path / "in" / "paths", form)
        write_shard(tmp_path / "in" / "z.parquet", table=rows_table(1).slice(1))
        ran = raysp_command("plan", recipe, "--set", f"source.url={tmp_path}/in")
        assert (ran.code, len(ran.complaints)) == (0, 2)
        assert "1 of 3 shards hold no rows, such as z.parquet" in ran.err
        assert "1 of 3 shards hold no recordings, such as paths/p.parquet: their rows become errors" in ran.err
        write_paths(tmp_path / "one", form, bytes_of_last=b"RIFF")
        ran = raysp_command("plan", recipe, "--sample", "0", "--set", f"source.url={tmp_path}/one")
        assert (ran.code, ran.complaints) == (0, [])

    def test_settings_are_applied(self, raysp_command, recipe):
        ran = raysp_command("plan", recipe, "--set", "steps.1.pool.actors=[1,4]", "--set", "steps.1.batch_seconds=7")
        assert re.search(r"CPUs? .*and 0 GPUs each, float32 on cpu, 7 padded seconds a pass", ran.out)
        assert re.search(r"model +(1|1 to \d) actors? \(1 to 4 requested; ", ran.out)
        assert ran.complaints == []

    @pytest.mark.slow
    def test_half_precision_on_a_cpu_has_one_window_a_pass(self, raysp_command, recipe):
        half = ("--set", "steps.1.dtype=bfloat16")
        ran = raysp_command("plan", recipe, *half)
        assert "bfloat16 on cpu, one window a pass" in ran.out
        assert ran.complaints == []
        assert (
            json.loads(raysp_command("plan", recipe, "--json", *half).out)["settings"]["batching"]
            == "each window alone"
        )

    def test_a_processor_with_amx_is_named_with_its_dtype(self, raysp_command, recipe, monkeypatch):
        # No processor of a test can be chosen.
        for has_amx in (False, True):
            monkeypatch.setattr("raysp.labelling.planning.run_plan.has_amx", lambda: has_amx)  # noqa: B023
            is_named = [
                'dtype="bfloat16" takes half of the time' in raysp_command("plan", recipe, *settings).out
                for settings in ((), ("--set", "steps.1.dtype=float32"), ("--set", "steps.1.dtype=bfloat16"))
            ]
            assert is_named == [has_amx, False, False]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--rtfx", "0"), "rtfx: found 0, expected a number above 0"),
        (("--price", "-1"), "price: found -1, expected a number above 0"),
        (("--rtfx", "4", "--calibrate"), "found rtfx and calibrate, expected one of them"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_shown(raysp_command, recipe, option, message):
    ran = raysp_command("plan", recipe, *option)
    assert (ran.code, ran.out, len(ran.complaints)) == (2, "", 1)
    assert message in ran.err


def test_a_sample_of_which_no_row_can_be_labelled_is_said_with_the_remedy(raysp_command, recipe, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
    ran = raysp_command("plan", recipe)
    assert (ran.code, len(ran.complaints)) == (0, 1)
    assert "none of 3 sampled rows can be labelled. For unsupported_format: convert the recordings" in ran.err


def test_shards_of_which_none_can_be_read_are_not_called_done(raysp_command, recipe, tmp_path):
    (tmp_path / "in" / "a.parquet").write_text("nothing")
    assert "nothing to do no shard can be read\n" in raysp_command("plan", recipe).out


@pytest.mark.slow
def test_the_demo_plans_from_any_folder(raysp_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = raysp_command("plan", DEMO.parent / "label_digits.py", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["rows"] == 300
    assert os.listdir(tmp_path) in ([], ["cache"])
