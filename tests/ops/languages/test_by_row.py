"""Labels in a language, and in the language of each row, of a checkpoint with the layout of MMS."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import transformers

import raysp
from raysp import CheckpointError, PlanError, SpecError
from tests.models.encoder.many_languages import lay_out, model_of, vocabulary
from tests.ops.channels.calls import encoded, side
from tests.soaked import some

TWENTY = [f"{a}{b}{c}" for a in "aegkt" for b in "ou" for c in "mn"]
LANG = raysp.Column("lang")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return lay_out(tmp_path_factory.mktemp("mms"), TWENTY)


def recording(seed: int, num_samples: int) -> bytes:
    wave = 0.1 * np.random.default_rng(seed).standard_normal(num_samples)
    with io.BytesIO() as file:
        soundfile.write(file, wave, 16000, format="WAV")
        return file.getvalue()


def rows_of(languages, *, seconds=None, **columns) -> pa.Table:
    given = seconds or [0.3 + 0.07 * (place % 11) for place in range(len(languages))]
    audio = [{"bytes": recording(place, round(16000 * one)), "path": None} for place, one in enumerate(given)]
    ids = [str(place) for place in range(len(languages))]
    lang = pa.array(languages, pa.string())
    return pa.table({"id": ids, "audio": audio, "lang": lang, **{k: pa.array(v) for k, v in columns.items()}})


def labeller(checkpoint, *outputs, **fields):
    return raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=outputs, **fields)])


def labelled(checkpoint, rows, *outputs, **fields):
    return labeller(checkpoint, *outputs, **fields)(rows).to_pylist()


def without_place(row):
    return {name: value for name, value in row.items() if name not in ("row", "id")}


def agree(found, expected):
    """Return whether two labels are equal, but for last digits of their numbers, which kernels choose by the shape."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(agree(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(agree, found, expected))
    return found == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)


@pytest.mark.slow
@pytest.mark.parametrize("compared", some([TWENTY[::5], TWENTY], TWENTY[::5]), ids=["four alone", "all alone"])
def test_every_row_of_twenty_languages_has_the_label_that_it_has_alone_with_its_adapter(checkpoint, compared):
    languages = [TWENTY[7 * place % 20] for place in range(24)]
    rows = rows_of(languages, text=["a", "25 a"] * 12)

    def outputs(language):
        return (
            raysp.Transcript(language=language, words=True, chars=True),
            raysp.Transcript("searched", language=language, beams=4, nbest=2, words=True),
            raysp.Align("text", chars=True),
            raysp.Align("text", name="wild", unknown="wildcard"),
            raysp.Embedding(),
        )

    mixed = labelled(checkpoint, rows, *outputs(LANG))
    assert {row["status"] for row in mixed} == {"ok"}
    assert len({row["pred_text"] for row in mixed}) == 24
    for language in compared:
        label_alone = labeller(checkpoint, *outputs(language))
        for place in (place for place, one in enumerate(languages) if one == language):
            [alone] = label_alone(rows.slice(place, 1)).to_pylist()
            assert agree(without_place(alone), without_place(mixed[place]))


def test_texts_are_those_of_the_original_with_the_adapter_of_the_language(checkpoint):
    rows = rows_of(["eun", "aom"])
    for language, row in zip(["eun", "aom"], labelled(checkpoint, rows, raysp.Transcript(language=LANG)), strict=True):
        model = transformers.Wav2Vec2ForCTC.from_pretrained(checkpoint)
        processor = transformers.Wav2Vec2Processor.from_pretrained(checkpoint)
        processor.tokenizer.set_target_lang(language)
        model.load_adapter(language)
        place = ["eun", "aom"].index(language)
        wave, rate = soundfile.read(io.BytesIO(rows.column("audio")[place].as_py()["bytes"]), dtype="float32")
        with torch.inference_mode():
            logits = model(**processor(wave, sampling_rate=rate, return_tensors="pt")).logits
        assert processor.batch_decode(logits.argmax(-1)) == [row["pred_text"]]
        assert row["pred_text"]


@pytest.mark.slow
def test_a_row_of_several_windows_is_joined_in_its_language(checkpoint):
    rows = rows_of(["ton", "aom", "ton"], seconds=[5.0, 4.0, 1.0], text=["t", "a", "t"])
    windows = {"window_seconds": 2, "overlap_seconds": 0.5}

    def outputs(language):
        search = raysp.Transcript("searched", language=language, beams=4)
        return raysp.Transcript(language=language, words=True), search, raysp.Align("text", words=True)

    mixed = labelled(checkpoint, rows, *outputs(LANG), **windows)
    for place, language in enumerate(["ton", "aom", "ton"]):
        [alone] = labelled(checkpoint, rows.slice(place, 1), *outputs(language), **windows)
        assert agree(without_place(alone), without_place(mixed[place]))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 30], ids=["several windows", "one window"])
