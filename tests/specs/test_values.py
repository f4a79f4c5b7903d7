"""Specs: checked when made, frozen, and the same after a trip through JSON."""

import json
import re

import pyarrow as pa
import pytest

import raysp
from raysp import SpecError
from raysp.specs.values import from_json, override, to_json
from tests.corpora import a_pipeline
from tests.user_specs import Louder, Pitch, odd_rows

SECRET = "hunter2/Zq+9"

OPTIONS = {"anon": True, "type": "items", "x y": [None, 1.5, {"key": raysp.Env("TOKEN")}], "client_kwargs": {"a": {}}}
KEPT = raysp.Keep(1, max_seconds=20.0, where=[("a", "==", True), ("b", "in", [1, 1.5, "x"]), ("c", "not in", [])])
MAPPED = raysp.Map(odd_rows, adds={"type": "float32", "\0": pa.struct([("a", pa.list_(pa.int8(), 2))])}, reads=["read"])
POOL = raysp.Pool((1, 4), gpus=0.5, cpus=2, memory=2**40)
LABELLED = {"batch_seconds": 9, "window_seconds": 20.5, "overlap_seconds": 1, "dtype": "bfloat16", "device": "cuda"}
PIPELINES = [
    a_pipeline(),
    raysp.Pipeline(
        raysp.Shards(["a", "b/*.parquet"], root="r", id=None, audio="\0the audio", storage_options=OPTIONS),
        steps=[
            raysp.Decode(7.5, channel=3),
            KEPT,
            raysp.Keep(where="module:function"),
            MAPPED,
            Louder(),
            raysp.Label("c", outputs=[raysp.Transcript("t"), Pitch("p")], pool=POOL, **LABELLED),
        ],
        sink=raysp.Parquet("out", rows="ok", compression="lz4", storage_options=OPTIONS),
        name="a name",
        max_error_rate=0,
    ),
]


class TestJson:
    @pytest.mark.parametrize("pipeline", PIPELINES, ids=["usual", "all fields"])
    def test_a_pipeline_is_the_same_after_a_trip_through_json(self, pipeline):
        text = json.dumps(to_json(pipeline), allow_nan=False)
        again = from_json(json.loads(text))
        assert again == pipeline
        assert json.dumps(to_json(again)) == text

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"type": "Nothing"}, "type 'Nothing' is not a spec of raysp; write your own class as 'module:Class'"),
            (
                {"type": "tests.user_specs:Missing"},
                "'tests.user_specs:Missing' cannot be imported: .*no attribute 'Missing'",
            ),
            ({"type": "no_such_module:X"}, "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
            ({"type": 3}, "found type 3; expected the name of a spec"),
            ({"type": "Pool", "actor": 2}, r"Pool has no field 'actor' \(did you mean 'actors'\?\)"),
        ],
    )
    def test_json_that_is_not_a_spec_is_refused_by_name(self, value, message):
        with pytest.raises(SpecError, match=message):
            from_json(value)


