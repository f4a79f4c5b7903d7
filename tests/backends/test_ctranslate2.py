"""Whisper by CTranslate2: texts are those of the package for each row alone, whatever shares the batch."""

import json
import shutil
import zlib
from dataclasses import replace

import ctranslate2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor

import raysp
from raysp import CheckpointError, PlanError
from raysp.audio.waveforms import cut_windows
from raysp.backends.finding import choose
from raysp.backends.on_ctranslate2.converted import ready
from raysp.backends.on_ctranslate2.whisper_files import read_stored
from raysp.backends.on_ctranslate2.whisper_mels import whisper_mels
from raysp.labelling.planning.planned_checkpoint import summary_of
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import RATE, WINDOW_SECONDS, labelling, tiny_whisper, waves
from tests.corpora import wav
from tests.here import run_without_ray
from tests.ops.test_labelling import block_of, labels

LENGTHS = (5_000, 9_000, 16_000, 25_000, 800, 32_000)
MORE_LENGTHS = (*LENGTHS, 12_000, 20_000, 28_000, 3_000)
"""So many that some texts differ, whatever a processor makes of eight bits."""
CT2 = {"backend": "ctranslate2", "window_seconds": WINDOW_SECONDS, "overlap_seconds": 0.5}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A random Whisper for recordings of two seconds, in CTranslate2's format."""
    folder = tmp_path_factory.mktemp("ct2")
    source = tiny_whisper(folder / "theirs", multilingual=False)
    return shutil.copytree(ready(source), folder / "ours")


def by_the_package(folder, recordings, *, dtype="float32", **options):
    """Return text and mean log-probability of each recording alone, by the package and faster-whisper's features."""
    model = ctranslate2.models.Whisper(str(folder), compute_type=dtype, intra_threads=1)
    extractor = FeatureExtractor(feature_size=12, chunk_length=WINDOW_SECONDS)
    files = choose(folder, "ctranslate2").open().load(folder, dtype=dtype, device="cpu").files
    prompt = [files.token("startoftranscript"), files.token("notimestamps")]
    texts = []
    for wave in recordings:
        mels = pad_or_trim(extractor(wave)[:, :-1], 100 * WINDOW_SECONDS)
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mels[None], np.float32))
        [found] = model.generate(view, [prompt], return_scores=True, **{"beam_size": 1, "max_length": 40, **options})
        ids = found.sequences_ids[0]
        score = found.scores[0] * len(ids) / (len(ids) + 1)
        texts.append((files.tokenizer.decode([i for i in ids if i < files.token("endoftext")]).strip(), score))
    return texts


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(
    ("output", "options"),
    [
        (raysp.Transcript(), {}),
        (raysp.Transcript(beams=4), {"beam_size": 4}),
        (raysp.Transcript(generate={"beam_size": 2, "length_penalty": 0.6}), {"beam_size": 2, "length_penalty": 0.6}),
    ],
)
def test_texts_are_those_of_the_package_for_each_row_in_any_batch(converted, output, options, dtype):
    recordings = waves(MORE_LENGTHS)
    output.check(summary_of(converted, "ctranslate2"))
    expected = by_the_package(converted, recordings, dtype=dtype, **options)
    assert len({text for text, _ in expected}) >= 3
    for seconds in (1, 6, 600):
        op = labelling(converted, output, backend="ctranslate2", batch_seconds=seconds, dtype=dtype)
        rows = labels(op, block_of(recordings)).values()
        assert [row["pred_text"] for row in rows] == [text for text, _ in expected]
        if "length_penalty" not in options:
            found = [row["pred_score"] for row in rows]
            np.testing.assert_allclose(found, [score for _, score in expected], atol=1e-5)


def test_a_batch_in_eight_bits_gives_each_row_the_bits_that_it_has_alone(converted):
    recordings = waves(LENGTHS)
    output = raysp.Transcript(words=True, beams=2)
    op = labelling(converted, output, backend="ctranslate2", dtype="int8")
    alone = [labels(op, block_of([one]))[0] for one in recordings]
    together = labels(op, block_of(recordings))
    for name in output.columns:
        assert [together[row][name] for row in range(len(alone))] == [one[name] for one in alone]


@pytest.mark.parametrize("samples", [800, 4_321, 16_000, 123_457, 480_000])
def test_features_are_those_of_faster_whisper(samples):
    [wave] = waves([samples])
    expected = pad_or_trim(FeatureExtractor()(wave)[:, :-1])
    np.testing.assert_array_equal(whisper_mels(wave, 80, 3_000), expected)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


