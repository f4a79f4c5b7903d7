"""Every option of every verb: what happens where it would have no effect, or the test that shows that it acts.

The options are those of the parsers: one without a row here fails.
"""

import json
import runpy
import shlex
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit, trainings
from tests.cli.test_finetune import RECIPE
from tests.commands import help_of, verbs, write_recipe
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, rows_table, write_shard
from tests.here import run_without_ray
from tests.test_documents import names_in


class Refused(NamedTuple):
    """A command in which the option would have no effect: exit code 2 and one line."""

    command: str
    message: str


class Said(NamedTuple):
    """A command in which it has none, and a line that says so."""

    command: str
    message: str


class Helped(NamedTuple):
    """An option that makes sure of something, and is harmless where it is so already; its help says that."""

    words: str


class Acts(NamedTuple):
    """An option that always acts, as a test shows."""

    test: str


Row = Refused | Said | Helped | Acts
VERBS = [verb for group in verbs().values() for verb in group]
OPTIONS = {f"{verb} {name}" for verb in VERBS for name in help_of(verb).options if name != "--help"}
DIFF, MERGE, EXPORT = "diff {a} {b}", "merge {a} {b} --by pred_score --to {tmp}/merged", "export {a} {tmp}/x --to"
EVALUATE = f"evaluate {CHECKPOINT} {{folder}}/in"
LABEL = f"label {{folder}}/in --model {CHECKPOINT} --out {{tmp}}/x"
SUBMIT = "submit {remote} --address http://head:8265"
HERE, FOLDERS = "cli/test_options.py::", "by_promise/test_label_folder.py::"
FAILED_LIMIT = Acts("cli/test_diff.py::test_a_limit_that_is_not_met_ends_with_exit_code_1_and_a_sentence")
NOTHING_LEFT = "without effect: no row is left to label, so there is nothing to estimate"
NO_ESTIMATE = "without effect: --sample 0 makes no estimate"


def local(command: str, option: str = "--storage-option") -> Refused:
    """Return the row of options of object storage where all places are local."""
    return Refused(
        f"{command} {option} anon=true", f"{option} anon: applies to a url such as s3://bucket/folder, found '"
    )


