"""Label Studio: tasks with labels as predictions, and corrections of people as texts of the same rows."""

import copy
import json
import xml.etree.ElementTree as ElementTree

import pyarrow as pa
import pytest

import raysp
from tests.corpora import a_pipeline, digits_table, labelled, write_shard
from tests.kit import rows

TURNS = pa.list_(
    pa.struct([("speaker", pa.int32()), ("start", pa.float64()), ("end", pa.float64()), ("score", pa.float32())])
)


@pytest.fixture
def folder(tmp_path):
    """A folder of four labelled recordings."""
    (tmp_path / "in").mkdir()
    for row in digits_table(4).to_pylist():
        (tmp_path / "in" / f"{row['id']}.wav").write_bytes(row["audio"]["bytes"])
    label(raysp.Shards(f"{tmp_path}/in"), tmp_path / "out")
    return tmp_path


def label(source, sink, words=True, **options):
    made = a_pipeline(source, raysp.Parquet(str(sink), **options), label={"outputs": [raysp.Transcript(words=words)]})
    raysp.run(made, engine="here", progress=False)


def tasks_of(folder):
    return [task for path in sorted((folder / "tasks").glob("*.json")) for task in json.loads(path.read_text())]


def exported(folder, **options):
    spec = raysp.LabelStudio(**options)
    return raysp.export(f"{folder}/out", spec, f"{folder}/tasks", trust=True), tasks_of(folder)


def annotation(task, text=None, day=1, **fields):
    """Return the annotation that Label Studio stores when a prediction is accepted, or its first text changed."""
    results = copy.deepcopy(task["predictions"][0]["result"])
    for result in results:
        result["origin"] = "prediction"
        if text is not None and result["type"] == "textarea":
            result["value"]["text"] = [text]
    return {"id": day, "result": results, "was_cancelled": False, "updated_at": f"2026-11-0{day}T10:00:00Z", **fields}


def as_annotated(task, *annotations):
    return {"id": task["data"]["row"], **task, "annotations": [*annotations], "drafts": [], "meta": {}}


def test_tasks_have_regions_with_texts_and_an_interface_that_shows_them(folder):
    result, tasks = exported(folder)
    labels = rows(folder / "out")
    assert (result.rows, result.files) == (4, 2)
    for task, row in zip(tasks, labels, strict=True):
        data, [prediction] = task["data"], task["predictions"]
        assert data["audio"] == f"{folder}/in/{row['id']}"
        assert (data["id"], data["row"], data["text"]) == (row["id"], row["row"], row["pred_text"])
        region, text = prediction["result"]
        assert (region["type"], region["value"]["labels"], region["value"]["channel"]) == ("labels", ["speech"], 0)
        assert (text["type"], text["value"]["text"]) == ("textarea", [row["pred_text"]])
        assert region["id"] == text["id"]
        [word] = row["pred_words"]
        assert (
            region["value"]["start"] <= word["start"] < word["end"] <= region["value"]["end"] <= row["seconds"] + 0.001
        )
        assert 0 < prediction["score"] <= 1
        assert prediction["model_version"].split()
    config = ElementTree.parse(folder / "tasks" / "labeling_config.xml").getroot()
    controls = {control.get("name"): control for control in config}
    assert {control: one.tag for control, one in controls.items()} == {
        "audio": "Audio",
        "labels": "Labels",
        "transcription": "TextArea",
    }
    assert controls["audio"].get("value") == "$audio"
    assert [label.get("value") for label in controls["labels"]] == ["speech"]
    names = {(result["from_name"], result["to_name"]) for task in tasks for result in task["predictions"][0]["result"]}
    assert names == {("labels", "audio"), ("transcription", "audio")}


def test_turns_are_regions_with_the_speaker_as_label(tmp_path):
    spans = [("a", 0.1, 0.4), ("b", 0.5, 0.8), ("c", 2.1, 2.6)]
    words = [{"word": word, "start": start, "end": end, "score": 0.5} for word, start, end in spans]
    turns = [(0, 0.0, 0.9), (1, 2.0, 2.7)]
    columns = {
        "pred_text": ["a b c"],
        "pred_words": [words],
        "seconds": [4.0],
        "status": ["ok"],
        "pred_turns": pa.array(
            [[{"speaker": number, "start": start, "end": end, "score": 0.5} for number, start, end in turns]], TURNS
        ),
    }
    sink = labelled(tmp_path, columns)
    spec = raysp.LabelStudio(by="turns", audio="https://host/{id}.wav")
    raysp.export(str(sink), spec, f"{tmp_path}/tasks", trust=True)
    [task] = tasks_of(tmp_path)
    values = [result["value"] for result in task["predictions"][0]["result"]]
    assert [value["labels"] for value in values if "labels" in value] == [["speaker_0"], ["speaker_1"]]
    assert [value["text"] for value in values if "text" in value] == [["a b"], ["c"]]
    config = ElementTree.parse(tmp_path / "tasks" / "labeling_config.xml").getroot()
    assert [label.get("value") for label in config[0]] == ["speaker_0", "speaker_1", "speech"]


