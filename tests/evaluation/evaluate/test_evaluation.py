"""Evaluations: rows counted by what became of them, metrics of those that are compared, refusals before any work."""

import dataclasses
import functools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.classifiers import make_classifier, make_speaker_model
from tests.corpora import AUDIO, CHECKPOINT, DEMO, write_shard
from tests.evaluation.test_metrics import rate_of_pairs

pytestmark = [pytest.mark.lengthy, pytest.mark.usefixtures("without_ray")]

NO_AUDIO = {"bytes": b"no audio at all", "path": None}


@pytest.fixture(scope="module")
def digits() -> pa.Table:
    """Six spoken digits; the model recognises each of them."""
    return pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6)


@pytest.fixture
def mixed(digits, tmp_path):
    """Two shards: an error, an empty reference, no reference, a wrong word; speakers of whom one is unknown."""
    audio = digits["audio"].to_pylist()
    audio[1] = NO_AUDIO
    texts = digits["text"].to_pylist()
    texts[2], texts[3], texts[4] = "", None, f"{texts[4]} more"
    table = pa.table(
        {
            "id": digits["id"],
            "audio": pa.array(audio, AUDIO),
            "text": pa.array(texts, pa.string()),
            "speaker": pa.array(["a", "a", "b", None, None, "a"]),
            "take": pa.array([1, 2, 1, 2, 1, 2], pa.int16()),
        }
    )
    write_shard(tmp_path / "in" / "a.parquet", table=table.slice(0, 4))
    write_shard(tmp_path / "in" / "b.parquet", table=table.slice(4))
    return f"{tmp_path}/in"


@pytest.fixture
def classifier(tmp_path):
    return functools.partial(make_classifier, tmp_path / "classifier")


@pytest.fixture
def spoken(digits, tmp_path):
    """Six digits, of which one has no class."""
    classes = pa.array(["cat", "dog", "cat", None, "dog", "owl"])
    write_shard(tmp_path / "in" / "a.parquet", table=digits.select(["id", "audio"]).append_column("kind", classes))
    return str(tmp_path / "in")


def evaluated(shards, **options):
    return raysp.evaluate(str(CHECKPOINT), str(shards), **{"text": "text", "rows": 20, "progress": False, **options})


@pytest.mark.slow
def test_the_bundled_checkpoint_on_the_bundled_digits():
    found = raysp.evaluate(
        str(CHECKPOINT), f"{DEMO}/audio/*.parquet", text="text", by=["speaker_id"], over="speaker_id", progress=False
    )
    wer = found.scores.metrics["wer"]
    assert (found.rows.compared, found.scores.counts["words"], wer.value) == (300, 300, 7 / 300)
    assert 0 <= wer.low < wer.value < wer.high < 0.06
    assert sum(group.scores.counts["substitutions"] for group in found.by["speaker_id"]) == 7
    assert {group.scores.interval("wer") for group in found.by["speaker_id"]} == {"-"}
    assert len(found.worst) == 7
    assert (found.labels, found.exit_code, found.run.rows) == (None, 0, 300)


class TestRows:
    def test_rows_that_a_step_leaves_out_are_counted(self, mixed):
        steps = [raysp.Keep(where=[("take", "==", 1)]), raysp.Decode()]
        rows = evaluated(mixed, steps=steps).rows
        assert (rows.compared, rows.skipped, rows.errors) == (3, {"filtered": 2}, {})

    @pytest.mark.slow
    def test_shards_that_cannot_be_read_end_with_exit_code_3(self, mixed, tmp_path):
        (tmp_path / "in" / "c.parquet").write_bytes(b"PAR1 and no more")
        found = evaluated(mixed)
        assert (found.exit_code, list(found.run.shards_failed), found.rows.compared) == (3, ["c.parquet"], 4)
        for name in "ab":
            (tmp_path / "in" / f"{name}.parquet").unlink()
        with pytest.raises(raysp.PlanError, match=r"no shard can be read, such as c\.parquet: "):
            evaluated(mixed)


def test_another_evaluation_with_other_columns_labels_nothing_again_and_has_limits_of_its_own(mixed, tmp_path):
    first = evaluated(mixed, rows=None, sink=str(tmp_path / "out"))
    assert (first.run.rows, first.labels) == (6, str(tmp_path / "out"))
    for limits, code in (
        ({"fail_above": {"wer": 0.5}}, 0),
        ({"fail_above": {"wer": 0.49}}, 1),
        ({"fail_above": {"wer": 0.6, "cer": 0.0}}, 1),
    ):
        options = {"by": ["speaker"], "normalise": "lower", **limits}
        again = evaluated(mixed, rows=None, sink=raysp.Parquet(str(tmp_path / "out")), **options)
        assert (again.run.rows, again.rows, again.scores) == (0, first.rows, first.scores)
        assert (again.exit_code, all(limit.is_met for limit in again.limits)) == (code, code == 0)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == ["a.parquet", "b.parquet"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"text": None}, "found none of text, label and speaker; name the column of the reference texts"),
            ({"normalise": "upper"}, "found the normalisation 'upper', expected one of"),
            ({"sink": raysp.Parquet("out", rows="ok")}, "sink: found rows='ok', expected 'all'"),
            ({"steps": []}, "expected one Decode"),
        ],
    )
    def test_arguments_that_are_invalid_for_any_data(self, mixed, options, complaint):
        with pytest.raises(raysp.SpecError, match=complaint):
            evaluated(mixed, **options)


