"""Whisper by CTranslate2: texts are those of the package for each row alone, whatever shares the batch."""

import shutil
import zlib

import ctranslate2
import numpy as np
import pyarrow.parquet as pq
import pytest
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer

import raysp
from raysp import CheckpointError, PlanError
from tests.backends.runs import pipeline
from tests.backends.theirs import RATE, WINDOW_SECONDS, labelling, tiny_whisper, waves, windows_of
from tests.corpora import label_arrays, wav
from tests.here import run_without_ray
from tests.models.oracles import transformers
from tests.ops.waves import block_of, labels

LENGTHS = (5_000, 9_000, 16_000, 25_000, 800, 32_000)
MORE_LENGTHS = (*LENGTHS, 12_000, 20_000, 28_000, 3_000)
"""So many that some texts differ, whatever a processor makes of eight bits."""
LENGTH_PENALTY = {"beam_size": 2, "length_penalty": 0.6}
CT2 = {"backend": "ctranslate2", "window_seconds": WINDOW_SECONDS, "overlap_seconds": 0.5}


def convert(source, folder):
    """Write a Whisper of Hugging Face in CTranslate2's format, by the package."""
    ctranslate2.converters.TransformersConverter(str(source)).convert(str(folder))
    transformers.AutoTokenizer.from_pretrained(source).backend_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A random Whisper for recordings of two seconds, in CTranslate2's format."""
    folder = tmp_path_factory.mktemp("ct2")
    return convert(tiny_whisper(folder / "theirs", multilingual=False), folder / "ours")


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A random Whisper of three languages, which CTranslate2 tells by the size of its vocabulary."""
    folder = tmp_path_factory.mktemp("several")
    return convert(tiny_whisper(folder / "theirs", vocab_size=51_865), folder / "ours")


def mels_of(wave):
    """Return the features of faster-whisper as the package takes them."""
    mels = FeatureExtractor(feature_size=12, chunk_length=WINDOW_SECONDS)(wave)[:, :-1]
    padded = pad_or_trim(mels, 100 * WINDOW_SECONDS)
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(padded[None], np.float32))


def by_the_package(folder, recordings, *, dtype="float32", **options):
    """Return text, mean log-probability and probability of no speech of each recording alone, by the package."""
    model = ctranslate2.models.Whisper(str(folder), compute_type=dtype, intra_threads=1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    options = {"beam_size": 1, "max_length": 40, "return_scores": True, "return_no_speech_prob": True, **options}
    made = []
    for wave in recordings:
        [found] = model.generate(mels_of(wave), [["<|startoftranscript|>", "<|notimestamps|>"]], **options)
        ids = found.sequences_ids[0]
        text = tokenizer.decode([i for i in ids if i < end]).strip()
        made.append((text, found.scores[0] * len(ids) / (len(ids) + 1), found.no_speech_prob))
    return made


@pytest.mark.parametrize(
    ("output", "options", "dtype"),
    [
        (raysp.Transcript(), {}, "float32"),
        (raysp.Transcript(beams=4), {"beam_size": 4}, "int8"),
        (raysp.Transcript(generate=LENGTH_PENALTY), LENGTH_PENALTY, "float32"),
    ],
)
def test_texts_are_those_of_the_package_for_each_row_in_any_batch(converted, output, options, dtype):
    recordings = waves(MORE_LENGTHS)
    expected = by_the_package(converted, recordings, dtype=dtype, **options)
    assert len({text for text, *_ in expected}) >= 3
    for seconds in (1, 600):
        op = labelling(converted, output, backend="ctranslate2", batch_seconds=seconds, dtype=dtype)
        rows = labels(op, block_of(recordings)).values()
        assert [row["pred_text"] for row in rows] == [text for text, *_ in expected]
        if "length_penalty" not in options:
            found = [row["pred_score"] for row in rows]
            np.testing.assert_allclose(found, [score for _, score, _ in expected], atol=1e-5)


def test_a_run_labels_every_row_once_and_joins_the_words_of_windows(corpus, converted, monkeypatch):
    run_without_ray(monkeypatch)
    made = pipeline(corpus, converted, **CT2, outputs=[raysp.Transcript(words=True)])
    assert raysp.run(made).rows == 4
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "skipped"]
    recording = raysp.audio.decode(wav(80_000, seed=2), sample_rate=RATE) / np.float32(32768)
    op = labelling(converted, raysp.Transcript(words=True), backend="ctranslate2")
    windows = windows_of(op, recording)
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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tiny_whisper(tmp_path / "theirs", multilingual=False)
    assert raysp.plan(pipeline(corpus, source, **CT2)).parts["steps.1.backend"] == "ctranslate2"
    [first] = (tmp_path / "cache").rglob("model.bin")
    made = first.stat().st_mtime_ns
    recordings = waves(LENGTHS[:3])
    rows = labels(labelling(source, raysp.Transcript(), backend="ctranslate2"), block_of(recordings)).values()
    assert [row["pred_text"] for row in rows] == [text for text, *_ in by_the_package(first.parent, recordings)]
    assert ([*(tmp_path / "cache").rglob("model.bin")], first.stat().st_mtime_ns) == ([first], made)


@pytest.mark.slow
def test_the_language_is_given_or_that_which_each_window_has_most_probably(multilingual):
    recordings = waves(LENGTHS[:3])

    def rows_of(**request: object) -> list[dict]:
        op = labelling(multilingual, raysp.Transcript(**request), backend="ctranslate2")
        return [*labels(op, block_of(recordings)).values()]

    model = ctranslate2.models.Whisper(str(multilingual), compute_type="float32", intra_threads=1)
    by_language = {code: rows_of(language=code) for code in ("de", "en", "<|tr|>")}
    assert len({rows[1]["pred_text"] for rows in by_language.values()}) > 1
    found = rows_of(detect=True)
    assert [row["pred_text"] for row in found] == [row["pred_text"] for row in rows_of()]
    assert len({row["pred_language"]["score"] for row in found}) == len(recordings)
    for place, (row, wave) in enumerate(zip(found, recordings, strict=True)):
        [[(token, probability), *_]] = model.detect_language(mels_of(wave))
        code = token.strip("<|>")
        assert row["pred_language"] == {"language": code, "score": pytest.approx(probability, abs=1e-5)}
        assert row["pred_text"] == by_language["<|tr|>" if code == "tr" else code][place]["pred_text"]
    translated = rows_of(language="de", task="translate")
    assert [row["pred_text"] for row in translated] != [row["pred_text"] for row in by_language["de"]]


def test_signals_have_the_probability_of_no_speech_and_the_compression_of_a_text(converted):
    recordings, outputs = waves((20_000, 80_000, 9_000)), [raysp.Transcript(), raysp.Signals(no_speech=True)]
    op = labelling(converted, *outputs, backend="ctranslate2")
    for row, wave in zip(label_arrays(converted, outputs, recordings, **CT2), recordings, strict=True):
        expected = [probability for *_, probability in by_the_package(converted, windows_of(op, wave))]
        assert row["signal"]["no_speech"] == pytest.approx(np.mean(expected), rel=1e-4)
        ratio = len(row["pred_text"].encode()) / len(zlib.compress(row["pred_text"].encode()))
        assert row["signal"]["compression"] == pytest.approx(ratio)  # as faster-whisper's compression_ratio_threshold


@pytest.mark.parametrize(
    ("label", "error", "words"),
    [
        ({"outputs": [raysp.Transcript(chars=True)]}, CheckpointError, "chars need a CTC checkpoint"),
        ({"outputs": [raysp.Transcript(generate={"beam_sizes": 2})]}, CheckpointError, "did you mean 'beam_size'"),
        ({"outputs": [raysp.Transcript(detect=True)]}, CheckpointError, "detect is for a Whisper of several languages"),
        ({"outputs": [raysp.Transcript(generate={"patience": "2"})]}, CheckpointError, "expected a float"),
        ({"outputs": [raysp.Transcript(language="de")]}, CheckpointError, "this Whisper is for one language"),
        ({"outputs": [raysp.Embedding()]}, CheckpointError, "does not support Embedding"),
        ({"window_seconds": 30, "overlap_seconds": 5}, PlanError, "takes at most 2 s"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_the_plan(corpus, converted, label, error, words):
    with pytest.raises(error, match=words):
        raysp.plan(pipeline(corpus, converted, **{**CT2, **label}))


def test_a_language_or_a_task_that_the_model_lacks_is_refused(corpus, multilingual):
    for output, words in (
        ({"language": "<|fr|>"}, r"expected one of its 3: de, en, tr$"),
        ({"task": "sing"}, "task='sing', expected one of transcribe, translate"),
    ):
        with pytest.raises(CheckpointError, match=words):
            raysp.plan(pipeline(corpus, multilingual, **CT2, outputs=[raysp.Transcript(**output)]))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("model.bin", lambda content: content[: len(content) // 2], "no whole model of CTranslate2"),
        ("model.bin", lambda content: b"\xff" + content[1:], "its format is 255"),
        ("model.bin", lambda content: content.replace(b"WhisperSpec", b"WhisperSpeg"), "WhisperSpeg, expected Whisper"),
        ("model.bin", lambda content: content.replace(b"conv1/weight", b"conv1/weighd"), "array 'encoder/conv1/weigh"),
        ("model.bin", None, "model.bin not found"),
        ("tokenizer.json", None, "tokenizer.json not found"),
    ],
)
def test_damaged_models_are_refused_before_the_package_reads_them(corpus, converted, file, change, words):
    folder = shutil.copytree(converted, corpus / "damaged")
    content = (folder / file).read_bytes()
    (folder / file).unlink()
    if change:
        (folder / file).write_bytes(change(content))
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(corpus, folder, **CT2))