def test_windows_cut_at_pauses_are_joined_in_the_language_of_their_row(checkpoint, seconds):
    waves = [side(0, [0.5, 0.2]), side(1, [1.2, 0.1, 0.8]), side(0, [0.5, 0.2])]
    languages = ["ton", "aom", "eun"]
    audio = [{"bytes": encoded([wave]), "path": None} for wave in waves]
    rows = pa.table({"id": languages, "audio": audio, "lang": languages})
    windows = {"windows": "speech", "window_seconds": seconds, "overlap_seconds": 0.25}
    mixed = labelled(checkpoint, rows, raysp.Transcript(language=LANG, words=True), **windows)
    assert len({row["pred_text"] for row in mixed}) == 3
    for place, language in enumerate(languages):
        output = raysp.Transcript(language=language, words=True)
        [alone] = labelled(checkpoint, rows.slice(place, 1), output, **windows)
        assert agree(without_place(alone), without_place(mixed[place]))


def test_a_row_without_a_known_language_is_an_error_row_with_the_way_out(checkpoint):
    found = labelled(checkpoint, rows_of(["aom", None, "xyz", "ao", ""]), raysp.Transcript(language=LANG))
    assert [row["status"] for row in found] == ["ok", "error", "error", "error", "error"]
    assert [row["error_type"] for row in found[1:]] == ["unknown_language"] * 4
    assert [row["pred_text"] for row in found[1:]] == [None] * 4
    assert "column 'lang': the language is null; give one of the 20 of the checkpoint" in found[1]["error_message"]
    assert "the checkpoint has no language 'xyz'; give one of its 20" in found[2]["error_message"]
    assert "'ao'; give one of its 20, similar to 'aom', 'aon'" in found[3]["error_message"]