COMMON: dict[str, dict[str, list[Row]]] = {
    "--debug": {verb: [Acts(f"{HERE}test_debug_shows_the_traceback_of_an_error")] for verb in VERBS},
    "--json": {
        **{verb: [Acts(f"{HERE}test_json_is_one_object")] for verb in VERBS},
        "run": [Acts("cli/test_displays.py::test_a_try_out_shows_rows_with_invalid_text")],
        "finetune": [Acts("cli/test_finetune.py::test_a_training_prints_where_the_checkpoint_is")],
        "evaluate": [Acts("cli/test_evaluate.py::test_json_has_everything")],
        "submit": [Acts("cli/test_jobs.py::TestSubmit::test_json_is_one_object_and_the_log_goes_to_stderr")],
        "jobs": [Acts("cli/test_jobs.py::TestJobs::test_json_lists_all_fields")],
        "stop": [Acts("cli/test_jobs.py::test_a_job_is_stopped_and_shown")],
        "convert": [Acts("checkpoints/pickles/test_folders.py::test_the_command_prints_one_object")],
    },
    "--trust": {
        verb: [Helped("that the sink names")]
        for verb in ("retry", "verify", "gc", "status", "report", "forget", "diff", "merge", "export")
    },
    "--storage-option": {
        **{verb: [local(f"{verb} {{a}}")] for verb in ("retry", "verify", "gc", "status", "report")},
        **{command.split()[0]: [local(command)] for command in (DIFF, MERGE, f"{EXPORT} jsonl")},
        "forget": [local("forget {a} ID")],
        "inspect": [local(f"inspect {CHECKPOINT}")],
        "convert": [
            local(f"convert {CHECKPOINT} {{tmp}}/x"),
            Refused("convert s3://b/a.nemo {tmp}/x --storage-option anon=true", "expected a local file: download the"),
        ],
    },
    "--set": {
        **{
            verb: [
                Refused(
                    f"{verb} {{a}} --set sink.url=x", "--set sink.url=x: applies to a pipeline file, found the sink"
                )
            ]
            for verb in ("verify", "gc", "status", "report")
        },
        "forget": [
            Refused("forget {a} ID --set sink.url=x", "--set sink.url=x: applies to a pipeline file, found the sink")
        ],
        "export": [
            Refused(f"{EXPORT} jsonl --set sink.url=x", "--set sink.url=x: applies to a pipeline file, found the"),
            Refused(f"{EXPORT} ctm --set to.max_chars=20", "--set to.max_chars: Ctm has no field 'max_chars'; its"),
            Refused(f"{EXPORT} srt --set to.language=tlh", "Srt.language: found 'tlh'; input should be 'de', 'en'"),
        ],
        "retry": [
            Refused("retry {a} --set source.url=x", "--set source.url=x: applies to a pipeline file, found the sink")
        ],
        **{
            verb: [
                Refused(f"{verb} {{file}} --set sink.ulr=x", "has no field 'ulr'"),
                Refused(f"{verb} {{file}} --set steps.1.outputs.0.lm_weight=2", "lm_weight given without lm"),
            ]
            for verb in ("plan", "run")
        },
        "label": [
            Refused(f"{LABEL} --set sink.ulr=x", "has no field 'ulr'"),
            Refused(f"{LABEL} --set to.max_chars=20", "has no field 'to'"),
        ],
        "submit": [Refused(f"{SUBMIT} --set sink.ulr=x", "has no field 'ulr'")],
        "finetune": [Refused("finetune {recipe} --set sink.ulr=x", "has no field 'ulr'")],
        "evaluate": [Refused(f"{EVALUATE} --text text --set sink.ulr=x", "has no field 'ulr'")],
    },
    "--address": {
        **{
            verb: [Acts(f"{HERE}test_an_address_is_that_of_the_cluster")]
            for verb in ("run", "label", "retry", "evaluate")
        },
        "finetune": [Refused("finetune {recipe} --steps 1 --address ray:6379", "a try-out runs on this machine")],
        "export": [Refused(f"{EXPORT} jsonl --address local", "expected the address of a cluster; processes=N")],
        "submit": [Acts("cli/test_jobs.py::TestSubmit::test_without_an_address_it_says_what_to_give")],
        "jobs": [Acts("cli/test_jobs.py::TestJobs::test_jobs_are_listed_a_line_each")],
        "stop": [Acts("cli/test_jobs.py::test_a_job_is_stopped_and_shown")],
    },
    "--engine": {
        **{
            verb: [Refused(f"{line} --engine nowhere", "engine: found 'nowhere', expected 'auto', 'here' or 'ray'")]
            for verb, line in {
                "run": "run {file}",
                "label": LABEL,
                "retry": "retry {a} --trust",
                "evaluate": f"{EVALUATE} --text text",
            }.items()
        },
        "finetune": [Refused("finetune {recipe} --steps 1 --engine ray", "a try-out trains in this process")],
    },
    "--ca": {
        command.split()[0]: [
            Refused(f"{command} --ca a.pem", "--ca a.pem: a certificate is for https, and the connection")
        ]
        for command in (SUBMIT, "jobs --address head:8265", "stop ID --address http://head:8265")
    },
    "--shard": {"retry": [Refused("retry {a} --trust --shard nowhere.parquet", "no shard is named 'nowhere.parquet'")]},
    "--fail-above": {
        "diff": [
            Refused(f"{DIFF} --fail-above wer=0 --fail-above wer=1", "--fail-above: found wer twice"),
            FAILED_LIMIT,
        ],
        "evaluate": [
            Refused(f"{EVALUATE} --label text --fail-above wer=1", "fail_above: found 'wer', expected one of accuracy"),
            Refused(f"{EVALUATE} --text text --fail-above wer=1 --fail-above wer=2", "--fail-above: found wer twice"),
        ],
    },
    "--fail-below": {
        "diff": [Refused(f"{DIFF} --fail-below wer=0", "fail_below: lower values of wer are better")],
        "evaluate": [
            Refused(f"{EVALUATE} --text text --fail-below accuracy=0", "fail_below: found 'accuracy', expected")
        ],
    },
    "--normalise": {
        "diff": [
            Refused(f"{DIFF} --column pred_score --normalise lower", "normalise: without effect: it normalises texts")
        ],
        "evaluate": [
            Refused(
                f"{EVALUATE} {task} text --normalise lower", "normalise: without effect: it normalises texts, and none"
            )
            for task in ("--label", "--speaker")
        ],
    },
    "--worst": {
        "diff": [Acts("cli/test_diff.py::test_json_has_everything")],
        "evaluate": [
            Refused(f"{EVALUATE} --speaker text --worst 3", "worst: without effect: pairs of speakers have no")
        ],
    },
    "--by": {
        "diff": [Acts("cli/test_diff.py::test_the_rows_the_rates_and_those_against_the_references_are_printed")],
        "evaluate": [Acts("cli/test_evaluate.py::test_the_metrics_the_counts_and_the_worst_rows_are_printed")],
        "merge": [Refused(f"{MERGE} --by pred_text", "found a column of string, expected numbers")],
        "report": [Refused("report {training} --by speaker", "to a sink of labels, found a sink of a training")],
    },
    "--over": {
        "diff": [Acts("cli/test_diff.py::test_json_has_everything")],
        "evaluate": [Acts("cli/test_evaluate.py::test_speakers_have_an_equal_error_rate_of_pairs")],
    },
    "--rows": {
        "run": [Acts("cli/test_displays.py::test_a_try_out_shows_rows_with_invalid_text")],
        "label": [Refused(f"{LABEL} --rows 2 --show", "--rows: without effect: --show labels nothing")],
        "evaluate": [
            Refused(f"{EVALUATE} --text text --rows 2 --sink {{tmp}}/x", "sink: without effect: labels of the first")
        ],
    },
    "--sample": {
        "plan": [
            Refused("plan {recipe} --sample 9", "--sample: the rows of a training are indexed, not sampled"),
            Said("plan {done} --sample 9", f"--sample: {NOTHING_LEFT}"),
        ],
        "verify": [Said("verify {failed} --trust --sample 3", "none labelled again, since no row is ok")],
    },
    "--to": {
        "merge": [Acts(f"{HERE}test_a_merge_is_written_to_its_folder")],
        "export": [Acts("cli/test_export.py::test_refusals_are_one_line_and_code_2")],
        "label": [Acts(f"{FOLDERS}test_subtitles_stand_beside_recordings_and_new_ones_are_added")],
    },
    "--column": {
        "diff": [Acts("cli/test_diff.py::test_what_cannot_be_compared_is_refused_with_exit_code_2")],
    },
    "--restart": {
        "finetune": [
            Refused("finetune {recipe} --steps 1 --restart", "--restart: without effect: a try-out"),
            Helped("if any"),
        ],
        "export": [Helped("if DEST has one")],
        "label": [Refused(f"{LABEL} --restart", "--restart: replaces an export, and none is asked for")],
    },
}
OF_ONE_VERB: dict[str, list[Row]] = {
    **{
        f"plan {option}": [
            Refused(f"plan {{file}} --sample 0 {given}", f"{option}: {NO_ESTIMATE}"),
            Said(f"plan {{done}} {given}", f"{option}: {NOTHING_LEFT}"),
        ]
        for given in ("--rtfx 9", "--like {a}", "--calibrate", "--price 1")
        for option in given.split()[:1]
    },
    **{
        f"label {option}": [Acts(f"{FOLDERS}test_a_shown_file_makes_the_same_labels_in_the_same_sink")]
        for option in ("--model", "--words", "--align", "--out", "--show")
    },
    "label --language": [
        Refused(f"{LABEL} --language de", "language is for checkpoints with a text decoder, or with adapters")
    ],
    "finetune --steps": [Acts("cli/test_finetune.py::test_a_try_out_prints_texts_and_the_command_that_trains")],
    "export --processes": [
        Acts("by_promise/test_clips_at_scale.py::test_processes_write_the_same_files_and_start_a_decoder_each")
    ],
    "submit --env": [Acts("cli/test_jobs.py::TestSubmit::test_what_is_wrong_here_is_refused_before_a_job_is_made")],
    "submit --with-raysp": [
        Refused(f"{SUBMIT} --with-raysp raysp-0-any.whl", "no such file; expected a wheel of raysp")
    ],
    "submit --detach": [Acts("cli/test_jobs.py::TestSubmit::test_detached_it_says_how_to_follow_and_to_stop")],
    "jobs --follow": [Refused("jobs --follow", "--follow: follows one job; give its id")],
    "gc --dry-run": [Acts(f"{HERE}test_a_dry_run_of_gc_lists_files_and_removes_none")],
    "report --normalise": [Acts("by_promise/test_normalise.py::test_a_report_compares_by_it_and_names_it")],
    "status --verbose": [Helped("in --json always")],
    "status --watch": [Acts("cli/test_watch.py::test_changes_are_lines_and_the_end_is_the_whole_status")],
    "report --suggest": [
        Refused("report {a} --suggest pred_score --out {tmp}/x", "--out: without effect: --suggest writes no page"),
        Refused("report {a} --suggest pred_text", "suggest='pred_text': found a column of string, expected numbers"),
    ],
    "report --quantile": [Refused("report {a} --quantile 0.1", "--quantile: without effect: they are of --suggest")],
    "report --group": [Refused("report {a} --group id", "--group: without effect: they are of --suggest")],
    "report --out": [Acts("labelling/reports/test_reporting.py::test_the_command_prints_the_path")],
    **{
        f"evaluate {one}": [Refused(f"{EVALUATE} {one} text {other} text", "; give one of them")]
        for one, other in (("--text", "--label"), ("--label", "--speaker"), ("--speaker", "--text"))
    },
    "evaluate --sink": [
        Refused(f"{EVALUATE} --text text --rows 2 --sink {{tmp}}/x", "sink: without effect: labels of")
    ],
    "merge --text": [Refused(f"{MERGE} --text pred_text", "text: without effect: by='pred_score' compares no texts")],
    "merge --normalise": [Refused(f"{MERGE} --normalise lower", "normalise: without effect: by='pred_score' compares")],
    "diff --html": [Acts("cli/test_diff.py::test_the_comparison_can_be_a_page")],
    "export --beside": [
        Refused("export {a} --to ctm --beside", "beside=True does not apply to ctm; it is an option of srt, vtt"),
        Refused("export {a} {tmp}/x --to srt --beside", "dest: without effect"),
    ],
    "export --dest-option": [local(f"{EXPORT} jsonl", "--dest-option")],
    "inspect --backend": [Acts("backends/test_other_models.py::test_inspect_shows_what_runs_a_checkpoint")],
}
ROWS = {f"{verb} {option}": rows for option, verbs in COMMON.items() for verb, rows in verbs.items()} | OF_ONE_VERB
"""What happens to each option where it would have no effect."""