def test_a_run_labels_every_row_once_and_joins_the_words_of_windows(corpus, converted, monkeypatch):
    run_without_ray(monkeypatch)
    made = pipeline(corpus, converted, **CT2, outputs=[raysp.Transcript(words=True)])
    assert raysp.run(made).rows == 4
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "skipped"]
    recording = raysp.audio.decode(wav(80_000, seed=2), sample_rate=RATE) / np.float32(32768)
    op = labelling(converted, raysp.Transcript(words=True), backend="ctranslate2")
    windows = [window for window, _ in cut_windows(iter([recording]), op.windowing)]
    assert len(windows) == 3
    texts, words, start = [], [], 0.0
    for window in windows:
        [row] = labels(op, block_of([window])).values()
        texts.append(row["pred_text"])
        times = ("start", "end")
        words += [{**word, **{name: word[name] + start for name in times}} for word in row["pred_words"]]
        start += len(window) / RATE
    assert rows[1]["pred_text"] == " ".join(filter(None, texts))
    assert [word["word"] for word in rows[1]["pred_words"]] == rows[1]["pred_text"].split()
    assert rows[1]["pred_words"] == words
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()


def test_a_whisper_of_hugging_face_is_converted_once(corpus, tmp_path, monkeypatch):
    source = tiny_whisper(tmp_path / "theirs", multilingual=False)
    made = raysp.plan(pipeline(corpus, source, **CT2))
    assert made.parts["steps.1.backend"] == "ctranslate2"
    first = ready(source)
    assert first != source
    states = {file.name: file.stat().st_mtime_ns for file in first.iterdir()}
    monkeypatch.setattr("ctranslate2.converters.TransformersConverter.convert", None)
    assert ready(source) == first
    assert {file.name: file.stat().st_mtime_ns for file in first.iterdir()} == states
    recordings = waves(LENGTHS[:3])
    rows = labels(labelling(source, raysp.Transcript(), backend="ctranslate2"), block_of(recordings)).values()
    assert [row["pred_text"] for row in rows] == [text for text, _ in by_the_package(first, recordings)]


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A random Whisper of three languages, which CTranslate2 tells by the size of its vocabulary."""
    source = tiny_whisper(tmp_path_factory.mktemp("several") / "theirs", vocab_size=51_865)
    return shutil.copytree(ready(source), source.with_name("ours"))


@pytest.mark.slow
def test_the_language_is_given_or_that_which_each_window_has_most_probably(multilingual):
    recordings = waves(LENGTHS)
    model = choose(multilingual, "ctranslate2").open().load(multilingual, dtype="float32", device="cpu")
    detected = []
    for wave in recordings:
        view = ctranslate2.StorageView.from_array(
            whisper_mels(wave, model.files.num_bins, model.files.num_frames)[None]
        )
        detected.append(model.model.detect_language(view)[0][0][0].strip("<|>"))
    by_language = {
        code: labels(
            labelling(multilingual, raysp.Transcript(language=code), backend="ctranslate2"), block_of(recordings)
        )
        for code in ("de", "en", "<|tr|>")
    }
    assert len({rows[1]["pred_text"] for rows in by_language.values()}) > 1
    found = labels(labelling(multilingual, raysp.Transcript(), backend="ctranslate2"), block_of(recordings))
    for place, code in enumerate(detected):
        assert found[place]["pred_text"] == by_language["<|tr|>" if code == "tr" else code][place]["pred_text"]
    task = labels(
        labelling(multilingual, raysp.Transcript(language="de", task="translate"), backend="ctranslate2"),
        block_of(recordings),
    )
    assert any(task[i]["pred_text"] != by_language["de"][i]["pred_text"] for i in range(len(recordings)))


@pytest.mark.slow
def test_the_language_of_each_row_is_that_of_a_column(corpus, multilingual, monkeypatch):
    run_without_ray(monkeypatch)
    table = pq.read_table(corpus / "in" / "a.parquet").slice(0, 2)
    recordings = [*table.column("audio").to_pylist() * 2, table.column("audio")[0].as_py()]
    codes = ["de", "tr", "tr", "de", "DE"]
    columns = {"id": [*"abcde"], "audio": pa.array(recordings, table.schema.field("audio").type), "lang": codes}
    pq.write_table(pa.table(columns), corpus / "in" / "a.parquet")
    by_column = raysp.Transcript(language=raysp.Column("lang"), words=True)
    made = pipeline(corpus, multilingual, **CT2, dtype="int8", outputs=[by_column])
    raysp.run(made)
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["error_type"] for row in rows] == [None] * 4 + ["unknown_language"]
    assert "give one of its 3, similar to 'de'" in rows[-1]["error_message"]
    for code in ("de", "tr"):
        (corpus / code).mkdir()
        alone = replace(made, sink=raysp.Parquet(str(corpus / code)))
        step = replace(made.label, outputs=(raysp.Transcript(language=code, words=True),))
        raysp.run(replace(alone, steps=(made.steps[0], step)))
        expected = pq.read_table(corpus / code / "a.parquet").to_pylist()
        assert expected[0]["pred_text"]
        for row, same in zip(rows, expected, strict=True):
            if row["id"] in "abcd" and codes["abcd".index(row["id"])] == code:
                assert [row[name] for name in by_column.columns] == [same[name] for name in by_column.columns]
    assert rows[0]["pred_text"] != rows[2]["pred_text"] or rows[1]["pred_text"] != rows[3]["pred_text"]
    assert raysp.verify(str(corpus / "out"), sample=5, trust=True).differences == ()


@pytest.mark.slow
def test_the_detected_language_has_the_probability_that_faster_whisper_gives(corpus, multilingual, monkeypatch):
    run_without_ray(monkeypatch)
    recordings = waves(LENGTHS)
    theirs = WhisperModel(str(multilingual), device="cpu", compute_type="float32", cpu_threads=1)
    theirs.feature_extractor = FeatureExtractor(feature_size=12, chunk_length=WINDOW_SECONDS)
    expected = []
    for wave in recordings:
        mels = pad_or_trim(theirs.feature_extractor(wave)[:, :-1], 100 * WINDOW_SECONDS)
        [found] = theirs.model.detect_language(theirs.encode(mels))
        expected.append({token.strip("<|>"): probability for token, probability in found})
    output = raysp.Transcript(words=True, detect=True)
    rows = labels(labelling(multilingual, output, backend="ctranslate2"), block_of(recordings))
    for place, probabilities in enumerate(expected):
        code = max(probabilities, key=probabilities.__getitem__)
        assert rows[place]["pred_language"]["language"] == code
        assert rows[place]["pred_language"]["score"] == pytest.approx(probabilities[code], abs=1e-5)
    assert len({row["pred_language"]["score"] for row in rows.values()}) == len(recordings)
    plain = labels(labelling(multilingual, raysp.Transcript(words=True), backend="ctranslate2"), block_of(recordings))
    names = raysp.Transcript(words=True).columns
    assert [[plain[i][name] for name in names] for i in plain] == [[rows[i][name] for name in names] for i in rows]

    raysp.run(pipeline(corpus, multilingual, **CT2, outputs=[output]))
    found = pq.read_table(corpus / "out" / "a.parquet").column("pred_language").to_pylist()
    recording = raysp.audio.decode(wav(80_000, seed=2), sample_rate=RATE) / np.float32(32768)
    op = labelling(multilingual, output, backend="ctranslate2")
    means = np.zeros(3)
    windows = [window for window, _ in cut_windows(iter([recording]), op.windowing)]
    for window in windows:
        mels = pad_or_trim(theirs.feature_extractor(window)[:, :-1], 100 * WINDOW_SECONDS)
        means += [
            dict(theirs.model.detect_language(theirs.encode(mels))[0])[f"<|{one}|>"] for one in ("de", "en", "tr")
        ]
    means /= len(windows)
    assert found[1]["language"] == ("de", "en", "tr")[means.argmax()]
    assert found[1]["score"] == pytest.approx(means.max(), abs=1e-5)
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()


def test_a_language_is_detected_where_it_is_not_given_by_a_model_of_several(corpus, converted, multilingual):
    with pytest.raises(ValueError, match="leave out one of them"):
        raysp.Transcript(detect=True, language="de")
    with pytest.raises(CheckpointError, match="detect is for a Whisper of several languages"):
        raysp.plan(pipeline(corpus, converted, **CT2, outputs=[raysp.Transcript(detect=True)]))
    of_rows = raysp.Transcript(language=raysp.Column("id"))
    with pytest.raises(CheckpointError, match="a language by row is for"):
        raysp.plan(pipeline(corpus, converted, **CT2, outputs=[of_rows]))
    parts = [raysp.plan(pipeline(corpus, multilingual, **CT2, outputs=[raysp.Transcript()])).fingerprint for _ in "ab"]
    detecting = raysp.plan(pipeline(corpus, multilingual, **CT2, outputs=[raysp.Transcript(detect=True)]))
    assert parts[0] == parts[1] != detecting.fingerprint


def test_rows_without_speech_and_with_repetitions_are_left_out_by_signals_and_counted(corpus, converted, monkeypatch):
    run_without_ray(monkeypatch)
    table = pq.read_table(corpus / "in" / "a.parquet").slice(0, 2)
    recordings = [wav(20_000), wav(24_000, seed=5), wav(80_000, seed=2), wav(9_000, seed=1)]
    audio = pa.array([{"bytes": one, "path": None} for one in recordings], table.schema.field("audio").type)
    pq.write_table(pa.table({"id": [*"abcd"], "audio": audio}), corpus / "in" / "a.parquet")
    outputs = [raysp.Transcript(), raysp.Signals(no_speech=True)]
    made = pipeline(corpus, converted, **CT2, outputs=outputs)
    raysp.run(made)
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    waves_of = [raysp.audio.decode(one, sample_rate=RATE) / np.float32(32768) for one in recordings]
    op = labelling(converted, *outputs, backend="ctranslate2")
    for row, wave in zip(rows, waves_of, strict=True):
        windows = [window for window, _ in cut_windows(iter([wave]), op.windowing)]
        expected = [probability for window in windows for probability in no_speech(converted, window)]
        assert row["signal"]["no_speech"] == pytest.approx(np.mean(expected), rel=1e-4)
        ratio = len(row["pred_text"].encode()) / len(zlib.compress(row["pred_text"].encode()))
        assert row["signal"]["compression"] == pytest.approx(ratio)  # as faster-whisper's compression_ratio_threshold
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()

    silence, repeats = (sorted(row["signal"][name] for row in rows) for name in ("no_speech", "compression"))
    for name, values in (("no_speech", silence), ("compression", repeats)):
        below = int(np.argmax(np.diff(values))) + 1
        bound = (values[below - 1] + values[below]) / 2
        kept = raysp.Keep(where=[(f"signal.{name}", "<", bound)])
        result = raysp.run(replace(made, steps=(*made.steps, kept), sink=raysp.Parquet(str(corpus / name))))
        assert result.skipped == {"filtered": len(rows) - below}
        left_out = [row for row in pq.read_table(corpus / name / "a.parquet").to_pylist() if row["status"] == "skipped"]
        assert len(left_out) == len(rows) - below
        assert all(row["error_message"].startswith(f"signal.{name} is ") for row in left_out)


def no_speech(folder, wave):
    """Return what faster-whisper reads of the package: the probability of no speech at the start of a text."""
    model = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    extractor = FeatureExtractor(feature_size=12, chunk_length=WINDOW_SECONDS)
    mels = pad_or_trim(extractor(wave)[:, :-1], 100 * WINDOW_SECONDS)
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mels[None], np.float32))
    prompts = [["<|startoftranscript|>", "<|notimestamps|>"]]
    return [one.no_speech_prob for one in model.generate(view, prompts, max_length=40, return_no_speech_prob=True)]


def test_windows_are_decoded_greedily_and_without_text_of_other_windows(corpus, converted, monkeypatch):
    run_without_ray(monkeypatch)
    calls = []

    class Recorded(ctranslate2.models.Whisper):
        def generate(self, frames, prompts, **options):
            calls.append((prompts, options))
            return super().generate(frames, prompts, **options)

    monkeypatch.setattr(ctranslate2.models, "Whisper", Recorded)
    raysp.run(pipeline(corpus, converted, **CT2))
    files = choose(converted, "ctranslate2").open().load(converted, dtype="float32", device="cpu").files
    prompt = [files.token("startoftranscript"), files.token("notimestamps")]
    assert sum(len(prompts) for prompts, _ in calls) == 4
    assert all(one == prompt for prompts, _ in calls for one in prompts)
    assert {frozenset(options) for _, options in calls} == {frozenset({"beam_size", "max_length", "return_scores"})}
    for option in ("sampling_temperature", "sampling_topk", "temperature"):
        with pytest.raises(CheckpointError, match=f"unknown option '{option}'"):
            raysp.plan(pipeline(corpus, converted, **CT2, outputs=[raysp.Transcript(generate={option: 1})]))


@pytest.mark.parametrize(
    ("label", "error", "words"),
    [
        ({"outputs": [raysp.Transcript(chars=True)]}, CheckpointError, "chars need a CTC checkpoint"),
        ({"outputs": [raysp.Transcript(beams=4, nbest=2)]}, CheckpointError, "nbest given, which are for CTC"),
        ({"outputs": [raysp.Transcript(generate={"beam_sizes": 2})]}, CheckpointError, "did you mean 'beam_size'"),
        ({"outputs": [raysp.Transcript(generate={"num_beams": 2})]}, CheckpointError, "unknown option 'num_beams'"),
        ({"outputs": [raysp.Transcript(generate={"max_length": 41})]}, CheckpointError, "the 40 positions of"),
        ({"outputs": [raysp.Transcript(generate={"max_length": 0})]}, CheckpointError, "max_length=0, expected 1 to"),
        ({"outputs": [raysp.Transcript(generate={"patience": "2"})]}, CheckpointError, "expected a float"),
        ({"outputs": [raysp.Transcript(language="de")]}, CheckpointError, "this Whisper is for one language"),
        ({"outputs": [raysp.Signals(no_speech=True)], "backend": "transformers"}, CheckpointError, "is for Whisper by"),
        ({"outputs": [raysp.Embedding()]}, CheckpointError, "does not support Embedding"),
        ({"dtype": "int8", "backend": "transformers"}, PlanError, "expected backend='ctranslate2'"),
        ({"window_seconds": 30, "overlap_seconds": 5}, PlanError, "takes at most 2 s"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_the_plan(corpus, converted, tmp_path, label, error, words):
    folder = tiny_whisper(tmp_path / "theirs") if label.get("backend") == "transformers" else converted
    with pytest.raises(error, match=words):
        raysp.plan(pipeline(corpus, folder, **{**CT2, **label}))


@pytest.mark.parametrize(
    ("code", "words"),
    [("fr", r"'fr', expected one of its 3: de, en, tr$"), ("<|fr|>", r"expected one of its 3")],
)
def test_a_language_that_the_model_lacks_is_refused(corpus, multilingual, code, words):
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(corpus, multilingual, **CT2, outputs=[raysp.Transcript(language=code)]))
    with pytest.raises(CheckpointError, match="task='sing', expected one of transcribe, translate"):
        raysp.plan(pipeline(corpus, multilingual, **CT2, outputs=[raysp.Transcript(task="sing")]))


def damaged(folder, target, change):
    shutil.copytree(folder, target)
    content = bytearray((folder / "model.bin").read_bytes())
    (target / "model.bin").write_bytes(change(content))
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[: len(content) // 2], "no whole model of CTranslate2"),
        (lambda content: content[:9], "no whole model of CTranslate2"),
        (lambda content: b"", "no whole model of CTranslate2"),
        (lambda content: b"\xff" + content[1:], "its format is 255"),
        (lambda content: content.replace(b"WhisperSpec", b"WhisperSpeg"), "it is a WhisperSpeg, expected WhisperSpec"),
        (lambda content: content.replace(b"conv1/weight", b"conv1/weighd"), "array 'encoder/conv1/weight' is None"),
    ],
)
def test_damaged_models_are_refused_before_the_package_reads_them(converted, tmp_path, change, words):
    with pytest.raises(CheckpointError, match=words):
        summary_of(damaged(converted, tmp_path / "damaged", change), "ctranslate2")


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_missing_files_are_named(converted, tmp_path, name):
    folder = shutil.copytree(converted, tmp_path / "part")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} not found"):
        summary_of(folder, "ctranslate2")


def test_arrays_are_read_without_their_values(converted):
    architecture, arrays = read_stored(converted / "model.bin")
    assert architecture == "WhisperSpec"
    assert arrays["encoder/conv1/weight"].shape == (24, 12, 3)
    summary = summary_of(converted, "ctranslate2")
    assert (summary.hidden_size, summary.num_layers, summary.max_samples) == (24, 4, 32_000)
    assert json.loads((converted / "config.json").read_text())["suppress_ids"]
