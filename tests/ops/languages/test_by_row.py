"""Labels in a language, and in the language of each row, of a checkpoint with the layout of MMS."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import raysp
from raysp import CheckpointError, PlanError, SpecError
from tests import kit
from tests.models.encoder.many_languages import lay_out

TWENTY = [f"{a}{b}{c}" for a in "aegkt" for b in "ou" for c in "mn"]
LANG = raysp.Column("lang")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return lay_out(tmp_path_factory.mktemp("mms"), TWENTY)


def recording(seed: int, seconds: float) -> bytes:
    wave = 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return kit.sound(wave.astype(np.float32))


def rows_of(languages, **columns) -> pa.Table:
    audio = [{"bytes": recording(place, 0.3 + 0.07 * (place % 11)), "path": None} for place in range(len(languages))]
    ids = [str(place) for place in range(len(languages))]
    return pa.table({"id": ids, "audio": audio, "lang": pa.array(languages, pa.string()), **columns})


def labeller(checkpoint, *outputs, **fields):
    return raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=outputs, **fields)])


def labelled(checkpoint, rows, *outputs):
    return labeller(checkpoint, *outputs)(rows).to_pylist()


def test_a_row_without_a_known_language_or_a_whole_adapter_is_an_error_row_with_the_way_out(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    (folder / "adapter.aun.safetensors").unlink()
    (folder / "adapter.eom.safetensors").write_bytes(b"no weights")
    messages = {
        "aom": None,
        None: "column 'lang': the language is null; give one of the 20 of the checkpoint",
        "xyz": "the checkpoint has no language 'xyz'; give one of its 20",
        "ao": "'ao'; give one of its 20, similar to 'aom', 'aon'",
        "aun": "adapter.aun.safetensors not found",
        "eom": "adapter.eom.safetensors",
        "ton": None,
    }
    found = labelled(folder, rows_of([*messages]), raysp.Transcript(language=LANG))
    for row, message in zip(found, messages.values(), strict=True):
        assert (row["status"], row["pred_text"] is None) == (("error", True) if message else ("ok", False))
        assert (message or "") in (row["error_message"] or "")
    assert [row["error_type"] for row in found[1:4]] == ["unknown_language"] * 3


HOT_WORDS = {"beams": 4, "hot_words": {"a": 1.0}}


@pytest.mark.parametrize(
    ("outputs", "label", "error", "message"),
    [
        ({"language": "gou"}, {}, PlanError, r"no language 'gou'; give one of its 20, similar to 'gun', 'gum', 'gon'"),
        ({"language": "../aom"}, {}, PlanError, r"has no language '\.\./aom'"),
        ({"language": LANG, **HOT_WORDS}, {}, CheckpointError, r"lm and hot_words are for one language, and Column"),
        ({"language": LANG}, {"backend": "transformers"}, CheckpointError, "are those of backend='torch'"),
        ({"language": "aom"}, {"backend": "transformers"}, CheckpointError, "are those of backend='torch'"),
    ],
)
def test_languages_that_cannot_be_are_refused_before_any_work(checkpoint, outputs, label, error, message):
    with pytest.raises(error, match=message):
        labeller(checkpoint, raysp.Transcript(**outputs), **label)


def test_outputs_of_one_pass_have_one_language(checkpoint):
    both = (raysp.Transcript(language="aom"), raysp.Align("text", language="aon"))
    with pytest.raises(PlanError, match="outputs have the languages 'aom', 'aon', and they share one forward pass"):
        labeller(checkpoint, *both)
    with pytest.raises(SpecError, match="languages of rows from the columns 'lang', 'other'; a step has one such"):
        raysp.Label("x", outputs=[raysp.Transcript(language=LANG), raysp.Align("t", language=raysp.Column("other"))])


def announce(folder: Path, language: str | None) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_lang": language}))


@pytest.mark.parametrize("language", ["ton", LANG])
def test_a_named_language_is_used_whatever_the_tokenizer_of_a_folder_announces(tmp_path, language):
    folder = lay_out(tmp_path, ["aom", "ton"])
    announce(folder, "ton")  # the weights are those of the other one, whose vocabulary is smaller
    rows = rows_of(["ton", "ton"], text=["a t"] * 2)
    outputs = (raysp.Transcript(language=language), raysp.Embedding(), raysp.Align("text"))
    with pytest.raises(CheckpointError, match=r"equal those of adapter.aom.*or name a language in the outputs"):
        labeller(folder, raysp.Transcript())
    shown = " ".join(kit.run(["inspect", folder]).out.split())
    assert "one that outputs have to name, of 2 languages" in shown
    assert "equal those of adapter.aom.safetensors" in shown
    found = labelled(folder, rows, *outputs)
    assert [row["status"] for row in found] == ["ok", "ok"]
    for other in ("aom", None):
        announce(folder, other)
        assert found == labelled(folder, rows, *outputs)
    with pytest.raises(CheckpointError, match=r"has no target_lang.*or name a language in the outputs"):
        labeller(folder, raysp.Transcript())
