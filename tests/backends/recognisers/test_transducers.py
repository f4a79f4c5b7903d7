"""Transducers of transformers: scores and times of tokens by their own loop, languages, refusals, kills."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.audio.waveforms import cut_windows
from raysp.backends.hugging_face.transformers_backend import HuggingFaceModels
from raysp.models.decoder.transducing import Path as SearchPath
from tests.backends.killed_runs import check_killed
from tests.backends.recognisers.loops import MOST_STEPS, RATE, load
from tests.backends.recognisers.tiny_transducers import TRANSDUCER_BUILDERS
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import labelling, waves
from tests.here import run_without_ray
from tests.models.oracles import transformers
from tests.ops.test_labelling import block_of, labels

FRAME, MARKS = 0.08, (".", ",")
LENGTHS = (24_000, 9_000, 160_000, 33_333)
describe = HuggingFaceModels().describe


@pytest.fixture
def edited(tmp_path, recogniser):
    """Return the function that returns a copy of a checkpoint with other values in one of its JSON files."""

    def copy(name: str, file: str, **values) -> Path:
        folder = shutil.copytree(recogniser(name), tmp_path / "copies" / name, dirs_exist_ok=True)
        settings = json.loads((folder / file).read_text())
        settings = {**settings, **values}
        (folder / file).write_text(json.dumps(settings))
        return folder

    return copy


def generated(processor: Any, model: Any, wave: np.ndarray, **options) -> Any:
    """Return what the loop of transformers writes for a recording."""
    with torch.inference_mode():
        inputs = processor(audio=wave, sampling_rate=RATE, return_tensors="pt", **options)
        return model.generate(**inputs, max_new_tokens=MOST_STEPS)


def text_of(processor: Any, model: Any, wave: np.ndarray, **options) -> str:
    """Return the text of a recording by the loop of transformers."""
    [text] = processor.decode(generated(processor, model, wave, **options).sequences, skip_special_tokens=True)
    return text.strip()


def path_of(folder: Path, name: str, wave: np.ndarray) -> list[tuple[int, int, float]]:
    """Return token, frame and log-probability of each step that is no blank, by the loop of transformers."""
    processor, model = load(folder, name)
    logits: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: logits.append(output.logits[0, -1]))
    made = generated(processor, model, wave)
    ids = made.sequences[0, 1:].tolist()
    frames = (made.durations.cumsum(-1) - made.durations)[0, 1:].tolist()
    scores = [float(step.log_softmax(-1)[index]) for step, index in zip(logits, ids, strict=True)]
    blank = model.config.blank_token_id
    return [step for step in zip(ids, frames, scores, strict=True) if step[0] != blank]


def words_of(path, tokenizer) -> list[tuple[str, float, float, float]]:
    """Return the words of a path with start, end and mean probability, without marks at the end of a word.

    Tokens of one frame have equal parts of it.
    """
    words: list[list[tuple[str, float, float, float]]] = []
    for place, (index, frame, score) in enumerate(path):
        of_frame = [other for other, step in enumerate(path) if step[1] == frame]
        share = FRAME / len(of_frame)
        start = frame * FRAME + (place - of_frame[0]) * share
        [token] = tokenizer.convert_ids_to_tokens([index])
        if token.startswith("▁") or not words:
            words.append([])
        words[-1].append((token.removeprefix("▁"), start, start + share, np.exp(score)))
    made = []
    for word in words:
        text = "".join(token[0] for token in word)
        while word[-1][0] in MARKS and len(word) > 1:
            word.pop()
        made.append((text, word[0][1], word[-1][2], np.mean([token[3] for token in word])))
    return made


def put_path(op, monkeypatch, steps: list[tuple[str, int]]) -> None:
    """Let the search of a transducer write tokens at frames, each with probability 0.5."""
    ids = op.loaded.files.processor.tokenizer.convert_tokens_to_ids([token for token, _ in steps])
    frames = torch.tensor([[frame for _, frame in steps]])
    path = SearchPath(torch.tensor([ids]), frames, torch.zeros_like(frames), torch.full(frames.shape, np.log(0.5)))
    monkeypatch.setattr(op.loaded.search, "path", lambda *_: path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSDUCER_BUILDERS)
def test_scores_and_words_are_those_of_the_loop_of_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves(LENGTHS)
    op = labelling(folder, raysp.Transcript(words=True), window_seconds=60)
    for row, wave in zip(labels(op, block_of(recordings)).values(), recordings, strict=True):
        path = path_of(folder, name, wave)
        assert row["pred_score"] == pytest.approx(np.mean([score for *_, score in path]), abs=1e-5)
        words, expected = row["pred_words"], words_of(path, op.loaded.files.processor.tokenizer)
        assert [word["word"] for word in words] == [word[0] for word in expected] == row["pred_text"].split()
        for place, (key, most) in enumerate({"start": row["seconds"], "end": row["seconds"], "score": 1}.items(), 1):
            values = np.minimum([word[place] for word in expected], most)
            np.testing.assert_allclose([word[key] for word in words], values, atol=1e-5)


def test_tags_are_languages_and_marks_lengthen_no_word(recogniser, monkeypatch):
    op = labelling(recogniser("nemotron3_5_asr"), raysp.Transcript(words=True, detect=True))
    put_path(op, monkeypatch, [("▁an", 1), ("n", 1), (".", 4), ("▁", 6), ("th", 6), ("<de-DE>", 7), ("th", 11)])
    [row] = labels(op, block_of(waves([14_400]))).values()  # 0.9 s, 13 frames
    assert row["pred_text"] == "ann. thth"
    assert row["pred_score"] == pytest.approx(np.log(0.5))
    assert row["pred_language"] == {"language": "de-DE", "score": pytest.approx(0.5)}
    words = [(word["word"], word["start"], word["end"], word["score"]) for word in row["pred_words"]]
    assert [word for word, *_ in words] == ["ann.", "thth"]
    np.testing.assert_allclose([numbers for _, *numbers in words], [(0.08, 0.16, 0.5), (0.48, 0.9, 0.5)], atol=1e-6)


def test_a_text_without_a_tag_has_no_language(recogniser, monkeypatch):
    op = labelling(recogniser("nemotron3_5_asr"), raysp.Transcript(detect=True))
    put_path(op, monkeypatch, [("▁an", 1)])
    [row] = labels(op, block_of(waves([14_400]))).values()
    assert (row["pred_text"], row["pred_language"]) == ("an", None)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSDUCER_BUILDERS)
def test_half_precision_has_the_text_of_a_window_alone(recogniser, name):
    recordings = waves(LENGTHS[:2])
    op = labelling(recogniser(name), raysp.Transcript(words=True), dtype="bfloat16")
    together = [*labels(op, block_of(recordings)).values()]
    alone = [labels(op, block_of([wave]))[0] for wave in recordings]
    columns = ("pred_text", "pred_score", "pred_words")
    assert [[row[column] for column in columns] for row in together] == [
        [row[column] for column in columns] for row in alone
    ]
    op.loaded.check_padding()


def test_a_row_whose_frames_are_not_finite_is_an_error_row(recogniser):
    op = labelling(recogniser("nemotron_asr_streaming"), raysp.Transcript())
    op.loaded.search.model.encoder_projector.weight.data.fill_(float("nan"))
    [row] = labels(op, block_of(waves([16_000]))).values()
    assert (row["status"], row["error_type"], row["pred_text"]) == ("error", "step_failed", None)
    assert "the probability of a token is not finite" in row["error_message"]


def test_a_model_that_padding_changes_here_is_refused_when_it_is_loaded(recogniser, monkeypatch):
    model = labelling(recogniser("nemotron_asr_streaming"), raysp.Transcript()).loaded
    encode = model.search.model.get_audio_features

    def leak(input_features, **inputs):
        encoded = encode(input_features, **inputs)
        encoded.pooler_output = encoded.pooler_output + input_features.shape[1] / 1000
        return encoded

    monkeypatch.setattr(model.search.model, "get_audio_features", leak)
    with pytest.raises(CheckpointError, match=r"scores of a recording differ by .* alone and in a padded batch"):
        model.check_padding()


def test_a_language_is_taken_where_the_processor_takes_one(recogniser):
    for name, options in {"nemotron3_5_asr": ("language",), "nemotron_asr_streaming": ()}.items():
        summary = describe(recogniser(name))
        processor = transformers.AutoProcessor.from_pretrained(recogniser(name))
        assert ("language" in inspect.signature(type(processor).__call__).parameters) == bool(options)
        assert (summary.takes, summary.writes_times, summary.alone) == (options, True, "")
    assert describe(recogniser("nemotron3_5_asr")).languages == ("de", "de-DE", "en-US", "fr-FR")


@pytest.mark.slow
def test_rows_are_in_the_languages_of_a_column(tmp_path, recogniser, monkeypatch):
    run_without_ray(monkeypatch)
    corpus, folder = write_corpus(tmp_path), recogniser("nemotron3_5_asr")
    file = corpus / "in" / "a.parquet"
    table = pq.read_table(file).slice(1, 1)
    languages = ["de-DE", "fr-FR", "en-US", "fr-FR", "xx"]
    rows = pa.concat_tables([table] * len(languages)).append_column("lang", pa.array(languages))
    pq.write_table(rows, file)
    raysp.run(pipeline(corpus, folder, outputs=[raysp.Transcript(language=raysp.Column("lang"), words=True)]))
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["error_type"] for row in rows] == [None] * 4 + ["unknown_language"]
    assert "'xx'" in rows[-1]["error_message"]
    texts = [row["pred_text"] for row in rows]
    assert texts[1] == texts[3]
    assert len({*texts[:3]}) == 3
    recording = raysp.audio.decode(table.column("audio")[0].as_py()["bytes"], sample_rate=RATE) / np.float32(32768)
    windowing = labelling(folder, raysp.Transcript(language="fr-FR")).windowing
    windows = [window for window, _ in cut_windows(iter([recording]), windowing)]
    assert len(windows) > 1
    processor, model = load(folder, "nemotron3_5_asr")
    expected = [text_of(processor, model, window, language="fr-FR") for window in windows]
    assert texts[1] == " ".join(filter(None, expected))
    for row in rows[:4]:
        starts = [word["start"] for word in row["pred_words"]]
        assert starts == sorted(starts)
        assert [word["word"] for word in row["pred_words"]] == row["pred_text"].split()


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("nemotron3_5_asr", {"language": "xx"}, "language='xx', expected one of its 4: de, de-DE, en-US, fr-FR"),
        ("nemotron3_5_asr", {"task": "translate"}, "Nemotron3_5AsrForRNNT takes language: leave it out"),
        ("nemotron3_5_asr", {"prompt": "talk"}, "prompt given, which Nemotron3_5AsrForRNNT does not take"),
        ("nemotron3_5_asr", {"chars": True}, "chars need a CTC checkpoint"),
        ("nemotron3_5_asr", {"generate": {"max_new_tokens": 9}}, "generate has max_new_tokens, expected no option"),
        ("nemotron_asr_streaming", {"language": "en"}, "language='en' given; .* takes no option: leave it out"),
        ("nemotron_asr_streaming", {"detect": True}, "NemotronAsrStreamingForRNNT .* detects none"),
    ],
)
def test_what_a_transducer_does_not_take_is_refused_by_the_plan(tmp_path, recogniser, name, output, words):
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(write_corpus(tmp_path), recogniser(name), outputs=[raysp.Transcript(**output)]))


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("generation_config.json", {"eos_token_id": 4}, "generation_config.json has eos_token_id=4, .* Remove"),
        ("generation_config.json", {"suppress_tokens": [4]}, r"has suppress_tokens=\[4\], with which raysp does not"),
        ("generation_config.json", {"max_new_tokens": 20}, "has max_new_tokens=20"),
        (
            "generation_config.json",
            {"decoder_start_token_id": 4},
            r"blank_token_id is 61 of 62 tokens, decoder_start_token_id is 4",
        ),
        ("config.json", {"blank_token_id": 99}, "blank_token_id is 99"),
        ("config.json", {"vocab_size": 50}, "blank_token_id is 61 of 50 tokens"),
        ("config.json", {"vocab_size": 80}, "tokenizer has 63 tokens, the model 80"),
        ("config.json", {"encoder_config": {"num_mel_bins": 128}}, "has 80 mel bins, the encoder 128"),
        ("processor_config.json", {"prompt_dictionary": {"de-DE": 0}}, "Unknown `language='auto'`"),
        ("processor_config.json", {"feature_extractor": 3}, "transformers .* cannot read it"),
    ],
)
def test_a_damaged_file_is_refused_with_a_sentence(edited, file, values, words):
    with pytest.raises(CheckpointError, match=words):
        describe(edited("nemotron3_5_asr", file, **values))


def test_a_tokenizer_of_another_checkpoint_is_refused(edited):
    folder = edited("nemotron3_5_asr", "tokenizer.json")
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"]["vocab"] |= {"xx": 61, "yy": 62, "zz": 63}
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="the tokenizer has 66 tokens, the model 62"):
        describe(folder)


@pytest.mark.drivers
@pytest.mark.slow
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, recogniser):
    outputs = "outputs=[raysp.Transcript(words=True, language='de-DE')]"
    check_killed(tmp_path, recogniser("nemotron3_5_asr"), outputs, "before_piece_staged:2")
