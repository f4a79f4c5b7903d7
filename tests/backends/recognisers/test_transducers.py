"""Transducers of transformers: scores and times of tokens by their own loop, and languages."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import raysp
from tests.backends.recognisers.loops import MOST_STEPS, RATE, load
from tests.backends.recognisers.tiny_ctc import TRANSDUCER_BUILDERS
from tests.backends.theirs import labelling, waves
from tests.ops.waves import block_of, labels

FRAME, MARKS = 0.08, (".", ",")
LENGTHS = (24_000, 9_000, 50_000)


def path_of(folder: Path, name: str, wave: np.ndarray) -> list[tuple[int, int, float]]:
    """Return token, frame and log-probability of each step that is no blank, by the loop of transformers."""
    processor, model = load(folder, name)
    logits: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, inputs, output: logits.append(output.logits[0, -1]))
    with torch.inference_mode():
        inputs = processor(audio=wave, sampling_rate=RATE, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=MOST_STEPS)
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


def put_path(op, steps: list[tuple[str, int]]) -> None:
    """Let the search of a transducer write tokens at frames, each with probability 0.5."""
    ids = op.loaded.files.processor.tokenizer.convert_tokens_to_ids([token for token, _ in steps])
    frames = torch.tensor([[frame for _, frame in steps]])
    path = SimpleNamespace(
        tokens_BS=torch.tensor([ids]),
        frames_BS=frames,
        spans_BS=torch.zeros_like(frames),
        scores_BS=torch.full(frames.shape, np.log(0.5)),
    )
    op.loaded.search.path = lambda *_: path


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


def test_tags_are_languages_and_marks_lengthen_no_word(recogniser):
    op = labelling(recogniser("nemotron3_5_asr"), raysp.Transcript(words=True, detect=True))
    put_path(op, [("▁an", 1), ("n", 1), (".", 4), ("▁", 6), ("th", 6), ("<de-DE>", 7), ("th", 11)])
    [row] = labels(op, block_of(waves([14_400]))).values()  # 0.9 s, 13 frames
    assert row["pred_text"] == "ann. thth"
    assert row["pred_score"] == pytest.approx(np.log(0.5))
    assert row["pred_language"] == {"language": "de-DE", "score": pytest.approx(0.5)}
    words = [(word["word"], word["start"], word["end"], word["score"]) for word in row["pred_words"]]
    assert [word for word, *_ in words] == ["ann.", "thth"]
    np.testing.assert_allclose([numbers for _, *numbers in words], [(0.08, 0.16, 0.5), (0.48, 0.9, 0.5)], atol=1e-6)
    put_path(op, [("▁an", 1)])
    [row] = labels(op, block_of(waves([14_400]))).values()
    assert (row["pred_text"], row["pred_language"]) == ("an", None)
