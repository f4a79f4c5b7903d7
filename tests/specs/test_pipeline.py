"""Pipelines: the order of their steps, what their fingerprint covers, how they are loaded from files."""

import dataclasses
import sys

import pytest

import raysp
from raysp import SpecError
from raysp.labelling.planning.settings import LABEL_VERSION, label_parts
from raysp.specs.pipeline import fingerprint
from raysp.specs.work_files import with_overrides
from tests import kit
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.specs.settled import settled

DECODE, LABEL = raysp.Decode(), raysp.Label("c", outputs=[raysp.Transcript()])


def hashed(pipeline: raysp.Pipeline, checkpoint_digest: str = "d", dtype: str = "float32") -> str:
    return fingerprint(label_parts(pipeline, settled(checkpoint_digest=checkpoint_digest, dtype=dtype)))


class TestOrder:
    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ([LABEL], r"found steps \[Label\]; expected one Decode"),
            ([DECODE, LABEL, LABEL], r"two columns would be named 'pred_text'"),
            ([LABEL, DECODE], r"found steps \[Label, Decode\]; expected Decode before Label"),
            ([DECODE, LABEL, raysp.Map("m:f", adds={"a": "bool"}, reads=["id"])], "after Label: move Map before it"),
            (
                [DECODE, raysp.Keep(where=[("audio", "==", "x")]), LABEL],
                r"steps\[1\] Keep: where= cannot use the audio column 'audio'",
            ),
        ],
    )
    def test_steps_that_cannot_run_in_their_order_are_refused_with_the_order(self, steps, message):
        with pytest.raises(SpecError, match=message):
            a_pipeline(steps=steps)

    def test_the_reference_text_is_kept_once(self):
        source = raysp.Shards("in", text="text")
        assert a_pipeline(source, raysp.Parquet("o", keep=["a"])).kept == ("a", "text")
        assert a_pipeline(source, raysp.Parquet("o", keep=["text", "a"])).kept == ("text", "a")


class TestFingerprint:
    @pytest.mark.parametrize(
        "change",
        [
            "steps.1.pool.actors=[1,64]",
            "steps.1.batch_seconds=600",
            "steps.1.device=cuda",
            "steps.1.dtype=float32",  # "auto", resolved to the same
            "steps.1.checkpoint=elsewhere",
            "source.url=elsewhere",
            "source.text=text",
            'source.storage_options={"anon": true}',
            "source.audio_root=recordings",
            "sink.url=elsewhere",
            'sink.keep=["speaker"]',
            "sink.rows=ok",
            "source.labels=earlier",
            'sink.storage_options={"anon": true}',
            "max_error_rate=1",
            "source.shared=true",
            "sink.shared=true",
            "steps.1.outputs.0.lm_weight=0.5",  # the usual values, without a language model
            "steps.1.outputs.0.word_bonus=1",
        ],
    )
    def test_it_does_not_change_with_settings_that_change_no_label(self, change):
        assert with_overrides(a_pipeline(), [change]) != a_pipeline()
        assert hashed(with_overrides(a_pipeline(), [change])) == hashed(a_pipeline())

    @pytest.mark.parametrize(
        "change",
        [
            "source.id=null",
            "source.audio=speech",
            "steps.0.max_seconds=10",
            "steps.0.channel=1",
            "steps.0.keep_prefix=true",
            "steps.1.window_seconds=20",
            "steps.1.overlap_seconds=2",
            "steps.1.backend=transformers",
            "steps.1.outputs.0.name=other",
            "steps.1.outputs.0.words=true",
            'steps.1.outputs.0.generate={"num_beams": 4}',
            'steps.1.outputs=[{"type": "Embedding"}]',
            'steps.1.outputs=[{"type": "Classes", "top_k": 2}]',
            'steps.1.outputs=[{"type": "Segments", "threshold": 0.6}]',
            "steps.1.outputs.0.chars=true",
            "steps.1.outputs.0.beams=8",
            "steps.1.outputs.0.language=de",
            "steps.1.outputs.0.task=translate",
            "steps.1.outputs.0.detect=true",
            'steps.1.outputs=[{"type": "Signals", "no_speech": true}]',
            'steps.1.outputs=[{"type": "Signals", "phrases": "phrases.txt"}]',
            'steps.1.outputs=[{"type": "Signals", "expected_language": "de"}]',
            'steps.1.outputs=[{"type": "Signals", "text_language": true}]',
            'steps.1.outputs=[{"type": "Signals", "audio_digest": true}]',
            'steps.1.outputs=[{"type": "Transcript", "beams": 8, "hot_words": {"ONE": 2.0}}]',
            'steps.1.outputs=[{"type": "Transcript", "prompt": "Numbers."}]',
            'steps.1.outputs=[{"type": "Transcript", "keywords": ["seven"]}]',
            'steps.1.outputs=[{"type": "Transcript"}, {"type": "Transcript", "name": "b"}]',
        ],
    )
    def test_it_changes_with_settings_that_can_change_a_label(self, change):
        assert hashed(with_overrides(a_pipeline(), [change])) != hashed(a_pipeline())

    def test_it_changes_with_the_checkpoint_and_the_dtype_and_has_the_label_version(self):
        others = ({"checkpoint_digest": "other"}, {"dtype": "bfloat16"}, {})
        assert len({hashed(a_pipeline(), **settings) for settings in others}) == 3
        assert label_parts(a_pipeline(), settled())["label_version"] == LABEL_VERSION

    def test_every_field_of_every_spec_was_judged(self):
        """A field that is added must be put into one of the two lists above, or its default into `label_parts`."""
        judged = {
            raysp.Shards: {"url", "root", "id", "audio", "text", "audio_root", "storage_options", "split", "config"}
            | {"shared", "labels"},
            raysp.Parquet: {"url", "keep", "rows", "compression", "storage_options", "shared"},
            raysp.Pipeline: {"source", "steps", "sink", "name", "max_error_rate"},
            raysp.Decode: {"max_seconds", "channel", "keep_prefix"},
            raysp.Keep: {"min_seconds", "max_seconds", "where"},
            raysp.Map: {"function", "adds", "reads"},
            raysp.Label: {"checkpoint", "outputs", "batch_seconds", "window_seconds", "overlap_seconds", "dtype"}
            | {"backend", "device", "pool", "windows"},
            raysp.Transcript: {"name", "words", "chars", "generate", "language", "task"}
            | {"beams", "nbest", "lm", "lm_weight", "word_bonus", "hot_words", "detect", "prompt"}
            | {"keywords"},
            raysp.Embedding: {"name", "layer", "pooling", "dtype", "normalize"},
            raysp.Classes: {"name", "top_k", "threshold"},
            raysp.Segments: {"name", "threshold", "end_threshold", "min_seconds", "merge_seconds"},
            raysp.Speech: {"name", "threshold", "min_speech_seconds", "min_silence_seconds"},
            raysp.Signals: {"name", "no_speech", "phrases", "expected_language", "text_language", "audio_digest"},
            raysp.Pool: {"actors", "gpus", "cpus", "memory"},
        }
        assert {cls: {field.name for field in dataclasses.fields(cls)} for cls in judged} == judged


