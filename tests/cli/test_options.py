"""Every option of every verb: it always acts, or is refused or said to act on nothing where it would have no effect.

The options are those of the help pages: one that stands nowhere here fails.
"""

import json
import shlex

import pytest

import raysp
from tests import kit, trainings
from tests.cli.test_finetune import RECIPE
from tests.commands import help_of, verbs, write_recipe
from tests.corpora import CHECKPOINT, a_pipeline, digits_table, rows_table, write_shard

VERBS = [verb for group in verbs().values() for verb in group]
OPTIONS = {f"{verb} {name}" for verb in VERBS for name in help_of(verb).options if name != "--help"}
DIFF, MERGE, EXPORT = "diff {a} {b}", "merge {a} {b} --by pred_score --to {tmp}/merged", "export {a} {tmp}/x --to"
EVALUATE = f"evaluate {CHECKPOINT} {{folder}}/in"
LABEL = f"label {{folder}}/in --model {CHECKPOINT} --out {{tmp}}/x"
SUBMIT = "submit {remote} --address http://head:8265"
TRAIN = "finetune {recipe} --steps 1"

ACTING = {
    "--debug": VERBS,
    "--json": VERBS,
    "--address": ["run", "label", "retry", "evaluate", "submit", "jobs", "stop"],
    "--by": ["diff", "evaluate"],
    "--over": ["diff", "evaluate"],
    "--to": ["merge", "export", "label"],
    "--out": ["label", "report"],
    "--rows": ["run"],
    **{option: ["label"] for option in ("--model", "--words", "--align", "--show")},
    **{option: ["diff"] for option in ("--worst", "--column", "--html")},
    **{option: ["submit"] for option in ("--env", "--detach")},
    "--steps": ["finetune"],
    "--processes": ["export"],
    "--dry-run": ["gc"],
    "--normalise": ["report"],
    "--watch": ["status"],
    "--backend": ["inspect"],
}
"""Options that have an effect wherever they are given."""
HELPED = {
    **{
        f"{verb} --trust": "that the sink names"
        for verb in ("retry", "verify", "gc", "status", "report", "forget", "diff", "merge", "export")
    },
    "finetune --restart": "if any",
    "export --restart": "if DEST has one",
    "status --verbose": "in --json always",
}
"""Options that are harmless where they change nothing, with words of their help that say when."""
SAID = {
    "plan {done} --sample 9": "--sample: without effect: no row is left to label, so there is nothing to estimate",
    "verify {failed} --trust --sample 3": "none labelled again, since no row is ok",
    **{
        f"plan {{done}} {given}": f"{given.split()[0]}: without effect: no row is left to label"
        for given in ("--rtfx 9", "--like {a}", "--calibrate", "--price 1")
    },
}
"""Commands whose last option has no effect, and a line that says so."""
LOCAL = {
    **{f"{verb} {{a}}": "--storage-option" for verb in ("retry", "verify", "gc", "status", "report")},
    **dict.fromkeys((DIFF, MERGE, f"{EXPORT} jsonl", "forget {a} ID"), "--storage-option"),
    f"inspect {CHECKPOINT}": "--storage-option",
    f"convert {CHECKPOINT} {{tmp}}/x": "--storage-option",
    f"{EXPORT} jsonl ": "--dest-option",
}
"""Commands of local places alone, with an option of object storage."""
WITHOUT_FILE = ("verify {a}", "gc {a}", "status {a}", "report {a}", "forget {a} ID", f"{EXPORT} jsonl", "retry {a}")
REFUSED = [
    *(
        (line, f"{option} anon=true", f"{option} anon: applies to a url such as s3://")
        for line, option in LOCAL.items()
    ),
    (
        "status {file}",
        "--storage-option secret=hunter2",
        "--storage-option secret: applies to a folder of label shards",
    ),
    *((line, "--set sink.url=x", "--set sink.url=x: applies to a pipeline file, found the") for line in WITHOUT_FILE),
    *(
        (line, "--set sink.ulr=x", "has no field 'ulr'")
        for line in ("plan {file}", "run {file}", LABEL, SUBMIT, "finetune {recipe}", f"{EVALUATE} --text text")
    ),
    ("run {file}", "--set steps.1.outputs.0.lm_weight=2", "lm_weight given without lm"),
    (f"{EXPORT} ctm", "--set to.max_chars=20", "--set to.max_chars: Ctm has no field 'max_chars'; its"),
    (f"{EXPORT} srt", "--set to.language=tlh", "Srt.language: found 'tlh'; input should be 'de', 'en'"),
    (LABEL, "--set to.max_chars=20", "has no field 'to'"),
    (TRAIN, "--address ray:6379", "a try-out runs on this machine"),
    (f"{EXPORT} jsonl", "--address local", "expected the address of a cluster; processes=N"),
    *(
        (line, "--engine nowhere", "engine: found 'nowhere', expected 'auto', 'here' or 'ray'")
        for line in ("run {file}", LABEL, "retry {a} --trust", f"{EVALUATE} --text text")
    ),
    (TRAIN, "--engine ray", "a try-out trains in this process"),
    *(
        (line, "--ca a.pem", "--ca a.pem: a certificate is for https, and the connection")
        for line in (SUBMIT, "jobs --address head:8265", "stop ID --address http://head:8265")
    ),
    ("retry {a} --trust", "--shard nowhere.parquet", "no shard is named 'nowhere.parquet'"),
    (f"{DIFF} --fail-above wer=0", "--fail-above wer=1", "--fail-above: found wer twice"),
    (f"{EVALUATE} --label text", "--fail-above wer=1", "fail_above: found 'wer', expected one of accuracy"),
    (DIFF, "--fail-below wer=0", "fail_below: lower values of wer are better"),
    (f"{EVALUATE} --text text", "--fail-below accuracy=0", "fail_below: found 'accuracy', expected"),
    (f"{DIFF} --column pred_score", "--normalise lower", "normalise: without effect: it normalises texts"),
    (f"{EVALUATE} --label text", "--normalise lower", "normalise: without effect: it normalises texts, and none"),
    (f"{EVALUATE} --speaker text", "--normalise lower", "normalise: without effect: it normalises texts, and none"),
    (f"{EVALUATE} --speaker text", "--worst 3", "worst: without effect: pairs of speakers have no"),
    ("merge {a} {b} --to {tmp}/merged", "--by pred_text", "found a column of string, expected numbers"),
    ("report {training}", "--by speaker", "to a sink of labels, found a sink of a training"),
    (f"{LABEL} --show", "--rows 2", "--rows: without effect: --show labels nothing"),
    (f"{EVALUATE} --text text --sink {{tmp}}/x", "--rows 2", "sink: without effect: labels of the first"),
    (f"{EVALUATE} --text text --rows 2", "--sink {tmp}/x", "sink: without effect: labels of the first"),
    ("plan {recipe}", "--sample 9", "--sample: the rows of a training are indexed, not sampled"),
    (TRAIN, "--restart", "--restart: without effect: a try-out"),
    (LABEL, "--restart", "--restart: replaces an export, and none is asked for"),
    (LABEL, "--language de", "language is for checkpoints with a text decoder, or with adapters"),
    *(
        ("plan {file} --sample 0", given, f"{given.split()[0]}: without effect: --sample 0 makes no estimate")
        for given in ("--rtfx 9", "--like {a}", "--calibrate", "--price 1")
    ),
    (SUBMIT, "--with-raysp raysp-0-any.whl", "no such file; expected a wheel of raysp"),
    ("jobs", "--follow", "--follow: follows one job; give its id"),
    ("report {a} --out {tmp}/x", "--suggest pred_score", "--out: without effect: --suggest writes no page"),
    ("report {a}", "--suggest pred_text", "suggest='pred_text': found a column of string, expected numbers"),
    ("report {a}", "--quantile 0.1", "--quantile: without effect: they are of --suggest"),
    ("report {a}", "--group id", "--group: without effect: they are of --suggest"),
    *(
        (f"{EVALUATE} {other} text", f"{one} text", "; give one of them")
        for one, other in (("--text", "--label"), ("--label", "--speaker"), ("--speaker", "--text"))
    ),
    (MERGE, "--text pred_text", "text: without effect: by='pred_score' compares no texts"),
    (MERGE, "--normalise lower", "normalise: without effect: by='pred_score' compares"),
    ("export {a} --to ctm", "--beside", "beside=True does not apply to ctm; it is an option of srt, vtt"),
    ("export {a} {tmp}/x --to srt", "--beside", "dest: without effect"),
    ("convert s3://b/a.nemo {tmp}/x", "--storage-option anon=true", "expected a local file: download the"),
]
"""Commands in which an option would have no effect, or cannot be: exit code 2 and one line."""


