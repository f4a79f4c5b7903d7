"""The command line in this process: what it prints where, and one clear line with exit code 2 for bad usage."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import RunError, ShardError, SpecError
from raysp.cli import main
from raysp.cli.plans import print_failures
from raysp.cli.rows import print_rows
from raysp.engine.display import progress_line
from raysp.engine.progress import Progress
from raysp.engine.running import RunResult
from raysp.ops.precision import Batching
from raysp.planning.opening import begin_run
from raysp.sink import stage
from raysp.sink.commit import commit
from raysp.sink.run_record import RunEntry
from tests.commands import RECIPE, Ran, write_recipe
from tests.corpora import AUDIO, CHECKPOINT, DEMO, a_pipeline, begin_and_stage, label_here, rows_table, write_shard
from tests.here import run_without_ray
from tests.s3_servers import free_port
from tests.sink.sinks import RESULT_SCHEMA

SECRET = "hunter2/Zq"


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
    def test_it_says_what_a_run_would_do_and_writes_nothing(self, raysp_command, recipe, tmp_path):
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
            begin_and_stage(raysp.plan(a_pipeline(f"{tmp_path}/m.jsonl", tmp_path / "out")))
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
        ran = raysp_command("plan", recipe, "--set", f"source.url={folder}")
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
        assert raysp_command("plan", recipe, "--set", f"source.url={tmp_path}/one").complaints == []

    def test_settings_are_applied(self, raysp_command, recipe):
        ran = raysp_command("plan", recipe, "--set", "steps.1.pool.actors=[1,4]", "--set", "steps.1.batch_seconds=7")
        assert re.search(r"CPUs? .*and 0 GPUs each, float32 on cpu, 7 padded seconds a pass", ran.out)
        assert re.search(r"model +(1|1 to \d) actors? \(1 to 4 asked for; ", ran.out)
        assert ran.complaints == []

    def test_half_precision_says_where_labels_may_depend_on_the_batch(self, raysp_command, recipe):
        half = ("--set", "steps.1.dtype=bfloat16")
        ran = raysp_command("plan", recipe, *half)
        assert "bfloat16 on cpu, one window a pass" in ran.out
        assert ran.complaints == []
        assert json.loads(raysp_command("plan", recipe, "--json", *half).out)["settings"]["batching"] == Batching.ALONE
        ran = raysp_command("plan", recipe, *half, "--set", "steps.1.exact=false", "--set", "steps.1.batch_seconds=7")
        assert "bfloat16 on cpu, 7 padded seconds a pass" in ran.out
        assert " ".join(ran.complaints) == (
            "raysp: bfloat16 on cpu: a label may depend on the rows that share its batch. batch_seconds=7 is part of "
            "the fingerprint, and verify --sample expects 90% of rows to be equal; dtype='float32' gives labels that "
            "depend on nothing else"
        )


class TestInspect:
    def test_it_tells_what_a_checkpoint_can_give(self, raysp_command):
        ran = raysp_command("inspect", CHECKPOINT)
        assert (ran.code, ran.err) == (0, "")
        facts = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:])
        assert facts["architecture"].strip() == "UniSpeechForCTC (unispeech)"
        assert "Transcript" in facts["outputs"]
        assert re.search(r"float32: 4\.3 MB, .* bfloat16, float16: 2\.2 MB, ", facts["memory"])
        assert "16,000 samples a second, a frame every 20 ms, at least 25 ms" in facts["rate"]
        assert re.search(r"20 tokens: <pad> .* E F G ", facts["vocabulary"])

    def test_as_json_it_prints_one_object(self, raysp_command):
        ran = raysp_command("inspect", CHECKPOINT, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["sample_rate"] == 16_000


class TestStatus:
    @pytest.fixture
    def sink(self, recipe, tmp_path) -> Path:
        from raysp.specs.pipeline import load_pipeline

        write_shard(tmp_path / "in" / "b.parquet", 2)
        plan = raysp.plan(load_pipeline(str(recipe)))
        store = begin_run(plan, RunEntry.now())
        shard = plan.corpus.shards[0]
        outputs = pa.schema([("pred_text", pa.string()), ("pred_score", pa.float32())])
        rows = [{"row": row, "seconds": 0.1, "status": "ok", "pred_text": "x"} for row in range(3)]
        block = stage.BlockName(shard.name, shard.pieces[0], shard.input_id, plan.fingerprint, 0, 1)
        stage.stage(store, block, pa.Table.from_pylist(rows, schema=pa.schema([*RESULT_SCHEMA, *outputs])))
        ids = pa.table({"id": ["a", "b", "c"]})
        commit(
            store,
            shard,
            fingerprint=plan.fingerprint,
            source_columns=lambda piece: ids,
            output_schema=outputs,
            rows="all",
        )
        return tmp_path / "out"

    def test_it_tells_how_far_a_sink_is(self, raysp_command, sink):
        ran = raysp_command("status", sink)
        assert (ran.code, ran.err) == (0, "")
        lines = [line.strip() for line in ran.out.splitlines()]
        assert lines[0] == str(sink)
        assert lines[1].startswith("run     none at work; the last one began 2")
        assert lines[2:5] == [
            "shards  1 of 2 shards committed",
            "rows    3 of 5 rows committed (60%)",
            "audio   0:00 in committed shards",
        ]
        assert lines[5:] == ["labels  3 ok, 0 skipped, 0 errors"]

    def test_where_the_labels_come_from_is_printed_when_asked_for(self, raysp_command, sink):
        assert "fingerprint" not in raysp_command("status", sink).out
        details = raysp_command("status", sink, "--verbose").out.partition("Details\n")[2]
        facts = dict(line.split(maxsplit=1) for line in details.splitlines() if len(line.split()) > 1)
        assert (facts["shards"], facts["shards_committed"], facts["rows"], facts["ok"]) == ("2", "1", "5", "3")
        assert len(facts["fingerprint"]) == 16
        assert facts["last_run.versions.raysp"] == raysp.__version__
        assert re.fullmatch(r"[0-9a-f]{16,64}", facts["checkpoint_digest"])

    def test_as_json_it_prints_one_object(self, raysp_command, sink):
        ran = raysp_command("status", sink, "--json")
        found = json.loads(ran.out)
        assert (ran.code, ran.err) == (0, "")
        assert (found["shards"], found["shards_committed"], found["rows_committed"]) == (2, 1, 3)

    def test_a_plan_of_it_counts_what_is_committed(self, raysp_command, recipe, sink):
        found = json.loads(raysp_command("plan", recipe, "--json").out)
        assert (found["shards_committed"], found["rows_todo"]) == (1, 2)


class TestRefusals:
    def refused(self, ran: Ran, message: str) -> None:
        assert ran.out == ""
        assert len(ran.complaints) == 1, ran.err
        assert ran.complaints[0].startswith("raysp: ")
        assert message in ran.complaints[0]
        assert "Traceback" not in ran.err
        assert ran.code == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["plan", "missing.py"], "missing.py: no such file; expected a Python file that makes a raysp.Pipeline"),
            (["plan"], "Missing argument 'PIPELINE'. Try `raysp --help`"),
            (["plam"], "No such command 'plam'. Did you mean 'plan'? Try `raysp --help`"),
            (["plan", "x.py", "--sett", "a=b"], "No such option: --sett"),
            (["run", "x.py", "--rows", "0"], "Invalid value for '--rows': "),
            (["run", "x.py", "--rows", "many"], "Invalid value for '--rows': "),
            (["inspect", "nowhere"], "nowhere"),
            (["status", "nowhere"], "nowhere: no sink of raysp"),
            (["status", "nowhere://bucket/x"], "'nowhere://bucket/x': found the scheme 'nowhere'"),
        ],
    )
    def test_a_command_that_cannot_be_understood(self, raysp_command, tmp_path, monkeypatch, arguments, message):
        monkeypatch.chdir(tmp_path)
        self.refused(raysp_command(*arguments), message)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("source.url={tmp}/in/*.flac", "source.url: '{tmp}/in/*.flac': no file matches"),
            ("source.url={tmp}/nowhere", "source.url: '{tmp}/nowhere': no such file or folder"),
            (
                "source.audio=sound",
                "in/a.parquet: has no column 'sound', expected one; its columns are id, audio, text",
            ),
            ("source.id=key", "in/a.parquet: has no column 'key'"),
            ("source.audio=text", "in/a.parquet: column 'text' is string; expected struct<bytes: binary"),
            ("sink.ulr=x", "--set sink.ulr: Parquet has no field 'ulr' (did you mean 'url'?)"),
            ("sink.url", "--set 'sink.url': expected PATH=VALUE, such as sink.url=out"),
            ("steps.1.window_seconds=-1", "Label.window_seconds: found -1"),
            ("steps.1.checkpoint={tmp}/nowhere", "checkpoint '{tmp}/nowhere': no such folder; expected a Hugging Face"),
            ("steps.1.checkpoint={tmp}/in", "config.json"),
            (
                "sink.url={tmp}/in",
                "sink.url: the label shard {tmp}/in/a.parquet would be one of the shards of source.url",
            ),
            ('sink.keep=["id"]', "two columns would be named 'id'"),
            ("steps.1.outputs.0.name=a b", "'a b' cannot begin a column's name"),
            ('sink.storage_options={{"secret": "' + SECRET + '"}}', "storage_options['secret'] holds a literal secret"),
            (f"sink.url=s3://key:{SECRET}@bucket/x", "the url carries a password or a signature"),
            ("sink.url=nowhere://bucket/x", "'nowhere://bucket/x': found the scheme 'nowhere'"),
        ],
    )
    @pytest.mark.parametrize("verb", ["plan", "run"])
    def test_a_pipeline_that_cannot_run(self, raysp_command, recipe, tmp_path, monkeypatch, verb, setting, message):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        ran = raysp_command(verb, recipe, "--set", setting.format(tmp=tmp_path))
        self.refused(ran, message.format(tmp=tmp_path))
        assert SECRET not in ran.err
        assert not (tmp_path / "out").exists()

    def test_a_gpu_that_is_not_up_is_planned_for_and_refused_where_none_can_come_up(
        self, raysp_command, recipe, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr("raysp.engine.running.is_cluster", lambda _: False)
        planned = raysp_command("plan", recipe, "--set", "steps.1.device=cuda")
        assert planned.code == 0
        assert "0 found: the run waits until they are up" in planned.err
        self.refused(
            raysp_command("run", recipe, "--set", "steps.1.device=cuda"), "no more can come up on this machine"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("file/out", "a file stands where a folder is needed"),
            ("file", "a file stands where a folder is needed"),
            ("/proc/labels", "/proc/labels: cannot write to it"),
            ("/sys/labels", "/sys/labels: cannot write to it"),
        ],
    )
    def test_a_sink_that_cannot_be_written_is_refused_before_ray_starts(
        self, raysp_command, recipe, tmp_path, monkeypatch, place, message
    ):
        (tmp_path / "file").write_text("")
        monkeypatch.setattr("raysp.engine.running.is_cluster", lambda _: False)
        monkeypatch.setattr("raysp.engine.running.local_ray", lambda _: pytest.fail("Ray was started"))
        ran = raysp_command("run", recipe, "--json", "--set", f"sink.url={tmp_path / place}")
        self.refused(ran, message)

    def test_a_checkpoint_of_another_architecture(self, raysp_command, recipe, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        config = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
        (other / "config.json").write_text(json.dumps(config))
        for arguments in (("inspect", other), ("plan", recipe, "--set", f"steps.1.checkpoint={other}")):
            self.refused(raysp_command(*arguments), "bert")

    def test_a_clash_of_columns_in_the_file(self, raysp_command, tmp_path):
        text = RECIPE.replace("[raysp.Transcript()]", "[raysp.Transcript(), raysp.Transcript()]")
        path = write_recipe(tmp_path, text)
        self.refused(
            raysp_command("plan", path), "recipe_for_the_cli.py: Label: two columns would be named 'pred_text'"
        )

    def test_a_literal_secret_in_the_file(self, raysp_command, tmp_path):
        text = RECIPE.replace("{sink!r}", '{sink!r}, storage_options=dict(client=dict(password="' + SECRET + '"))')
        ran = raysp_command("plan", write_recipe(tmp_path, text))
        self.refused(ran, "storage_options['client']['password'] holds a literal secret; put it into an environment")
        assert SECRET not in ran.err

    @pytest.mark.parametrize("body", ["x = = 1", "1 / 0", "import no_such_module_at_all", "x = 1"])
    def test_a_file_that_does_not_run_or_makes_no_pipeline(self, raysp_command, tmp_path, body):
        path = tmp_path / "broken_recipe.py"
        path.write_text(body)
        self.refused(raysp_command("plan", path), "broken_recipe.py")

    def test_a_sink_of_another_pipeline(self, raysp_command, recipe):
        from raysp.specs.pipeline import load_pipeline

        begin_and_stage(raysp.plan(load_pipeline(str(recipe))))
        ran = raysp_command("plan", recipe, "--set", "steps.1.exact=false")
        self.refused(ran, "its labels were made by another pipeline: `steps.1.exact` was True, now False")

    def test_an_error_as_json_leaves_stdout_empty(self, raysp_command, recipe):
        self.refused(raysp_command("plan", recipe, "--json", "--set", "source.id=key"), "has no column 'key'")


class TestErrors:
    def test_a_traceback_is_shown_with_debug_alone(self, raysp_command, tmp_path):
        assert "Traceback" not in raysp_command("plan", tmp_path / "missing.py").err
        with pytest.raises(SpecError, match="no such file"):
            main(["plan", str(tmp_path / "missing.py"), "--debug"])

    def test_debug_shows_it_in_a_real_process_too(self, tmp_path):
        command = [sys.executable, "-m", "raysp.cli", "plan", str(tmp_path / "missing.py")]
        plain, debug = (
            subprocess.run([*command, *more], capture_output=True, text=True, check=False) for more in ([], ["--debug"])
        )
        assert (plain.returncode, len(plain.stderr.splitlines()), plain.stdout) == (2, 1, "")
        assert "Traceback (most recent call last)" in debug.stderr
        assert debug.returncode != 0

    def test_what_nobody_foresaw_is_one_line_and_exit_code_1(self, raysp_command, recipe, monkeypatch):
        monkeypatch.setattr("raysp.specs.pipeline.load_pipeline", lambda target: 1 / 0)
        ran = raysp_command("plan", recipe)
        assert ran.code == 1
        assert ran.err == "raysp: ZeroDivisionError: division by zero (possibly a bug in raysp; rerun with --debug)\n"

    def test_what_fails_while_it_runs_is_exit_code_1(self, raysp_command, recipe, monkeypatch):
        def fail(*_: object, **__: object) -> None:
            raise RunError("201 of 300 rows failed")

        monkeypatch.setattr("raysp.engine.running.run", fail)
        ran = raysp_command("run", recipe)
        assert (ran.code, ran.complaints) == (1, ["raysp: 201 of 300 rows failed"])

    @pytest.mark.parametrize("where", ["load", "run"])
    def test_ctrl_c_is_exit_code_130_and_says_how_to_go_on(self, raysp_command, recipe, monkeypatch, where):
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sys, "argv", ["raysp", "run", str(recipe)])
        monkeypatch.setattr(
            "raysp.specs.pipeline.load_pipeline" if where == "load" else "raysp.engine.running.run", interrupt
        )
        ran = raysp_command("run", recipe)
        assert ran.code == 130
        assert "Traceback" not in ran.err
        assert [line.partition("To go on: ")[2] for line in ran.complaints] == [f"raysp run {recipe}"] * (
            where == "run"
        )

    def test_without_arguments_the_help_is_shown(self, raysp_command):
        ran = raysp_command()
        assert "Usage: raysp" in ran.out
        assert (ran.code, ran.err) == (2, "")

    def test_help_is_no_error(self, raysp_command):
        for arguments in (["--help"], ["plan", "--help"]):
            ran = raysp_command(*arguments)
            assert (ran.code, ran.err) == (0, "")
            assert "Usage: raysp" in ran.out


@pytest.mark.parametrize("rows", [0, 1])
def test_a_complete_run_whose_label_shards_hold_no_row_exits_0(raysp_command, tmp_path, monkeypatch, rows):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(rows, audio=b"nothing"))
    recipe = write_recipe(tmp_path, RECIPE.replace("{sink!r}", "{sink!r}, rows='ok'"))

    def run_here(pipeline: raysp.Pipeline, **_: object) -> RunResult:
        label_here(pipeline)
        return RunResult(pipeline.sink.url, "0" * 16, 1, 1, 0, {}, rows, {}, (), 0.0, 1.0, 0.0, None, None)

    monkeypatch.setattr("raysp.engine.running.run", run_here)
    ran = raysp_command("run", recipe)
    assert (ran.code, ran.complaints) == (0, [])
    assert f"the label shards in {tmp_path}/out hold no row (rows that are not ok are left out" in ran.out
    assert "1 of 1 shard committed" in ran.out


class TestRowsWithoutLabels:
    @pytest.fixture(autouse=True)
    def _here(self, monkeypatch):
        run_without_ray(monkeypatch)

    @pytest.mark.parametrize("arguments", [(), ("--rows", "2"), ("--json",)])
    def test_a_run_that_labels_no_row_ends_with_exit_code_3_the_reason_and_the_remedy(
        self, raysp_command, recipe, tmp_path, arguments
    ):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
        ran = raysp_command("run", recipe, *arguments)
        assert ran.code == 3
        said = json.loads(ran.out)["nothing_labelled"] if "--json" in arguments else ran.complaints[-1]
        number = 2 if "--rows" in arguments else 3
        assert f"none of {number} rows was labelled ({number} unsupported_format); for example a.parquet row 0" in said
        assert "(id 'u0'): unsupported_format: " in said
        assert "For unsupported_format: convert the recordings to FLAC" in said

    def test_a_retry_that_mends_no_row_ends_with_exit_code_3_too(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
        raysp_command("run", recipe)
        ran = raysp_command("retry", recipe)
        assert (ran.code, ran.complaints[-1].count("For unsupported_format")) == (3, 1)

    def test_one_label_is_enough_and_examples_of_errors_name_ids(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "b.parquet", table=rows_table(1, audio=b"no audio at all", prefix="bad-"))
        ran = raysp_command("run", recipe)
        assert (ran.code, ran.complaints[1:]) == (0, [])
        assert "b.parquet row 0 (id 'bad-0'): unsupported_format" in ran.out

    @pytest.mark.parametrize("source", ["raysp.Shards({source!r}, id=None)", "raysp.Shards({source!r})"])
    def test_an_example_of_an_error_whose_id_cannot_be_read_has_none(
        self, raysp_command, tmp_path, monkeypatch, source
    ):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(2, audio=b"no audio at all"))

        def fail(*_: object) -> None:
            raise ShardError("changed since it was planned")

        monkeypatch.setattr("raysp.engine.examples.read_table", fail)
        ran = raysp_command("run", write_recipe(tmp_path, RECIPE.replace("raysp.Shards({source!r})", source)))
        assert (ran.code, "a.parquet row 0: unsupported_format" in ran.out) == (3, True)

    def test_rows_that_the_user_leaves_out_are_counted_and_are_no_failure(self, raysp_command, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", 3)
        keep = 'raysp.Decode(), raysp.Keep(where=[("language", "==", "fr")])'
        ran = raysp_command("run", write_recipe(tmp_path, RECIPE.replace("raysp.Decode()", keep)))
        assert ran.code == 0
        assert "skipped rows 3 filtered\n" in ran.out

    @pytest.mark.parametrize("change", ["steps.1.exact=false", "source.text=text", "source.url={tmp}/other"])
    def test_a_sink_that_holds_no_result_binds_no_pipeline(self, raysp_command, recipe, tmp_path, change):
        from raysp.specs.pipeline import load_pipeline

        write_shard(tmp_path / "other" / "x" / "c.parquet", 2)
        write_shard(tmp_path / "in" / "b.parquet", 2)
        begin_run(raysp.plan(load_pipeline(str(recipe))), RunEntry.now())
        settings = ("--set", change.format(tmp=tmp_path))
        ran = raysp_command("run", recipe, *settings)
        assert (ran.code, "rows to do" in ran.err) == (0, True)
        found = json.loads(raysp_command("status", tmp_path / "out", "--json").out)
        number = 1 if "other" in change else 2
        assert (found["shards"], found["shards_committed"], found["failed"]) == (number, number, {})
        assert raysp_command("verify", recipe, *settings).code == 0
        ran = raysp_command("run", recipe)
        assert (ran.code, "; undo that, " in ran.err or "undo the change" in ran.err) == (2, True)

    def test_a_run_that_stopped_for_its_errors_binds_no_pipeline(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(30, audio=b"no audio at all"))
        ran = raysp_command("run", recipe)
        assert (ran.code, "30 of 30 rows failed" in ran.err) == (1, True)
        write_shard(tmp_path / "in" / "a.parquet", 2)
        assert raysp_command("run", recipe, "--set", "steps.1.exact=false").code == 0

    def test_a_shard_without_rows_is_committed(self, raysp_command, recipe, tmp_path):
        write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1).slice(1))
        write_shard(tmp_path / "in" / "b.parquet", table=pa.table({"id": pa.nulls(0), "audio": pa.nulls(0)}))
        ran = raysp_command("run", recipe)
        assert (ran.code, "2 of 2 shards committed" in ran.out) == (0, True)
        ran = raysp_command("run", recipe)
        assert (ran.code, "nothing to do, 2 of 2 shards" in ran.out) == (0, True)
        assert raysp_command("run", recipe, "--rows", "3").code == 0
        assert raysp_command("verify", recipe).code == 0


@pytest.mark.parametrize(
    ("outputs", "shown"),
    [
        ("raysp.Embedding(), raysp.Transcript('said')", "of 6 reference words in 3 labelled rows"),
        ("raysp.Embedding()", None),
    ],
)
def test_a_run_whose_first_output_is_no_transcript_compares_the_first_that_is(
    raysp_command, tmp_path, monkeypatch, outputs, shown
):
    write_shard(tmp_path / "in" / "a.parquet", 3)
    text = RECIPE.replace("{source!r}", "{source!r}, text='text'").replace("raysp.Transcript()", outputs)

    def run_here(pipeline: raysp.Pipeline, **_: object) -> RunResult:
        label_here(pipeline)
        errors = raysp.status(pipeline.sink.url, pipeline=pipeline).word_errors
        done = RunResult(pipeline.sink.url, "0" * 16, 1, 1, 0, {}, 3, {}, (), 0.0, 1.0, 0.0, None, None)
        return replace(done, word_errors=errors)

    monkeypatch.setattr("raysp.engine.running.run", run_here)
    ran = raysp_command("run", write_recipe(tmp_path, text))
    assert (ran.code, ran.complaints) == (0, [])
    assert ("word errors" in ran.out) == (shown is not None)
    assert shown is None or shown in ran.out


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1:99999"])
def test_an_address_at_which_nothing_listens_is_refused_at_once(raysp_command, recipe, address, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # a Ray of other tests would be used as it is
    address = address.format(port=free_port())
    ran = raysp_command("run", recipe, "--address", address)
    assert (ran.code, ran.out) == (2, "")
    assert f"--address {address}: nothing answers there (" in ran.err


class TestTerminal:
    HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J[bold]\r\nz"

    def test_escapes_in_the_name_of_a_shard_do_not_reach_the_terminal(self, raysp_command, recipe, tmp_path):
        (tmp_path / "in" / "b\x1b[2J\x9b.parquet").write_text("nothing")
        for arguments in (("plan", recipe), ("plan", recipe, "--json")):
            ran = raysp_command(*arguments)
            assert ran.code == 0
            for bad in ("\x1b", "\x9b"):
                assert bad not in ran.out + ran.err

    def test_escapes_in_a_column_and_an_error_do_not_reach_the_terminal(self, raysp_command, recipe, tmp_path):
        table = rows_table(1).append_column("evil\x1b[2J", pa.array(["x"]))
        write_shard(tmp_path / "in" / "a.parquet", table=table)
        ran = raysp_command("plan", recipe, "--set", "source.id=key")
        assert ran.code == 2
        assert "evil" in ran.err
        assert "\x1b" not in ran.err

    def test_ids_and_texts_are_shown_as_they_are_but_harmless(self, capsys):
        columns = {"id": [self.HOSTILE], "row": [0], "status": ["ok"], "pred_text": ["größer [red]ok"]}
        print_rows(pa.table({**columns, "error_type": pa.nulls(1), "error_message": pa.nulls(1)}), "t\x1b[2J")
        print_failures({self.HOSTILE: self.HOSTILE})
        said = capsys.readouterr()
        for bad in ("\x1b", "\x9b", "\x07", "\r"):
            assert bad not in said.out + said.err
        assert "größer [red]ok" in said.out
        assert "[bold]" in said.out
        assert "error_type" not in said.out
        assert len(said.err.splitlines()) == 1

    def test_a_progress_line_says_how_far_and_how_fast(self):
        progress = Progress(rows_total=1000, shards_total=4, shards_committed=1, rows=200, audio_seconds=3600)
        progress.add_block(20, 1800)
        progress.add_block(30, 1800)
        progress.real_samples, progress.padded_samples = 9, 10
        progress.errors["no_audio"] = 3
        line = progress_line(progress)
        for part in (
            "25% · ETA ",
            "250/1,000 rows",
            "2:00:00 of audio",
            "shards 1/4",
            "padding efficiency 90%",
            "3 errors",
            "ETA",
        ):
            assert part in line


def test_the_demo_plans_from_any_folder(raysp_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = raysp_command("plan", DEMO.parent / "label_digits.py", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["rows"] == 300
    assert os.listdir(tmp_path) in ([], ["cache"])