MAKE = """import raysp
def make(name, source='in', checkpoint='c'):
    steps = [raysp.Decode(), raysp.Label(checkpoint, outputs=[raysp.Transcript()])]
    return raysp.Pipeline(raysp.Shards(source), name=name, steps=steps, sink=raysp.Parquet('out'))
"""


@pytest.mark.parametrize(
    ("stem", "body", "name", "message"),
    [
        ("mine", "a = make('a')\nb = make('b')\n", "", "expected one raysp.Pipeline or"),
        ("mine", "a = make('a')\n", ":b", "has no pipeline or recipe named 'b'; found ['a']"),
        ("json", "a = make('a')\n", "", "Python or an installed package has a module named 'json'; rename the file"),
    ],
)
def test_a_file_without_the_one_pipeline_or_with_the_name_of_a_module_is_refused(tmp_path, stem, body, name, message):
    file = tmp_path / f"{stem}.py"
    file.write_text(MAKE + body)
    ran = kit.run(["plan", f"{file}{name}"])
    assert (ran.code, message in ran.err) == (2, True), ran.err
    assert str(tmp_path) not in sys.path
    assert stem == "mine" or getattr(sys.modules.get(stem), "__file__", None) != str(file)


def test_a_file_may_import_its_neighbours_and_settings_are_applied_in_order(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 1)
    (tmp_path / "neighbour_of_a_recipe.py").write_text(f"SOURCE, CHECKPOINT = '{tmp_path}/in', {str(CHECKPOINT)!r}\n")
    file = tmp_path / "recipe_of_a_user.py"
    file.write_text(f"from neighbour_of_a_recipe import *\n{MAKE}pipeline = make('a', SOURCE, CHECKPOINT)\n")
    settings = [part for value in ("b=c", "d=e") for part in ("--set", f"sink.url={tmp_path}/{value}")]
    assert kit.run(["run", file, *settings]).code == 0
    assert [*kit.label_shards(tmp_path / "d=e")] == ["a.parquet"]
