"""Published checkpoints, by name: `raysp inspect` opens each, and a row has the label of transformers."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
import torch

import raysp
from tests.corpora import AUDIO, wav
from tests.published import theirs
from tests.published.aligned import text_of
from tests.published.layout import Layout
from tests.published.table import TABLE

FRAME_SECONDS = 0.02
"""Of a frame; an adapter makes one of two."""
ALWAYS = {"Mos", "Speech", "Signals"}
"""Outputs that need nothing of a checkpoint."""


def layouts(*, opens: bool, pickle: bool | None = None, marked: bool = True) -> list[object]:
    """Return the names of layouts of a kind; outcomes that fail today have to fail, if `marked`.

    Of those that open and have the same keys in the same files, one is tried by `make test`, the others by `make soak`.
    """
    chosen, tried = [], set()
    for name, layout in TABLE.items():
        if bool(layout.refused) == opens or pickle not in (None, layout.is_pickle):
            continue
        marks = [pytest.mark.xfail(strict=True, reason=layout.later)] if marked and layout.later else []
        if opens and layout.keys in tried:
            marks.append(pytest.mark.soak)
        tried.add(layout.keys)
        chosen.append(pytest.param(name, marks=marks, id=name))
    return chosen


def labelled(name: str, layout: Layout, wave: bytes) -> dict[str, object]:
    """Label one row by the outputs of a layout."""
    classes = raysp.Classes(top_k="all" if layout.is_regression else 1)
    specs = {
        "Transcript": raysp.Transcript(language=layout.language),
        "Embedding": raysp.Embedding(),
        "Classes": classes,
    }
    specs["Align"] = raysp.Align("text", chars=True)
    outputs = [specs[one] for one in layout.outputs if one in specs]
    text = text_of(layout) if "Align" in layout.outputs else None
    audio = pa.array([{"bytes": wave, "path": None}], AUDIO)
    rows = pa.table({"id": ["a"], "audio": audio, "text": pa.array([text], pa.string())})
    label = raysp.Labeller([raysp.Decode(), raysp.Label(name, outputs=outputs, **layout.label)])
    return label(rows).to_pylist()[0]


@pytest.mark.parametrize("name", layouts(opens=False))
def test_a_published_checkpoint_is_refused_with_the_reason(name, hub, raysp_command):
    done = raysp_command("inspect", hub(name))
    assert done.code == 2
    assert re.search(TABLE[name].refused, done.err)


@pytest.mark.parametrize("name", layouts(opens=True, pickle=True, marked=False))
def test_a_pickle_is_refused_with_the_command_that_converts_it(name, hub, raysp_command):
    done = raysp_command("inspect", hub(name))
    assert done.code == 2
    assert "raysp convert" in done.err


@pytest.mark.parametrize("name", layouts(opens=True, pickle=True))
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # WavLM in transformers, with a mask
def test_a_converted_pickle_has_the_label_of_transformers(name, laid_out, raysp_command, tmp_path):
    layout, folder = TABLE[name], laid_out(name)
    done = raysp_command("convert", folder, tmp_path / "converted")
    assert done.code == 0, done.err
    check_row(labelled(str(tmp_path / "converted"), layout, wav(16_000)), layout, folder)


@pytest.mark.parametrize("name", layouts(opens=True, pickle=False))
def test_a_published_checkpoint_opens_by_its_name(name, hub, raysp_command):
    layout = TABLE[name]
    done = raysp_command("inspect", hub(name), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {*found["outputs"]} - ALWAYS == {*layout.outputs}
    assert found["backend"] == layout.backend


@pytest.mark.parametrize("name", layouts(opens=True, pickle=False))
def test_a_row_has_the_label_of_transformers(name, hub, laid_out):
    layout = TABLE[name]
    check_row(labelled(hub(name), layout, wav(16_000)), layout, laid_out(name))


def check_row(row: dict[str, object], layout: Layout, folder: Path) -> None:
    """Compare a row with the results of transformers on a folder."""
    assert row["status"] == "ok", row["error_message"]
    expected = theirs.results(layout, folder, theirs.samples_of(wav(16_000)))
    if "Transcript" in layout.outputs:
        assert row["pred_text"] == expected["pred_text"]
        assert expected["pred_text"] or layout.builds == "moonshine", "a label that shows nothing"
        if "pred_score" in expected:
            assert row["pred_score"] == pytest.approx(expected["pred_score"], abs=1e-4)
    if "Align" in layout.outputs:
        frames, score = expected["aligned"]
        seconds = FRAME_SECONDS * (2 if layout.fields.get("add_adapter") else 1)
        found = [(one["start"] / seconds, one["end"] / seconds) for one in row["aligned_chars"]]
        assert found == [pytest.approx(one, abs=1e-6) for one in frames]
        assert row["aligned_score"] == pytest.approx(score, abs=1e-4)
        assert row["aligned_skipped"] == 0
    if "Embedding" in layout.outputs:
        assert torch.allclose(torch.tensor(row["embedding"]), expected["embedding"], atol=1e-4)
    if "Classes" in layout.outputs:
        assert row["pred_label"] == expected["pred_label"]
        assert row["pred_label_scores"] == pytest.approx(expected["pred_label_scores"], abs=1e-4)
