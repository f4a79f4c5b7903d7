"""Pipelines that label each channel: what has one value a row is refused when they are made."""

import pytest

import raysp
from raysp import SpecError
from tests.corpora import CHECKPOINT, a_pipeline
from tests.recipes import a_recipe


def pipeline(*steps: object, text: str | None = None, **label: object) -> raysp.Pipeline:
    before = [step for step in steps if step.columns]
    behind = [step for step in steps if not step.columns]
    outputs = {"outputs": [raysp.Transcript(), raysp.Signals()], **label}
    steps = [raysp.Decode(channel="each"), *before, raysp.Label(str(CHECKPOINT), **outputs), *behind]
    return a_pipeline(raysp.Shards("in/*.parquet", text=text), steps=steps)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: pipeline(raysp.Map("a:b", adds={"c": "int32"}, reads=["audio"])), "in a second pipeline with Decode"),
        (
            lambda: pipeline(outputs=[raysp.Align("said")]),
            r"Align\(name='aligned'\) reads the column 'said', one value",
        ),
        (lambda: pipeline(text="said"), r"leave text out, and copy the column by Parquet\(keep=\['said'\]\)"),
        (lambda: pipeline(raysp.Keep(where=[("pred_score", ">", 0)])), "give Keep\\(where='module:function'\\)"),
        (
            lambda: a_recipe("in/*.parquet", CHECKPOINT, "out", steps=[raysp.Decode(channel="each")]),
            "choose one by its index, or channel='mean'",
        ),
        (
            lambda: raysp.evaluate(
                str(CHECKPOINT), "in/*.parquet", text="said", steps=[raysp.Decode(channel="each")], sink="out"
            ),
            r"evaluate one by Decode\(channel=0\)",
        ),
    ],
)
def test_what_has_one_value_a_row_is_refused_with_advice(make, advice):
    with pytest.raises(SpecError, match=advice):
        make()