class TestClasses:
    def test_metrics_are_those_of_the_labels(self, classifier, spoken):
        found = raysp.evaluate(classifier("cat", "dog", "owl"), spoken, label="kind", rows=20, progress=False)
        assert (found.task, found.normalisation, found.rows.compared) == ("classification", None, 5)
        assert found.rows.without_reference == 1
        [*wrong] = found.worst
        assert found.scores.metrics["accuracy"].value == pytest.approx(1 - len(wrong) / 5)
        assert all(one.reference != one.hypothesis and one.score > 1 / 3 for one in wrong)
        assert {one.name for one in found.classes} >= {"cat", "dog", "owl"}
        assert "accuracy" in found.facts

    @pytest.mark.parametrize(
        ("names", "problem", "options", "error", "complaint"),
        [
            (("a", "b"), None, {}, raysp.PlanError, "found 'cat', 'dog', 'owl', none of which is a class of"),
            (("cat", "dog"), "multi_label_classification", {}, raysp.CheckpointError, "compares one class of several"),
            (("cat", "dog", "owl"), None, {"fail_above": {"eer": 0.1}}, raysp.PlanError, "rate needs two classes"),
            (("cat", "dog"), None, {"fail_above": {"accuracy": 0.1}}, raysp.SpecError, "higher values of accuracy are"),
        ],
    )
    def test_checkpoints_and_limits_that_do_not_fit(
        self, classifier, spoken, names, problem, options, error, complaint
    ):
        with pytest.raises(error, match=complaint):
            raysp.evaluate(
                classifier(*names, problem=problem), spoken, label="kind", rows=20, progress=False, **options
            )


class TestSpeakers:
    @pytest.fixture
    def checkpoint(self, tmp_path):
        return make_speaker_model(tmp_path / "speakers")

    @pytest.fixture
    def voices(self, digits, tmp_path):
        """Write the six digits as rows of some speakers."""

        def write(*names, audio=None):
            table = digits.select(["id", "audio"]).append_column("who", pa.array(names, pa.string()))
            if audio is not None:
                table = table.set_column(1, "audio", pa.array(audio, AUDIO))
            write_shard(tmp_path / "in" / "a.parquet", table=table)
            return str(tmp_path / "in")

        return write

    @staticmethod
    def compared(checkpoint, shards, **options):
        return raysp.evaluate(checkpoint, shards, **{"speaker": "who", "rows": 20, "progress": False, **options})

    def test_the_rate_is_that_of_the_embeddings_of_all_pairs(self, checkpoint, voices, tmp_path):
        shards = voices("ann", "ann", "ben", "ben", "", None)
        found = self.compared(checkpoint, shards, rows=None, sink=str(tmp_path / "out"), by=["id"])
        labels = pq.read_table(tmp_path / "out" / "a.parquet").column("embedding").to_pylist()
        rate = rate_of_pairs([(name, np.array(labels[row]), (row, 0)) for row, name in enumerate("aabb")])
        assert (found.task, found.column, found.normalisation) == ("verification", "who", None)
        assert (found.rows.compared, found.rows.without_reference, found.worst, found.classes) == (4, 2, (), ())
        [eer] = found.scores.metrics.values()
        assert eer.value == pytest.approx(rate)
        assert eer.low <= eer.value <= eer.high
        assert found.scores.counts == {"speakers": 2, "target_pairs": 2, "non_target_pairs": 4, "without_vector": 0}
        assert found.facts["EER"].endswith("): 2 target pairs, 4 non-target pairs")
        assert [group.scores.metrics["eer"].value for group in found.by["id"]] == [None] * 4
        again = self.compared(checkpoint, shards, rows=None, sink=str(tmp_path / "out"), over="who")
        assert (again.run.rows, again.scores.metrics["eer"].value) == (0, eer.value)
        assert json.loads(json.dumps(dataclasses.asdict(again)))["scores"]["counts"]["speakers"] == 2

    @pytest.mark.parametrize("names", ["aabbbb", "aaaabb"])
    def test_pairs_of_one_kind_alone_end_with_exit_code_3_and_no_rate(self, checkpoint, voices, digits, names):
        audio = digits["audio"].to_pylist()
        for row in (0, 2, 3, 4) if names == "aabbbb" else (4, 5):
            audio[row] = NO_AUDIO
        found = self.compared(checkpoint, voices(*names, audio=audio), fail_above={"eer": 1.0})
        assert (found.exit_code, found.scores.metrics["eer"].value) == (3, None)
        assert found.facts["EER"].startswith("- (-): ")
        assert found.nothing_compared.startswith("EER is undefined: found ")

    def test_a_checkpoint_without_the_head_compares_means_of_frames_if_asked(self, voices):
        shards = voices(*"aabbcc")
        with pytest.raises(
            raysp.CheckpointError, match=r"has no x-vectors; .*--set steps\.1\.outputs\.0\.pooling=mean"
        ):
            self.compared(str(CHECKPOINT), shards)
        found = self.compared(str(CHECKPOINT), shards, settings=["steps.1.outputs.0.pooling=mean"])
        step = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(), raysp.Embedding("mean", dtype="float16")])
        assert found.scores.metrics["eer"].value is not None
        assert self.compared(step, shards).scores.counts == found.scores.counts

    @pytest.mark.parametrize(
        ("names", "complaint"),
        [
            ("aaaaaa", "column 'who': found 6 rows of the speaker 'a' alone, expected several speakers"),
            ("abcdef", "column 'who': found 6 speakers with one row each, such as 'a', expected several rows of a"),
        ],
    )
    def test_speakers_without_pairs_of_both_kinds_are_refused_before_any_work(
        self, checkpoint, voices, names, complaint
    ):
        with pytest.raises(raysp.PlanError, match=complaint):
            self.compared(checkpoint, voices(*names))