class TestChecks:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: raysp.Parquet("o", keeps=["a"]), r"^Parquet has no field 'keeps' \(did you mean 'keep'\?\); its"),
            (lambda: raysp.Label("c"), r"^Label needs 'outputs', such as outputs=\[raysp.Transcript\(\)\]$"),
            (lambda: raysp.Shards("a", "root"), "takes only its first field by position; name the others: "),
            (lambda: raysp.Shards(3), "^Shards.url: found 3; input should be a valid string, or input should be"),
            (lambda: raysp.Parquet("o", keep="a"), "^Parquet.keep: found .a.; expected a list, such as "),
            (lambda: raysp.Parquet("o", rows="some"), "^Parquet.rows: found 'some'; input should be 'all' or 'ok'$"),
            (lambda: raysp.Pool((3, 2)), r"^Pool: actors=\(3, 2\): the lower bound is above the upper one$"),
            (lambda: raysp.Keep(3, max_seconds=2), "min_seconds=3.0 is above max_seconds=2.0: no row could meet it"),
            (
                lambda: raysp.Keep(where=[("a", "in", "en")]),
                r"^Keep: where=\('a', 'in', 'en'\): expected a list of values after 'in'$",
            ),
            (lambda: raysp.Label("c", outputs=[{"k": "x"}]), 'a mapping with .k.; .* in JSON it has a key "type", the'),
            (
                lambda: raysp.Label("c", outputs=[raysp.Transcript()], device="cuda:1"),
                "'cuda:1' is not 'auto', 'cpu', 'cuda' or another kind of device of torch",
            ),
            (
                lambda: raysp.Label("c", outputs=[raysp.Transcript()], overlap_seconds=16),
                "overlap_seconds=16.0 is more than half of window_seconds=30.0",
            ),
            (
                lambda: raysp.Parquet("o", storage_options={"session": object()}),
                "value of type object; a pipeline holds only JSON values and specs",
            ),
            (lambda: raysp.Env("A B"), "^Env.name: 'A B' is not the name of an environment variable: letters, digits"),
        ],
    )
    def test_a_wrong_value_is_refused_with_its_place_itself_and_the_expected_value(self, make, message):
        with pytest.raises(SpecError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


class TestFrozen:
    def test_lists_become_tuples_at_any_depth(self):
        urls, where, nested = ["a"], [["x", "in", ["y"]]], {"b": {"c": ["d"]}}
        pipeline = a_pipeline(raysp.Shards(urls, storage_options=nested), keep=[raysp.Keep(where=where)])
        urls.append("changed")
        where[0][2].append("changed")
        nested["b"]["c"].append("changed")
        assert pipeline.source.url == ("a",)
        assert pipeline.steps[1].where == (("x", "in", ("y",)),)
        assert pipeline.source.storage_options == {"b": {"c": ("d",)}}
        assert isinstance(pipeline.steps, tuple)
        assert isinstance(pipeline.label.outputs, tuple)


@pytest.mark.parametrize(
    "make",
    [
        lambda: raysp.Shards("x", storage_options={"a": [{"password": SECRET}]}),
        lambda: raysp.Parquet("x", storage_options={"headers": {"Authorization": f"Bearer {SECRET}"}}),
        lambda: raysp.Shards("a", root=f"s3://AKIA:{SECRET}@bucket/x"),
        lambda: raysp.Label(f"filecache::ftp://u:{SECRET}@host/x", outputs=[raysp.Transcript()]),
        lambda: raysp.Shards(f"https://host/x?X-Amz-Signature={SECRET}&a=b"),
        lambda: override(a_pipeline(), "sink.url", f"https://host/x?sv=1&sig={SECRET}"),
    ],
)
def test_a_literal_secret_is_refused_and_not_repeated(make):
    with pytest.raises(SpecError, match=r"holds a literal secret|the url contains a password or a signature") as caught:
        make()
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


class TestOverride:
    @pytest.mark.parametrize(
        ("path", "text", "message"),
        [
            ("steps.9.pool", "x", "--set steps.9.pool: '9' is not an index of a list of 2"),
            ("sink.url.x", "1", "--set sink.url.x: nothing is below 'sink.url', which is 'out'"),
            ("steps.1.pool.actors", "0", "Pool.actors: found 0"),
        ],
    )
    def test_a_path_that_is_not_there_or_a_value_that_is_not_valid_is_refused(self, path, text, message):
        with pytest.raises(SpecError, match=message) as caught:
            override(a_pipeline(), path, text)
        assert SECRET not in str(caught.value)


def test_a_function_that_is_called_with_another_kind_of_work_says_which_function_takes_it(tmp_path):
    source = raysp.Shards("in", text="text")
    decode, epoch, out = raysp.Decode(), raysp.Schedule(epochs=1), str(tmp_path / "out")
    label = raysp.Label("model", outputs=[raysp.Transcript()])
    pipeline = raysp.Pipeline(source, steps=[decode, label], sink=raysp.Parquet(out))
    recipe = raysp.Finetune(
        source, steps=[decode], objective=raysp.CTC("model"), schedule=epoch, sink=raysp.Checkpoint(out)
    )
    for call, work, message in (
        (raysp.plan, recipe, "found a Finetune, expected a Pipeline; `raysp plan` on the command line"),
        (raysp.run, recipe, "found a Finetune, expected a Pipeline; raysp.finetune"),
        (raysp.finetune, pipeline, "found a Pipeline, expected a Finetune; raysp.run"),
        (raysp.run, "label.py", "found a str, expected a Pipeline"),
    ):
        with pytest.raises(SpecError, match=re.escape(message)):
            call(work)
    assert not (tmp_path / "out").exists()
