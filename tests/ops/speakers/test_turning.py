"""Turns of rows: those of a row alone in any batch, over windows of longer rows, with the speakers of words."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import CheckpointError, SpecError
from raysp.models import check_checkpoint, load_checkpoint
from raysp.ops.speakers import turning
from raysp.ops.speakers.frame_turning import WindowFrames
from raysp.specs.outputs import turns as turns_spec
from tests.classifiers import make_frame_classifier, make_speaker_model
from tests.corpora import CHECKPOINT, a_pipeline
from tests.ops.speakers.recordings import RATE, joined, write_recordings

THRESHOLD = 0.02
"""Vectors of random weights are near each other."""
pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")


@pytest.fixture(scope="module")
def speakers(tmp_path_factory) -> str:
    """A checkpoint with x-vectors of random weights."""
    return make_speaker_model(tmp_path_factory.mktemp("speakers"))


@pytest.fixture(autouse=True)
def cheap_changes(monkeypatch):
    """Changes of speakers that differ as little as vectors of random weights do."""
    monkeypatch.setattr(turns_spec, "CHANGE_SECONDS", 1e-4)


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Recordings of two or three speakers from half a second to ten seconds, and silence."""
    names = ["george", "lucas", "nicolas", "jackson"]
    orders = [[0, 0, 1, 1], [2, 3, 3, 2, 2], [0], [0, 1, 2] * 4, [3] * 3 + [1] * 3 + [3] * 3]
    made = [joined([names[one] for one in order], seed) for seed, order in enumerate(orders)]
    return [*made, np.zeros(2 * RATE, np.float32)]


def labelled(folder: Path, source: str, *outputs, checkpoint: str | None = None, **label) -> pa.Table:
    raysp.run(
        a_pipeline(source, folder, steps=steps_of(*outputs, checkpoint=checkpoint, **label)),
        engine="here",
        progress=False,
    )
    return pq.read_table(folder / "a.parquet")


def steps_of(*outputs, checkpoint: str | None = None, **label) -> list[object]:
    given = {"outputs": list(outputs), "window_seconds": 5, "overlap_seconds": 2, **label}
    return [raysp.Decode(), raysp.Label(checkpoint or str(CHECKPOINT), **given)]


def assert_alike(found, expected):
    """Compare turns of rows: speakers and times are equal, scores agree to 1e-5 as all numbers do."""
    assert len(found) == len(expected)
    for turns, others in zip(found, expected, strict=True):
        assert (turns is None) == (others is None)
        for one, other in zip(turns or (), others or (), strict=True):
            assert {**one, "score": None} == {**other, "score": None}
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)


class Loud:
    """Stands in for the vectors of windows: whether the loudest part of a window is above or below zero."""

    def __call__(self, wave, firsts, num_samples):
        middles = torch.stack([wave[one : one + num_samples].double().sum() for one in firsts])
        return torch.stack([(middles > 0).double(), (middles <= 0).double()], 1).float()


@pytest.mark.slow
@pytest.mark.parametrize("windows", ["even", "speech"])
def test_turns_of_a_row_are_those_that_it_has_alone(speakers, waves, tmp_path, windows):
    output = raysp.Turns(checkpoint=speakers, threshold=THRESHOLD, least_seconds=0.5)
    fields = {"windows": windows}
    source = write_recordings(tmp_path / "in", waves, rows_a_group=10)
    together = labelled(tmp_path / "out", source, output, batch_seconds=60, **fields)
    small = labelled(tmp_path / "small", source, output, batch_seconds=11, **fields)
    assert_alike(together.column("pred_turns").to_pylist(), small.column("pred_turns").to_pylist())
    found = together.column("pred_turns").to_pylist()
    assert max(len({turn["speaker"] for turn in one or ()}) for one in found) > 1  # or nothing would be tested
    label_alone, rows = raysp.Labeller(steps_of(output, **fields)), pq.read_table(tmp_path / "in" / "a.parquet")
    for row in reversed(range(len(waves))):
        assert_alike(label_alone(rows.slice(row, 1)).column("pred_turns").to_pylist(), [found[row]])