def test_corrections_are_texts_of_the_rows_that_train_and_evaluate(folder):
    _, [first, second, third, fourth] = exported(folder)
    done = [
        as_annotated(first, annotation(first, "early", 1), annotation(first, "right", 2)),
        as_annotated(second, annotation(second, "truth", 1, ground_truth=True), annotation(second, "late", 2)),
        as_annotated(third, annotation(third, "no", was_cancelled=True)),
        as_annotated(fourth, annotation(fourth)),
    ]
    (folder / "annotations.json").write_text(json.dumps(done))
    result = raysp.corrections(f"{folder}/annotations.json", f"{folder}/corrected.jsonl")
    assert (result.rows, result.changed, result.unannotated) == (3, 2, 1)
    assert f"Shards('{folder}/corrected.jsonl', audio_root='{folder}/in', text='text')" in result.facts["read by"]
    source = raysp.Shards(f"{folder}/corrected.jsonl", audio_root=result.audio_root, text="text")
    label(source, folder / "again", keep=["text"])
    again, labels = rows(folder / "again"), rows(folder / "out")
    assert [row["text"] for row in again] == ["right", "truth", labels[3]["pred_text"]]
    for name in ("id", "pred_text", "pred_words"):
        assert [row[name] for row in again] == [labels[row][name] for row in (0, 1, 3)]


def test_corrections_of_recordings_inside_of_shards_copy_no_audio(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(3))
    label(raysp.Shards(f"{tmp_path}/in/*.parquet"), tmp_path / "out", keep=["speaker_id"])
    with pytest.raises(raysp.PlanError, match=r"inside of shards, where Label Studio cannot play them.*to.audio=https"):
        exported(tmp_path)
    _, tasks = exported(tmp_path, audio="https://host/{id}.wav")
    (tmp_path / "done.json").write_text(json.dumps([as_annotated(task, annotation(task, "x")) for task in tasks]))
    result = raysp.corrections(f"{tmp_path}/done.json", f"{tmp_path}/corrected.jsonl")
    source = raysp.Shards(f"{tmp_path}/corrected.jsonl", audio_root=result.audio_root, text="text")
    label(source, tmp_path / "again", keep=["text", "speaker_id"])
    again, labels = rows(tmp_path / "again"), rows(tmp_path / "out")
    for name in ("id", "pred_text", "speaker_id", "status"):
        assert [row[name] for row in again] == [row[name] for row in labels]
    assert {row["text"] for row in again} == {"x"}


DATA = {"id": "a", "audio_filepath": "/a.wav", "offset": 0, "duration": 1, "text": "a", "shard": "a", "row": 0}
ANNOTATIONS = (None, {"result": [None]}, {"result": [{"type": "textarea", "from_name": "transcription"}]})
ODD = "an annotation of entry 0 is not of the form that Label Studio writes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"a": 1}', "entry 0 has no data and annotations"),
        ('[{"id": 1, "transcription": "a"}]', "JSON-MIN"),
        ('[{"data": {"audio": "a"}, "annotations": []}]', "lack id, audio_filepath"),
        *((json.dumps([{"data": DATA, "annotations": [one]}]), ODD) for one in ANNOTATIONS),
    ],
)
def test_another_export_or_form_of_annotations_is_refused_with_its_entry(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(raysp.SpecError, match=message):
        raysp.corrections(f"{tmp_path}/a.json", f"{tmp_path}/out.jsonl")


@pytest.mark.parametrize("audio", ["https://host/a.wav", "{name}", "{id.__class__}"])
def test_a_template_without_its_fields_is_refused(audio):
    with pytest.raises(raysp.SpecError, match=r"expected a url with fields of \{path\}, \{id\}, \{shard\}, \{row\}"):
        raysp.LabelStudio(audio=audio)
