"""References joined with label rows: evaluations of sinks whose label rows are chosen."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raysp
from tests.classifiers import make_classifier, make_speaker_model
from tests.corpora import AUDIO, CHECKPOINT, rewrite, rows_table, wav, with_columns, write_shard

OK = {"status": "ok", "error_type": None, "error_message": None, "seconds": 1.0}


def write(folder: Path, shards: Mapping[str, Sequence[str | None]], by: Sequence[str | None] = ()) -> None:
    """Write shards of references, with recordings that are too short for a model: labelling them takes no time.

    Args:
        folder: folder of the corpus.
        shards: references by shard.
        by: values of the column of groups; without them each row has one of its own.
    """
    for name, texts in shards.items():
        number = len(texts)
        columns = {
            "id": [f"{name}{row}" for row in range(number)],
            "audio": pa.array([{"bytes": wav(20), "path": None}] * number, AUDIO),
            "text": pa.array(texts, pa.string()),
            "by": by or [f"of {name}{row}" for row in range(number)],
        }
        write_shard(folder / "in" / f"{name}.parquet", table=pa.table(columns))


def choose(folder: Path, labels: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Give label rows their values by shard: those of `OK` but for what is given."""
    for name, rows in labels.items():
        columns = {key: [{**OK, **row}.get(key) for row in rows] for key in {**OK, **rows[0]}}
        rewrite(folder / "out" / f"{name}.parquet", partial(with_columns, columns=columns))


def evaluate(folder: Path, checkpoint: object = CHECKPOINT, **options: Any) -> Any:
    label = checkpoint if isinstance(checkpoint, raysp.Label) else str(checkpoint)
    given = {"text": "text", "by": ["by"], "engine": "here", "progress": False, **options}
    return raysp.evaluate(label, f"{folder}/in", sink=f"{folder}/out", **given)


def skipped(kind: str) -> dict[str, Any]:
    return {"status": "skipped", "error_type": kind, "pred_text": None}


def error(kind: str) -> dict[str, Any]:
    return {"status": "error", "error_type": kind, "pred_text": None}


def test_rows_of_shards_that_failed_are_counted_and_have_no_labels(tmp_path):
    shards = {"a": ["one", None], "b": ["two"], "c": ["three", "four", "five"]}
    write(tmp_path, {name: texts for name, texts in shards.items() if name != "b"})
    evaluate(tmp_path)
    c = [skipped("filtered"), {"pred_text": "for", "seconds": 2.0}, {"pred_text": "five", "seconds": 4.0}]
    choose(tmp_path, {"a": [{"pred_text": "one more"}, {"pred_text": "?"}], "c": c})
    write(tmp_path, {"b": shards["b"]})
    found = evaluate(tmp_path, on_plan=lambda _: (tmp_path / "in" / "b.parquet").unlink())
    rows = found.rows
    assert [*found.run.shards_failed] == ["b.parquet"]
    assert (rows.total, rows.compared, rows.uncommitted, rows.without_reference) == (6, 3, 1, 1)
    assert (rows.skipped, rows.errors) == ({"filtered": 1}, {})
    assert found.facts["not compared"] == "1 without a reference, 1 in shards that failed, 1 skipped (filtered)"
    worst = sorted((one.id, one.shard, one.row, one.seconds, one.reference, one.hypothesis) for one in found.worst)
    assert worst == [("a0", "a.parquet", 0, 1.0, "one", "one more"), ("c1", "c.parquet", 1, 2.0, "four", "for")]
    groups = {one.value: (one.scores.seconds, one.scores.metrics["wer"].value) for one in found.by["by"]}
    assert groups == {"of a0": (1.0, 1.0), "of c1": (2.0, 1.0), "of c2": (4.0, 0.0)}


REFERENCES = ["one two three four", "five six", "", "Seven, eight"]
HYPOTHESES = ["one too three", "five six", "nine ten", "seven eight"]
# Errors: a substitution and a deletion of 4 words; none of 2; two insertions; none of 2.


def texts_of(
    folder: Path,
    references: Sequence[str],
    hypotheses: Sequence[str],
    groups: Sequence[str | None],
    seconds: Sequence[float] = (1.0,) * 9,
    **options: Any,
) -> Any:
    """Evaluate texts with values of the column of groups."""
    write(folder, {"a": references}, groups)
    evaluate(folder)
    rows = [{"pred_text": text, "seconds": one} for text, one in zip(hypotheses, seconds, strict=False)]
    choose(folder, {"a": rows})
    return evaluate(folder, **options)


