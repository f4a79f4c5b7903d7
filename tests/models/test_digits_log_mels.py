"""The shared Wav2Vec2-BERT checkpoint writes, in padded batches, the texts that transformers wrote for clips alone."""

import json

import pytest
import torch

from raysp.models import check_checkpoint, load_checkpoint
from tests.models.test_digits import batches, decode, digits, texts_in_batches, transcribe  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "checkpoints" / "w2vbert-digits-ctc"


@pytest.fixture(scope="module")
def loaded(folder):
    torch.set_num_threads(1)
    return load_checkpoint(folder)


@pytest.fixture(scope="module")
def expected(folder):
    return json.loads((folder / "texts.json").read_text())


def test_the_checkpoint_is_complete(folder):
    summary = check_checkpoint(folder)
    assert (summary.vocab_size, summary.min_samples, summary.frame_stride) == (20, 560, 320)


@pytest.mark.slow
def test_digits_in_mixed_batches_have_their_texts(digits, loaded, expected):  # noqa: F811
    clips = digits[:300]
    assert texts_in_batches(loaded, clips, 16000 * 30) == {name: expected[name] for name, _ in clips}


@pytest.mark.slow
def test_digits_alone_have_their_texts(digits, loaded, expected):  # noqa: F811
    clips = digits[::50]
    assert {name: transcribe(loaded, [wave])[0] for name, wave in clips} == {name: expected[name] for name, _ in clips}


@pytest.mark.slow
def test_sentences_of_very_different_lengths_have_their_texts_in_one_batch(shared, digits, loaded, expected):  # noqa: F811
    paths = sorted(path for path in (shared / "data" / "sentences").iterdir() if path.name in expected)[::8]
    clips = [(path.name, decode(path.read_bytes(), 16000)) for path in paths] + digits[:5]
    texts = dict(zip([name for name, _ in clips], transcribe(loaded, [wave for _, wave in clips]), strict=True))
    assert texts == {name: expected[name] for name, _ in clips}


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [5, 30, 240])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_everything_in_batches_of_any_size_has_its_text(shared, digits, loaded, expected, seconds, is_sorted):  # noqa: F811
    paths = [path for path in (shared / "data" / "sentences").iterdir() if path.name in expected]
    clips = digits + [(path.name, decode(path.read_bytes(), 16000)) for path in paths]
    if is_sorted:
        clips = sorted(clips, key=lambda clip: -len(clip[1]))
    assert len(clips) == len(expected)
    texts = texts_in_batches(loaded, clips, 16000 * seconds)
    assert texts == {name: expected[name] for name, _ in clips}
