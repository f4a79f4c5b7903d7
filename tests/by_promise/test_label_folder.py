"""`raysp label`: a folder is labelled without a file, and its subtitles stand beside the recordings."""

import json
import shlex
from pathlib import Path

import pysubs2
import pytest

import raysp
from tests import kit
from tests.backends.theirs import tiny_whisper
from tests.classifiers import make_classifier
from tests.kit import CHECKPOINT, killed_at, pipeline_in, rows, run
from tests.soaked import soaked

WINDOWS = "--set steps.1.overlap_seconds=0.5 --set steps.1.window_seconds=2"
"""Settings for the tiny Whisper, whose windows have two seconds."""


@pytest.fixture
def talks(tmp_path, monkeypatch) -> Path:
    """A folder of three recordings, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for number, row in enumerate(kit.digits(3)):
        add(tmp_path / "talks" / ["", "day 1", "day 2"][number] / f"talk {number}.wav", row["audio"])
    return tmp_path / "talks"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


def add(path: Path, audio: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(audio)


def label(options: str, model: object = CHECKPOINT, folder: object = "talks", **variables: str) -> kit.Ran:
    return run(["label", folder, "--model", model, *shlex.split(options)], **variables)


def as_json(options: str, **arguments: object) -> dict:
    ran = label(f"{options} --json", **arguments)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def subtitles(folder: Path, suffix: str = "srt") -> dict[str, str]:
    """Return the text of each subtitle file by its path."""
    files = sorted(folder.rglob(f"*.{suffix}"))
    texts = [" ".join(cue.plaintext for cue in pysubs2.load(str(file))) for file in files]
    return {file.relative_to(folder).as_posix(): text for file, text in zip(files, texts, strict=True)}


def texts(sink: str, suffix: str = "srt") -> dict[str, str]:
    """Return the texts of labels by the paths of their subtitles."""
    return {f"{row['id'].removesuffix('wav')}{suffix}": row["pred_text"] for row in rows(sink)}


def test_subtitles_stand_beside_recordings_and_new_ones_are_added(talks):
    ran = label("--to srt")
    assert ran.code == 0, ran.err
    assert ran.err.startswith(f"raysp: labelling talks with {CHECKPOINT} into talks-labels ...\n")
    assert subtitles(talks) == texts("talks-labels")
    assert len(subtitles(talks)) == 3
    said = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if line[:1].islower())
    assert said["labels"] == f"{talks}-labels: 1 of 1 shard committed"
    assert said["srt"].startswith("3 files, ")
    assert said["srt"].endswith(f" in {talks}")
    assert said["report"] == "raysp report talks-labels"
    assert said["again"] == "the same command labels and exports what is new"

    edited = talks / "day 1" / "talk 1.srt"
    edited.write_text(edited.read_text().lower())
    add(talks / "later.mp3.wav", kit.digits(4)[3]["audio"])
    again = as_json("--to srt")
    assert (again["rows"], again["shards"], again["shards_before"]) == (1, 2, 1)
    assert (again["export"]["files"], again["export"]["kept"]) == (3, 1)
    assert subtitles(talks) == {
        **texts("talks-labels"),
        "day 1/talk 1.srt": texts("talks-labels")["day 1/talk 1.srt"].lower(),
    }
    assert as_json("--to srt")["rows"] == 0
    assert "kept         1 file that no export wrote or that changed since" in label("--to srt").out


def test_labels_are_those_of_a_run_and_the_next_command_is_named(talks):
    ran = label("--words")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1].split(maxsplit=1) == ["next", "raysp export talks-labels talks-labels-csv --to csv"]
    step = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(words=True)])
    steps = [raysp.Decode(), step]
    result = raysp.run(
        raysp.Pipeline(raysp.Shards("talks"), steps=steps, sink=raysp.Parquet("other")), engine="here", progress=False
    )
    assert rows("talks-labels") == rows("other")
    assert as_json("--words")["fingerprint"] == result.fingerprint
    assert run("export talks-labels talks-labels-csv --to csv").code == 0
    assert as_json("--words --to csv")["export"]["shards_before"] == 1


@pytest.mark.parametrize(
    "options",
    [f"--words --align {CHECKPOINT} --out other/labels", "--to vtt --set sink.rows=ok --set name=it"],
)
def test_a_shown_file_makes_the_same_labels_in_the_same_sink(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    folder = 'it\'s "talks" \\ ü'
    for number, row in enumerate(kit.digits(2)):
        add(tmp_path / folder / f"{number}.wav", row["audio"])
    shown = label(f"{options} --show", folder=folder)
    assert (shown.code, shown.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    Path("shown_by_the_test.py").write_text(shown.out)
    made = as_json(options, folder=folder)
    again = run("run shown_by_the_test.py --json")
    assert again.code == 0, again.err
    again = json.loads(again.out)
    assert (again["rows"], again["shards_before"]) == (0, 1)
    assert again["fingerprint"] == made["fingerprint"]
    assert run("run shown_by_the_test.py --set sink.url=apart").code == 0
    assert rows("apart") == rows(pipeline_in("shown_by_the_test.py").sink.url)
    exported = [line for line in shown.out.splitlines() if line.startswith("# raysp export ")]
    assert [line.split()[3:] for line in exported] == (
        [["FILE", "--beside", "--to", "vtt"]] if "vtt" in options else []
    )


@pytest.mark.drivers
@pytest.mark.parametrize("phase", ["before_shard_committed", *soaked(["after_piece_staged", "after_run_finished"])])
def test_a_killed_command_goes_on_when_it_is_given_again(talks, phase):
    line = ["label", "talks", "--model", CHECKPOINT, "--to", "srt"]
    killed_at(phase, 1, line)
    assert subtitles(talks) == {}
    again = as_json("--to srt")
    assert again["rows"] == 0 if phase == "after_run_finished" else again["shards_committed"] == 1
    assert subtitles(talks) == texts("talks-labels")
    assert label("--words --out apart").code == 0
    assert rows("talks-labels") == rows("apart")


def test_texts_of_a_recogniser_without_times_have_those_of_a_second_model(talks, whisper):
    assert as_json(WINDOWS, model=whisper)["rows"] == 3
    plain = rows("talks-labels", "id", "pred_text")
    refused = label(f"{WINDOWS} --to srt --out timed", model=whisper)
    assert (refused.code, refused.out) == (2, "")
    assert "writes text without times" in refused.err
    assert "(raysp label: --align CTC)" in refused.err
    assert not Path("timed").exists() or not list(Path("timed").glob("*.parquet"))
    timed = as_json(f"{WINDOWS} --to vtt --align {CHECKPOINT} --out timed", model=whisper)
    assert (timed["rows"], timed["export"]["files"]) == (3, 3)
    assert rows("timed", "id", "pred_text") == plain
    assert {name: text.replace(" ", "") for name, text in subtitles(talks, "vtt").items()} == {
        name: text.replace(" ", "") for name, text in texts("timed", "vtt").items()
    }


def test_a_try_out_names_the_command_that_labels_all(talks):
    ran = label("--to srt --rows 2 --set max_error_rate=1")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("The first 2 rows (nothing was kept)")
    command = f"raysp label talks --model {CHECKPOINT} --to srt --set max_error_rate=1"
    assert ran.out.splitlines()[-1].split(maxsplit=1) == ["next", command]
    assert [path.name for path in talks.parent.iterdir()] == ["talks"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere --model {model}", "nowhere': no such file or folder; check the path"),
        ("texts --model {model}", "found no shard and no recording in it, only 1 other file: 1 .txt"),
        ("talks --model nowhere", "checkpoint 'nowhere': no such folder; expected a Hugging Face model folder"),
        ("talks", "Missing option '--model'"),
        ("talks --model {model} --to str", "found the format 'str'; expected one of srt, vtt"),
        (
            "talks --model {model} --to rttm",
            "--to rttm: has turns of speakers; add Turns() to the pipeline that --show",
        ),
        (
            "s3://b/talks/*.mp3 --model {model}",
            "is a url; add the folder of the labels, as in --out s3://b/talks-labels",
        ),
        ("talks --model {model} --out talks/x", "the label shard {folder}/talks/x/talks-00000.parquet would be one of"),
        ("talks --model {model} --words --out done", "words` was False, now True; undo the change, or choose another"),
        ("talks --model classes", "does not support Transcript; it supports Classes, Embedding: name one of those in"),
    ],
)
def test_a_command_that_cannot_begin_is_refused_with_the_remedy(talks, arguments, message):
    (talks.parent / "texts").mkdir()
    (talks.parent / "texts" / "a.txt").write_text("one")
    if "classes" in arguments:
        make_classifier(talks.parent / "classes", "en", "de")
    if "done" in arguments:
        assert label("--out done").code == 0
    ran = run(["label", *(word.format(model=CHECKPOINT) for word in arguments.split())])
    assert (ran.code, ran.out) == (2, "")
    assert message.format(folder=talks.parent) in ran.err.splitlines()[-1]