def test_rates_are_of_all_words_of_groups_and_bands_and_the_worst_rows_come_first(tmp_path):
    groups, seconds = ["a", None, "a", None], [4.0, 0.5, 31.0, 2.0]
    found = texts_of(tmp_path, REFERENCES, HYPOTHESES, groups=groups, seconds=seconds, worst=2)
    assert found.scores.metrics["wer"].value == 4 / 8
    assert found.scores.metrics["cer"].value == (1 + 5 + 8) / (18 + 8 + 0 + 11)
    words = {"words": 8, "substitutions": 1, "insertions": 2, "deletions": 1}
    of_characters = {"character_substitutions": 1, "character_insertions": 8, "character_deletions": 5}
    assert found.scores.counts == {**words, "characters": 37, **of_characters}
    groups = [(one.value, one.scores.rows, one.scores.metrics["wer"].value) for one in found.by["by"]]
    assert groups == [("a", 2, 1.0), (None, 2, 0.0)]
    bands = [(one.value, one.scores.rows, one.scores.seconds) for one in found.by["seconds"]]
    assert bands == [("<1", 1, 0.5), ("2-5", 2, 6.0), (">=30", 1, 31.0)]
    assert found.scores.seconds == 37.5
    worst = [(one.row, one.errors, [edit.kind for edit in one.edits]) for one in found.worst]
    assert worst == [(2, 2, ["insert"]), (0, 2, ["substitute", "delete"])]  # the shortest reference first
    by_rows, by_groups = found.scores.metrics["wer"], evaluate(tmp_path, over="by").scores.metrics["wer"]
    assert by_groups.value == by_rows.value
    assert (by_groups.low, by_groups.high) != (by_rows.low, by_rows.high)


def test_without_a_reference_word_the_rates_are_undefined(tmp_path):
    found = texts_of(tmp_path, ["", ""], ["a", "a"], groups=["x", "x"])
    assert [one.value for one in found.scores.metrics.values()] == [None, None]
    assert (found.scores.counts["insertions"], found.scores.value("wer")) == (2, "-")


SPELLINGS = {
    "none": "Don\u2019t STOP, caf\u00e9!",
    "lower": "don\u2019t stop, caf\u00e9!",
    "letters": "don't stop caf\u00e9",
    "upper": "DON'T STOP CAF\u00c9",
}


def equal_texts(folder: Path, **options: Any) -> list[str]:
    """Return the groups of the rows without an error."""
    return sorted(str(one.value) for one in evaluate(folder, **options).by["by"] if not one.scores.metrics["cer"].value)


def test_a_normalisation_ignores_what_it_names_in_both_texts(tmp_path):
    references = ["  Don\u2019t  STOP, cafe\u0301! "] * len(SPELLINGS) + ["\u0130ZM\u0130R I\u011eDIR"]
    hypotheses = [*SPELLINGS.values(), "izmir \u0131\u011fd\u0131r"]
    texts_of(tmp_path, references, hypotheses, groups=[*SPELLINGS, "Turkish"])
    assert equal_texts(tmp_path, normalise="none") == ["none"]
    assert equal_texts(tmp_path, normalise="lower") == ["lower", "none"]
    assert equal_texts(tmp_path, normalise="letters") == sorted(SPELLINGS)
    assert equal_texts(tmp_path, normalise=raysp.Text("upper", keep="letters")) == sorted(SPELLINGS)
    assert equal_texts(tmp_path, normalise="lower-tr") == ["Turkish", "lower", "none"]
    assert "Turkish" in equal_texts(tmp_path, normalise="letters-tr")
    with pytest.raises(raysp.SpecError, match="found the normalisation 'none-tr'"):
        evaluate(tmp_path, normalise="none-tr")


BASIC = """
class BasicTextNormalizer:
    def __call__(self, text):
        return text.lower().replace(",", " ")
"""