def test_a_language_whose_adapter_is_missing_or_does_not_fit_costs_its_rows_alone(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    (folder / "adapter.aun.safetensors").unlink()
    (folder / "adapter.eom.safetensors").write_bytes(b"no weights")
    found = labelled(folder, rows_of(["aom", "aun", "eom", "ton"]), raysp.Transcript(language=LANG))
    assert [row["status"] for row in found] == ["ok", "error", "error", "ok"]
    assert "adapter.aun.safetensors not found" in found[1]["error_message"]
    assert "adapter.eom.safetensors" in found[2]["error_message"]


def test_adapters_beyond_those_kept_are_read_again(checkpoint, monkeypatch):
    monkeypatch.setattr("raysp.models.encoder.languages.MOST_KEPT", 2)
    rows = rows_of([TWENTY[place % 5] for place in range(15)])
    few = labelled(checkpoint, rows, raysp.Transcript(language=LANG))
    monkeypatch.undo()
    assert few == labelled(checkpoint, rows, raysp.Transcript(language=LANG))


def test_an_unknown_language_is_refused_with_similar_ones_and_their_number(checkpoint):
    with pytest.raises(PlanError, match=r"no language 'gou'; give one of its 20, similar to 'gun', 'gum', 'gon'"):
        labelled(checkpoint, rows_of(["aom"]), raysp.Transcript(language="gou"))
    with pytest.raises(PlanError, match=r"has no language '\.\./aom'"):
        labelled(checkpoint, rows_of(["aom"]), raysp.Transcript(language="../aom"))


def test_outputs_of_one_pass_have_one_language(checkpoint):
    both = (raysp.Transcript(language="aom"), raysp.Align("text", language="aon"))
    with pytest.raises(PlanError, match="outputs have the languages 'aom', 'aon', and they share one forward pass"):
        labelled(checkpoint, rows_of(["aom"], text=["a"]), *both)
    with pytest.raises(SpecError, match="languages of rows from the columns 'lang', 'other'; a step has one such"):
        raysp.Label("x", outputs=[raysp.Transcript(language=LANG), raysp.Align("t", language=raysp.Column("other"))])


def test_a_language_by_row_takes_no_words_of_one_language(checkpoint):
    with pytest.raises(CheckpointError, match=r"lm and hot_words are for one language, and Column\('lang'\) is the"):
        labelled(checkpoint, rows_of(["aom"]), raysp.Transcript(language=LANG, beams=4, hot_words={"a": 1.0}))


@pytest.mark.parametrize("language", ["aom", LANG])
def test_another_backend_takes_no_language(checkpoint, language):
    with pytest.raises(CheckpointError, match="languages of a CTC checkpoint are those of backend='torch'"):
        labelled(checkpoint, rows_of(["aom"]), raysp.Transcript(language=language), backend="transformers")


@pytest.mark.slow
@pytest.mark.parametrize("before", [[], [raysp.Embedding("sound")]], ids=["one step", "a second step"])
def test_a_pipeline_labels_shards_of_mixed_languages(checkpoint, tmp_path, before):
    languages = [TWENTY[7 * place % 20] for place in range(40)]
    (tmp_path / "in").mkdir()
    pq.write_table(rows_of(languages), tmp_path / "in" / "a.parquet", row_group_size=13)
    steps = [raysp.Label(str(checkpoint), outputs=before)] if before else []
    steps.append(raysp.Label(str(checkpoint), outputs=[raysp.Transcript(language=LANG)]))
    source, sink = raysp.Shards(f"{tmp_path}/in/*.parquet"), raysp.Parquet(str(tmp_path / "out"))
    pipeline = raysp.Pipeline(source, steps=[raysp.Decode(), *steps], sink=sink)
    raysp.run(pipeline, engine="here", progress=False)
    record = json.loads((tmp_path / "out" / ".raysp" / "run.json").read_text())
    assert record["pipeline"]["steps"][-1]["outputs"][0]["language"] == {"type": "Column", "name": "lang"}
    texts = pq.read_table(tmp_path / "out" / "a.parquet").column("pred_text").to_pylist()
    alone = labelled(checkpoint, rows_of(languages), raysp.Transcript(language=LANG))
    assert texts == [row["pred_text"] for row in alone]


@pytest.mark.slow
def test_transformers_labels_with_the_adapter_that_differs_from_the_weights_too(tmp_path):
    folder = lay_out(tmp_path / "checkpoint", ["eng", "deu"])
    model_of(5, vocab_size=len(vocabulary(0))).save_adapter(folder, "eng")
    rows = rows_of([None] * 3)
    own, other = (labelled(folder, rows, raysp.Transcript(), backend=one) for one in (None, "transformers"))
    assert [row["pred_text"] for row in own] == [row["pred_text"] for row in other]
    (folder / "adapter.eng.safetensors").unlink()
    assert [row["pred_text"] for row in labelled(folder, rows, raysp.Transcript())] != [row["pred_text"] for row in own]


def announce(folder: Path, language: str | None) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_lang": language}))


@pytest.fixture(params=["the adapters of both", "the adapter of the weights"])
def contradicted(request, tmp_path) -> Path:
    """A checkpoint with the weights of one language, and the tokenizer of another, whose vocabulary is larger."""
    folder = lay_out(tmp_path, ["aom", "ton"])
    announce(folder, "ton")
    if request.param != "the adapters of both":
        (folder / "adapter.ton.safetensors").unlink()
    return folder


@pytest.mark.parametrize("language", ["aom", "ton", LANG])
def test_a_named_language_is_used_whatever_the_tokenizer_of_a_folder_announces(contradicted, language):
    rows = rows_of(["aom", "aom"] if language == "aom" else ["ton", "ton"], text=["a t"] * 2)
    outputs = (raysp.Transcript(language=language), raysp.Embedding(), raysp.Align("text"))
    with pytest.raises(CheckpointError, match=r"equal those of adapter.aom.*or name a language in the outputs"):
        labelled(contradicted, rows, raysp.Transcript())
    if language == "ton" and not (contradicted / "adapter.ton.safetensors").is_file():
        with pytest.raises(CheckpointError, match=r"adapter.ton.safetensors not found"):
            labelled(contradicted, rows, *outputs)
        return
    found = labelled(contradicted, rows, *outputs)
    if not (contradicted / "adapter.ton.safetensors").is_file() and language is LANG:
        assert [row["error_type"] for row in found] == ["unknown_language"] * 2
        return
    assert [row["status"] for row in found] == ["ok", "ok"]
    announce(contradicted, "aom")
    assert found == labelled(contradicted, rows, *outputs)


@pytest.mark.parametrize("language", ["aom", "ton"])
def test_a_checkpoint_whose_tokenizer_announces_no_language_is_used_in_one_that_is_named(tmp_path, language):
    folder, rows = lay_out(tmp_path, ["aom", "ton"]), rows_of([language] * 2)
    expected = labelled(folder, rows, raysp.Transcript(language=language))
    announce(folder, None)
    assert labelled(folder, rows, raysp.Transcript(language=language)) == expected
    with pytest.raises(CheckpointError, match=r"has no target_lang.*or name a language in the outputs"):
        labelled(folder, rows, raysp.Transcript())


def test_inspect_names_what_the_tokenizer_announces_and_the_weights_are_not(contradicted, raysp_command):
    done = raysp_command("inspect", contradicted)
    assert done.code == 0, done.err
    assert "language" in done.out
    assert "one that outputs have to name, of 2 languages" in " ".join(done.out.split())
    assert "equal those of adapter.aom.safetensors" in " ".join(done.out.split())
