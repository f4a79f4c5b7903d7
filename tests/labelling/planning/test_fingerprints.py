"""Which settings and files are in the fingerprint of a plan, and how "auto" is resolved."""

import json
import shutil
from pathlib import Path

import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, write_shard
from tests.text.beams.arpa_files import write_arpa

PAIRS = [["ONE", "TWO"], ["NINE"], ["TWO", "ONE", "ONE"]]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shard(tmp_path / "in" / "a.parquet", 2)
    return tmp_path


def planned(folder: Path, **label: object):
    return raysp.plan(a_pipeline(f"{folder}/in", folder / "out", label=label))


def test_a_language_model_counts_by_its_content_and_a_weight_without_one_does_not(folder):
    def hashed(**fields: object) -> str:
        return planned(folder, outputs=[raysp.Transcript(beams=8, **fields)]).fingerprint

    lm = write_arpa(folder / "words.arpa", PAIRS, 2)
    first = hashed(lm=str(lm))
    assert hashed() != first
    assert hashed(lm=str(shutil.copy(lm, folder / "other.arpa"))) == first
    assert hashed(lm=str(lm), lm_weight=0.6) != first
    write_arpa(lm, [*PAIRS, ["NINE", "ONE"]], 2)
    assert hashed(lm=str(lm)) != first
    assert hashed(word_bonus=1.0) == hashed(lm_weight=0.5) == hashed()


def test_windows_at_pauses_and_the_first_output_that_cuts_them_count(folder):
    pytest.importorskip("silero_vad", reason='needs pip install "raysp[speech]"')
    outputs = [raysp.Speech("a", threshold=0.3), raysp.Speech("b", threshold=0.4)]
    even, cut = (dict(planned(folder, **windows).parts) for windows in ({}, {"windows": "speech"}))
    changed = {key for key in {**even, **cut} if even.get(key) != cut.get(key)}
    assert changed == {"steps.1.windows", "steps.1.windows_by"}
    assert len(cut["steps.1.windows_by"].pop("weights")) == 16
    assert cut["steps.1.windows_by"] == {
        **{"type": "Speech", "name": "pred_speech", "threshold": 0.5},
        **{"min_speech_seconds": 0.25, "min_silence_seconds": 0.1},
    }
    assert planned(folder, outputs=outputs, windows="speech").parts["steps.1.windows_by"]["threshold"] == 0.3


@pytest.mark.parametrize(
    ("gpus", "label", "number", "device", "dtype", "budget"),
    [
        ("", {}, 0, "cpu", "float32", "free"),
        ("-1", {"dtype": "bfloat16"}, 0, "cpu", "bfloat16", "alone"),
        ("0,3", {}, 2, "cuda", "bfloat16", "recorded"),
        ("GPU-abc", {"dtype": "float32"}, 1, "cuda", "float32", "free"),
        ("0", {"dtype": "tf32"}, 1, "cuda", "tf32", "recorded"),
    ],
)
def test_auto_follows_the_gpus_and_the_budget_counts_where_labels_may_depend_on_it(
    folder, monkeypatch, gpus, label, number, device, dtype, budget
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    plans = [planned(folder, **label, batch_seconds=seconds) for seconds in (7, 8)]
    is_recorded = budget == "recorded"
    assert (plans[0].fingerprint != plans[1].fingerprint) == is_recorded
    assert [one.parts.get("steps.1.batch_seconds") for one in plans] == ([7, 8] if is_recorded else [None] * 2)
    for plan in plans:
        found = plan.settings
        assert (plan.resources.gpus, found.device, found.dtype) == (number, device, dtype)
        assert (found.gpus_per_actor, found.batching.name.lower()) == (int(number > 0), budget)
        assert is_recorded == any("a label may depend on the rows that share its batch" in one for one in plan.messages)


def test_a_sink_is_continued_after_changes_that_change_no_label_and_others_are_refused(folder):
    write_shard(folder / "in" / "a.parquet", 30)
    write_shard(folder / "in" / "b.parquet", 5)
    kit.interrupted(pipeline := a_pipeline(f"{folder}/in/*.parquet", folder / "out"))
    for change in ("steps.1.pool.actors=[1,9]", "steps.1.batch_seconds=5", "sink.compression=gzip"):
        ran = kit.planned(pipeline, folder, change)
        assert (ran.code, json.loads(ran.out)["fingerprint"]) == (0, raysp.plan(pipeline).fingerprint), ran.err
    for change, difference in (
        ("steps.1.overlap_seconds=2", "`steps.1.overlap_seconds` was 5.0, now 2.0"),
        ('sink.keep=["language"]', "same labels in other columns or rows: `sink.keep` was [], now ['language']"),
    ):
        ran = kit.planned(pipeline, folder, change)
        assert (ran.code, difference in ran.err) == (2, True), ran.err