def of(line: str, option: str) -> str:
    return f"{line.split()[0]} {option.split()[0]}"


def test_every_option_of_every_verb_stands_here():
    found = {f"{verb} {option}" for option, verbs in ACTING.items() for verb in verbs}
    found |= {*HELPED} | {of(line, option) for line, option, _ in REFUSED}
    found |= {of(line, line[line.index("--", line.index("}")) :].removeprefix("--trust ")) for line in SAID}
    assert found == OPTIONS


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two labellings of two spoken digits, one of rows that all fail, a training, and files for the command line."""
    folder = tmp_path_factory.mktemp("options")
    write_shard(folder / "in" / "a.parquet", table=digits_table(2))
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
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return lambda line: raysp_command(*(word.format(tmp=tmp_path, **places) for word in shlex.split(line)))


@pytest.mark.slow
@pytest.mark.parametrize(("line", "option", "message"), REFUSED)
def test_an_option_without_effect_is_refused(command, line, option, message):
    ran = command(f"{line} {option}")
    assert (ran.code, ran.out) == (2, ""), ran.err
    [complaint] = [one for one in ran.complaints if not one.startswith("raysp: reading ")]
    assert message in complaint


@pytest.mark.lengthy
@pytest.mark.parametrize(("line", "message"), SAID.items())
def test_an_option_without_effect_is_said_to_have_none(command, line, message):
    ran = command(line)
    assert ran.code == 0, ran.err
    assert message in ran.err + ran.out


def test_the_help_of_an_option_says_where_it_changes_nothing():
    for name, words in HELPED.items():
        verb, option = name.split()
        assert words in help_of(verb).options[option].words, name


def test_debug_shows_the_traceback_of_an_error(raysp_command):
    for verb in VERBS:
        plain, debug = (raysp_command(verb, "--no-such-option", *more) for more in ((), ("--debug",)))
        assert (plain.code, "Traceback" in plain.err) == (debug.code, "Traceback" not in debug.err) == (2, False), verb


def test_json_is_one_object(command):
    lines = ["status {a}", "verify {a}", "gc {a}", "retry {failed} --trust", "report {a} --out {tmp}/r.html", LABEL]
    for line in (
        *lines,
        "export {a} {tmp}/y --to jsonl",
        "plan {file}",
        DIFF,
        MERGE,
        f"inspect {CHECKPOINT}",
        "models",
    ):
        ran = command(f"{line} --json")
        assert isinstance(json.loads(ran.out), dict), line
        assert ran.complaints == []


def test_a_dry_run_of_gc_lists_files_and_removes_none(command, places):
    left = places["failed"] / ".raysp" / "tmp" / "left"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"x")
    for line, stays in {"gc {failed} --dry-run --json": True, "gc {failed} --json": False}.items():
        ran = command(line)
        assert [orphan["path"] for orphan in json.loads(ran.out)["orphans"]] == [".raysp/tmp/left"]
        assert left.exists() == stays


def test_an_address_is_that_of_the_cluster(command):
    kept = f"{EVALUATE} --text text --sink {{tmp}}/x"
    for line in ("run {file}", "run {file} --rows 2", LABEL, "retry {failed} --trust", kept):
        ran = command(f"{line} --address 127.0.0.1:99999")
        assert (ran.code, "--address 127.0.0.1:99999: no cluster answers there" in ran.complaints[-1]) == (2, True)


def test_an_argument_without_effect_is_refused(places):
    pipeline, options = kit.pipeline_in(places["file"]), {"anon": True}
    calls = {
        "like_options: .* there is none": lambda: raysp.estimate(pipeline, like_options=options),
        "storage_options: .* and there is none": lambda: raysp.Labeller(pipeline.steps, storage_options=options),
        "seed: .* sample=, and there is none": lambda: raysp.verify("out", seed=3),
    }
    for message, call in calls.items():
        with pytest.raises(raysp.SpecError, match=f"^{message}"):
            call()