def rows_of(kind: type[Row]) -> list:
    """Return the rows of a kind, with the names of their options as ids."""
    return [pytest.param(name, row, id=name) for name, rows in ROWS.items() for row in rows if isinstance(row, kind)]


def test_every_option_of_every_verb_has_a_row():
    assert set(ROWS) == OPTIONS
    assert all(ROWS.values())


@pytest.mark.parametrize(("name", "row"), rows_of(Acts))
def test_the_test_of_an_option_that_always_acts_exists(name, row):
    file, _, test = row.test.partition("::")
    assert test in names_in(Path(__file__).parents[1] / file), name


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two labellings of two spoken digits, one of rows that all fail, a training, and files for the command line."""
    folder = tmp_path_factory.mktemp("options")
    write_shard(folder / "in" / "a.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 2))
    write_shard(folder / "noise" / "a.parquet", table=rows_table(2, audio=b"no audio"))
    source = f"{folder}/in/*.parquet"
    files = {}
    for name, values in {"done": {}, "file": {}, "remote": {"source": "s3://b/in", "sink": "s3://b/out"}}.items():
        (folder / f"of {name}").mkdir()
        files[name] = write_recipe(folder / f"of {name}", **{"source": source, **values})
    files["recipe"] = folder / "recipe.py"
    files["recipe"].write_text(RECIPE.format(source=source, checkpoint=str(CHECKPOINT), sink=f"{folder}/m", epochs=1))
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(), raysp.Embedding()])]
    for sink in "ab":
        raysp.run(a_pipeline(source, f"{folder}/{sink}", steps=steps), engine="here", progress=False)
    raysp.run(a_pipeline(f"{folder}/noise/*.parquet", f"{folder}/failed"), engine="here", progress=False)
    assert kit.run(["run", files["done"]]).code == 0
    trainings.Sink(folder / "training").train(range(1, 4))
    return {"folder": folder, **{name: folder / name for name in ("a", "b", "failed", "training")}, **files}


@pytest.fixture
def command(raysp_command, places, tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(line):
        return raysp_command(*(word.format(tmp=tmp_path, **places) for word in shlex.split(line)))

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), rows_of(Refused))
def test_an_option_without_effect_is_refused(command, name, row):
    assert name.split()[1] in row.command.split()
    ran = command(row.command)
    assert (ran.code, ran.out) == (2, ""), ran.err
    (line,) = [one for one in ran.complaints if not one.startswith("raysp: reading ")]
    assert row.message in line


@pytest.mark.lengthy
@pytest.mark.parametrize(("name", "row"), rows_of(Said))
def test_an_option_without_effect_is_said_to_have_none(command, name, row):
    assert name.split()[1] in row.command.split()
    ran = command(row.command)
    assert ran.code == 0, ran.err
    assert row.message in ran.err + ran.out


@pytest.mark.parametrize(("name", "row"), rows_of(Helped))
def test_the_help_of_an_option_says_where_it_changes_nothing(name, row):
    verb, option = name.split()
    assert row.words in help_of(verb).options[option].words


@pytest.mark.parametrize("verb", VERBS)
def test_debug_shows_the_traceback_of_an_error(raysp_command, verb):
    plain, debug = (raysp_command(verb, "--no-such-option", *more) for more in ((), ("--debug",)))
    assert (plain.code, "Traceback" in plain.err) == (debug.code, "Traceback" not in debug.err) == (2, False)


READING = (
    "status {a}",
    "verify {a}",
    "gc {a}",
    "retry {failed} --trust",
    "report {a} --out {tmp}/r.html",
    f"{EXPORT} jsonl",
)


@pytest.mark.parametrize(
    "line", [*READING, "plan {file}", DIFF, MERGE, f"inspect {CHECKPOINT}", "models", "doctor", LABEL]
)
def test_json_is_one_object(command, monkeypatch, line):
    monkeypatch.setattr("raysp.cluster.doctor.examine", lambda: [])
    ran = command(f"{line} --json")
    assert isinstance(json.loads(ran.out), dict)
    assert ran.complaints == []


def test_a_merge_is_written_to_its_folder(command, tmp_path):
    ran = command(MERGE)
    assert ran.code == 0, ran.err
    assert pq.read_table(tmp_path / "merged" / "a.parquet").num_rows == 2


def test_a_dry_run_of_gc_lists_files_and_removes_none(command, places):
    left = places["failed"] / ".raysp" / "tmp" / "left"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"x")
    for line, stays in {"gc {failed} --dry-run --json": True, "gc {failed} --json": False}.items():
        ran = command(line)
        assert [orphan["path"] for orphan in json.loads(ran.out)["orphans"]] == [".raysp/tmp/left"]
        assert left.exists() == stays


@pytest.mark.parametrize(
    "line",
    [
        *("run {file}", "run {file} --rows 2", LABEL, "retry {failed} --trust"),
        f"{EVALUATE} --text text --sink {{tmp}}/x",
    ],
)
def test_an_address_is_that_of_the_cluster(command, monkeypatch, line):
    def connected(address):
        raise raysp.PlanError(f"nothing answers at {address}")

    monkeypatch.setattr("raysp.labelling.engine.running.connected", connected)
    ran = command(f"{line} --address head:6379")
    assert (ran.code, ran.complaints) == (2, ["raysp: nothing answers at head:6379"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda file, recipe: raysp.estimate(file, like_options={"anon": True}), "like_options: .* there is none"),
        (lambda file, recipe: raysp.estimate(recipe, seed=1), "seed: .* the rows of a recipe are not sampled"),
        (
            lambda file, recipe: raysp.Labeller(file.steps, storage_options={"anon": True}),
            "storage_options: .* the folder of audio_root=, and there is none",
        ),
        (lambda file, recipe: raysp.verify("out", seed=3), "seed: .* sample=, and there is none"),
        (lambda file, recipe: raysp.evaluate("m", "in", text="text", rows=2, sink="x"), "sink: .*rows=2.* not kept"),
        (lambda file, recipe: raysp.evaluate("m", "in", speaker="who", worst=0), "worst: without effect"),
    ],
)
def test_an_argument_without_effect_is_refused(places, monkeypatch, call, message):
    run_without_ray(monkeypatch)
    with pytest.raises(raysp.SpecError, match=f"^{message}"):
        call(runpy.run_path(str(places["file"]))["pipeline"], runpy.run_path(str(places["recipe"]))["recipe"])