def test_whisper_is_the_class_of_its_package_with_the_version_or_the_command_installs_it(tmp_path, monkeypatch):
    if importlib.util.find_spec("whisper_normalizer"):
        pytest.skip("whisper-normalizer is installed, so no stand-in takes its place")
    texts_of(tmp_path, ["A, B "], ["a b"], groups=["x"])
    with pytest.raises(raysp.SpecError, match=r"not installed; pip install 'raysp\[whisper-normalizer\]'"):
        evaluate(tmp_path, normalise="whisper-basic")
    for name, text in {
        "whisper_normalizer/basic.py": BASIC,
        "whisper_normalizer-0.1.2.dist-info/METADATA": "Name: whisper-normalizer\nVersion: 0.1.2\n",
    }.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True)
        (tmp_path / "site" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = evaluate(tmp_path, normalise="whisper-basic")
    assert found.scores.metrics["wer"].value == 0
    assert found.normalisation.description == "BasicTextNormalizer of whisper-normalizer 0.1.2"


def test_embeddings_are_vectors_and_those_of_rows_without_one_are_none(tmp_path):
    speakers = ["x", "y", "y", "x", "y", "y"]
    write(tmp_path, {"a": speakers})
    model = make_speaker_model(tmp_path / "speakers")
    label = raysp.Label(model, outputs=[raysp.Embedding(pooling="xvector", dtype="float16")])
    options = {"text": None, "speaker": "text"}
    evaluate(tmp_path, label, **options)
    vectors = [[1.0, 0.0], None, None, [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    rows = [{"embedding": one and one + [0.0] * 10} for one in vectors]
    rows[2] |= {"status": "error", "error_type": "a"}
    choose(tmp_path, {"a": rows})
    found = evaluate(tmp_path, label, **options)
    assert found.scores.counts == {"speakers": 2, "target_pairs": 2, "non_target_pairs": 4, "without_vector": 1}
    assert (found.scores.metrics["eer"].value, found.rows.compared) == (0.0, 5)
    assert found.rows.errors == {"a": 1}


@pytest.mark.parametrize(
    ("values", "task", "references"),
    [
        (pa.array(["one", "one", "two"]).dictionary_encode(), "text", ["one", "one", "two"]),
        (pa.array([b"one", b"one", b"two"]), "text", ["one", "one", "two"]),
        (pa.array([7, 7, 9]), "speaker", ["7", "7", "9"]),
        (pa.array([1, 1, 0]), "label", ["cat", "cat", "dog"]),  # by the names in the metadata of datasets
        (pa.array(["cat", "cat", "dog"]), "label", ["cat", "cat", "dog"]),
    ],
    ids=["dictionary", "bytes", "numbers of speakers", "ClassLabel", "classes"],
)
def test_references_of_every_type_are_read(tmp_path, values, task, references):
    features = {"ref": {"names": ["dog", "cat"], "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    audio = pa.array([{"bytes": wav(4000, seed=row), "path": None} for row in range(3)], AUDIO)
    table = pa.table({"id": [*"abc"], "audio": audio, "ref": values})
    if task == "label" and pa.types.is_integer(values.type):
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    folder = tmp_path / "model"
    model = {
        "text": lambda: CHECKPOINT,
        "speaker": lambda: make_speaker_model(folder),
        "label": lambda: make_classifier(folder, "cat", "dog"),
    }[task]()
    found = evaluate(tmp_path, model, **{"text": None, task: "ref", "by": ["ref"], "rows": None})
    assert found.rows.compared == 3
    groups = {str(group.value): group.scores.rows for group in found.by["ref"]}
    assert sorted(groups.values()) == [1, 2]
    if task != "speaker":
        assert {row.reference for row in found.worst} <= {*references}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "nothing"}, "column 'nothing' is null in all rows; name the column of the references"),
        (
            {"text": "number"},
            r"a\.parquet: column 'number' holds double, expected strings: source.text is compared with",
        ),
        ({"text": None, "speaker": "number"}, "holds double, expected strings or integers; .* of the speakers"),
        ({"by": ["audio"]}, r"column 'audio' holds struct<.*>, expected single values, by which rows are grouped"),
        ({"by": ["dialect"]}, "has no column 'dialect'"),
    ],
)
def test_columns_that_cannot_be_compared_are_refused(tmp_path, options, message):
    options = {"by": [], **options}
    table = rows_table(2).append_column("nothing", pa.nulls(2, pa.string())).append_column("number", pa.array([0.5, 1]))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    with pytest.raises(raysp.PlanError, match=message):
        evaluate(tmp_path, make_speaker_model(tmp_path / "model") if "speaker" in options else CHECKPOINT, **options)