@pytest.mark.slow
def test_windows_of_a_longer_row_have_the_turns_of_the_whole(speakers, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    voice = joined(["george"] * 60, 3, gap=0.05)
    bias = np.repeat(draw.choice([-0.2, 0.2], 1 + len(voice) // (3 * RATE)), 3 * RATE)[: len(voice)]
    source = write_recordings(tmp_path / "in", [(0.5 * voice + bias).astype(np.float32)])
    monkeypatch.setattr(turning.WindowVectors, "__call__", Loud.__call__)
    # Steps of both are the same: the parts that windows own begin at multiples of half a second.
    output = raysp.Turns(checkpoint=speakers, window_seconds=0.5, step_seconds=0.5, least_seconds=0)
    tables = [
        labelled(tmp_path / name, source, output, window_seconds=seconds, overlap_seconds=2)
        for name, seconds in (("whole", 60), ("parts", 6))
    ]
    whole, parts = (one["pred_turns"].to_pylist()[0] for one in tables)
    assert len(whole) > 3
    assert len(parts) > 3
    for time in np.arange(0.25, len(voice) / RATE, 0.5):
        speakers_at = [
            [one["speaker"] for one in turns if one["start"] <= time < one["end"]] for turns in (whole, parts)
        ]
        assert speakers_at[0] == speakers_at[1] or [] in speakers_at  # regions of speech differ where windows begin


@pytest.mark.slow
def test_classes_of_windows_of_a_longer_row_give_the_turns_of_the_whole(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    made = np.repeat(draw.permuted(np.tile([-0.5, 0.1, 0.5], (20, 1)), axis=1).ravel(), RATE).astype(np.float32)
    source = write_recordings(tmp_path / "in", [made])
    calls = []

    def of_level(self: object, wave: torch.Tensor) -> torch.Tensor:
        """Stand in for the model: two speakers, of whom one or both speak, in another order in each window."""
        levels = wave.unfold(0, 86, 80).mean(1)
        logits = 8 * torch.stack([(levels < 0.3).float() - 0.5, (levels > -0.3).float() - 0.5], 1)
        calls.append(len(wave))
        return logits.flip(1) if len(calls) % 2 else logits

    monkeypatch.setattr(WindowFrames, "__call__", of_level)
    output = raysp.Turns(checkpoint=make_frame_classifier(tmp_path / "two", "a", "b"), merge_seconds=0)
    tables = [
        labelled(tmp_path / name, source, output, raysp.Transcript(words=True), window_seconds=seconds)
        for name, seconds in (("whole", 120), ("parts", 8))
    ]
    assert len(calls) > 8
    assert_alike(*(table["pred_turns"].to_pylist() for table in tables))
    [turns] = tables[0]["pred_turns"].to_pylist()
    assert {one["speaker"] for one in turns} == {0, 1}
    shared = sum(
        max(0, min(a["end"], b["end"]) - max(a["start"], b["start"])) for a in turns for b in turns if a is not b
    )
    assert shared / 2 == pytest.approx(20, abs=2)  # seconds in which both speak


def test_a_recording_shorter_than_the_other_model_takes_is_filled_up(speakers):
    loaded = load_checkpoint(Path(speakers), dtype="float32", device="cpu")
    assert turning.WindowVectors(loaded)(torch.ones(50), [0], 50).shape == (1, 12)


class TestWords:
    @pytest.mark.slow
    def test_words_have_the_speakers_of_their_turns(self, speakers, waves, tmp_path):
        turns = raysp.Turns(checkpoint=speakers, threshold=THRESHOLD, least_seconds=0.5)
        source = write_recordings(tmp_path / "in", waves)
        plain = labelled(tmp_path / "plain", source, raysp.Transcript(words=True), turns.__class__(checkpoint=speakers))
        found = labelled(tmp_path / "out", source, raysp.Transcript(words=True), turns)
        assert plain.schema == found.schema
        several = 0
        for row in found.to_pylist():
            for word in row["pred_words"]:
                over = [one for one in row["pred_turns"] if one["start"] < word["end"] and word["start"] < one["end"]]
                speakers_over = {one["speaker"] for one in over}
                assert word["speaker"] in speakers_over or not over
                several += word["speaker"] > 0
        assert several
        assert pa.types.is_int32(found.schema.field("pred_words").type.value_type.field("speaker").type)

    @pytest.mark.slow
    def test_each_column_of_words_has_them_and_nothing_else_changes(self, speakers, waves, tmp_path):
        source = write_recordings(tmp_path / "in", waves[:3])
        outputs = [raysp.Transcript(words=True, chars=True), raysp.Align(of="pred"), raysp.Transcript("other")]
        turns = raysp.Turns(checkpoint=speakers, threshold=THRESHOLD)
        without = labelled(tmp_path / "without", source, *outputs)
        found = labelled(tmp_path / "out", source, *outputs[:2], turns, outputs[2])
        for name in ("pred_words", "aligned_words"):
            assert all("speaker" in word for row in found[name].to_pylist() for word in row)
            bare = [
                [{k: v for k, v in word.items() if k != "speaker"} for word in row] for row in found[name].to_pylist()
            ]
            assert bare == without[name].to_pylist()
        others = [name for name in without.column_names if name not in ("pred_words", "aligned_words")]
        assert found.select(others).equals(without.select(others))

    def test_rows_that_fail_have_neither(self, speakers, tmp_path):
        source = write_recordings(tmp_path / "in", [np.zeros(RATE, np.float32), np.zeros(10, np.float32)])
        table = pq.read_table(tmp_path / "in" / "a.parquet").to_pylist()
        table[0]["audio"]["bytes"] = b"RIFF"
        pq.write_table(
            pa.Table.from_pylist(table, pq.read_schema(tmp_path / "in" / "a.parquet")), tmp_path / "in" / "a.parquet"
        )
        found = labelled(tmp_path / "out", source, raysp.Transcript(words=True), raysp.Turns(checkpoint=speakers))
        assert found["error_type"].to_pylist() == ["corrupt_audio", "too_short"]
        assert found["pred_turns"].to_pylist() == [None, []] == found["pred_words"].to_pylist()


class TestSpec:
    @pytest.mark.slow
    def test_the_checkpoint_of_the_step_may_have_the_vectors(self, speakers, waves, tmp_path):
        source = write_recordings(tmp_path / "in", waves[:4])
        fields = {"threshold": THRESHOLD, "least_seconds": 0.5}
        own = labelled(tmp_path / "own", source, raysp.Turns(**fields), checkpoint=speakers)
        other = labelled(tmp_path / "other", source, raysp.Turns(checkpoint=speakers, **fields))
        assert own["pred_turns"].to_pylist() == other["pred_turns"].to_pylist()

    def test_a_further_checkpoint_of_another_backend_is_refused_with_a_way_out(self, tmp_path):
        folder = Path(make_speaker_model(tmp_path / "other"))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "wavlm"}))
        source = write_recordings(tmp_path / "in", [np.zeros(RATE, np.float32)])
        steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Turns(checkpoint=str(folder))])]
        words = r"'wavlm'.*raysp's own models alone.*Label\(..., backend='transformers'"
        with pytest.raises(CheckpointError, match=words):
            raysp.plan(a_pipeline(source, tmp_path / "out", steps=steps))

    def test_what_can_change_a_label_is_in_the_fingerprint(self, speakers):
        base = raysp.Turns(checkpoint=speakers)
        changed = {
            "speakers": 2,
            "threshold": 0.4,
            "window_seconds": 2.0,
            "step_seconds": 0.3,
            "least_seconds": 2.0,
            "merge_seconds": 0.1,
            "checkpoint": "other",
        }
        digests = {"raysp[speech]": "0123", speakers: "aa", "other": "bb"}
        found = [base.label_fields(digests)]
        found += [
            type(base)(**{"checkpoint": speakers, name: value}).label_fields(digests) for name, value in changed.items()
        ]
        found.append(base.label_fields({**digests, "raysp[speech]": "4567"}))
        found.append(base.label_fields({**digests, speakers: "cc"}))
        assert len({str(one) for one in found}) == len(found)

    def test_a_threshold_that_is_left_out_is_none_that_can_be_given(self):
        digests = {"raysp[speech]": "0123"}
        found = [raysp.Turns(threshold=one).label_fields(digests) for one in (None, 0.7, 0.5)]
        assert len({str(one) for one in found}) == 3
        assert found[0]["threshold"] == 0.7  # as before classes of frames could be given

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"speakers": (3, 2)}, "the lower bound is above the upper one"),
            ({"speakers": 0}, "greater than or equal to 1"),
            ({"step_seconds": 2.0}, "step_seconds=2 is above window_seconds=1: windows would leave out speech"),
            ({"checkpoint": ""}, "checkpoint is empty; name a checkpoint, or leave it out"),
            ({"threshold": 0}, "threshold"),
            ({"window_seconds": 0}, "window_seconds"),
        ],
    )
    def test_invalid_fields_are_refused(self, fields, words):
        with pytest.raises(SpecError, match=words):
            raysp.Turns(**fields)

    def test_checkpoints_without_vectors_or_classes_of_frames_are_refused(self, speakers):
        raysp.Turns().check(check_checkpoint(speakers))
        with pytest.raises(
            CheckpointError, match=r"UniSpeechForCTC has neither x-vectors.*, nor classes of frames.*; set checkpoint"
        ):
            raysp.Turns().check(check_checkpoint(CHECKPOINT))
        with pytest.raises(CheckpointError, match="UniSpeechForCTC has neither x-vectors"):
            raysp.Turns(checkpoint=str(CHECKPOINT)).check(check_checkpoint(speakers))

    @pytest.mark.parametrize("package", ["scipy", "silero_vad"])
    def test_a_missing_package_is_named(self, speakers, monkeypatch, package):
        from raysp.checkpoints import hub, packaged

        found = hub.find_spec
        for module in (hub, packaged):
            monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else found(name))
        with pytest.raises(CheckpointError, match=r"is not installed: pip install 'raysp\[(turns|speech)\]'"):
            raysp.Turns().check(check_checkpoint(speakers))
