"""Records of sinks, tokenizers, language models and cards from strangers: bombs cost little, and messages are short."""

import resource
import subprocess
import sys

import pytest

from raysp import CheckpointError, RayspError, StoreError, bounds
from raysp.checkpoints.hub_api import licence_of
from raysp.models.tokenizers import sentencepiece, text
from raysp.sink import absent, run_record
from raysp.sink.layout import ABSENT, RUN
from raysp.storage.store import LocalStore
from raysp.text.beams import arpa
from raysp.training.sink import training_record

DEEP = b"[" * 100_000
NAMED = b'{"' + b"x" * 5_000_000 + b'": 1}'
LOADS = {
    RUN: run_record.load,
    ABSENT: absent.load,
    training_record.RECIPE: training_record.TrainingRecord.existing,
}
LIMIT_BYTES = 3 * 1024**3
"""Address space of a process that reads a file of 20 GB, of which most is imports."""


@pytest.mark.parametrize("path", LOADS)
def test_a_record_that_is_none_is_an_error_with_a_short_message(tmp_path, path):
    place = tmp_path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    for content in (DEEP, NAMED, b"{", b"[]", b'"text"', b"7" * 10_000, b"\xff"):
        place.write_bytes(content)
        with pytest.raises(RayspError) as error:
            LOADS[path](LocalStore(tmp_path))
        assert len(str(error.value)) < 600


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "model"])
def test_a_record_of_gigabytes_is_not_read(tmp_path, name):
    store = LocalStore(tmp_path / name)
    place = tmp_path / name / (RUN if name == "out" else training_record.RECIPE)
    place.parent.mkdir(parents=True)
    with place.open("wb") as file:
        file.truncate(20 * 1024**3)  # a file with a hole takes no space
    program = f"import raysp\nraysp.status({str(tmp_path / name)!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES)),
    )
    assert "has 21,474,836,480 bytes; expected at most 1,073,741,824 in a file that is read whole" in done.stderr
    with pytest.raises(StoreError):
        store.read(place.relative_to(tmp_path / name).as_posix())


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_a_file_of_a_tokenizer_has_a_bound(tmp_path, file):
    with (tmp_path / file).open("wb") as made:
        made.truncate(bounds.MOST_TOKENIZER_BYTES + 1)
    read = text._read_backend if file == "tokenizer.json" else text._lines
    with pytest.raises(CheckpointError, match="has 67,108,865 bytes; expected at most 67,108,864"):
        read(tmp_path / file)


def test_pieces_of_a_sentencepiece_model_are_bounded(tmp_path):
    def field(number, data):
        size, length = len(data), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2]) + bytes([*length, size]) + data

    path = tmp_path / "sentencepiece.bpe.model"
    path.write_bytes(field(1, field(1, b"a" * 1_000_000)))
    with pytest.raises(CheckpointError, match="has 1,000,000 bytes in a piece; expected at most 1,000"):
        sentencepiece.read_pieces(path)
    with path.open("wb") as file:
        file.truncate(bounds.MOST_TOKENIZER_BYTES + 1)
    with pytest.raises(CheckpointError, match="expected at most 67,108,864"):
        sentencepiece.read_pieces(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("\\data\\\nngram 1=" + "9" * 5000, "expected 'ngram 1=' and a number"),
        ("\\data\\\nngram 1=\u00b2\n", "expected 'ngram 1=' and a number"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1 " + "a" * 500_000, "expected words of at most 1,000 characters"),
        ("\\data\\\nngram 1=999999999999\n\n\\1-grams:\n-1 a\n", "expected one of 999,999,999,999 1-grams"),
        ("a" * 5_000_000, "expected lines of less than"),
    ],
)
def test_a_language_model_that_claims_too_much_is_refused_with_its_line(tmp_path, lines, message):
    (tmp_path / "model.arpa").write_text(lines)
    with pytest.raises(CheckpointError) as error:
        arpa.parse(tmp_path / "model.arpa")
    assert message in str(error.value)
    assert len(str(error.value)) < 600


def test_a_model_card_has_a_bound_and_its_aliases_are_not_written_in_full(tmp_path):
    card = tmp_path / "README.md"
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    card.write_text(f"---\na0: &a0 [x]\n{levels}license: *a11\n---\n")
    assert licence_of(tmp_path) is None
    card.write_text("---\nlicense: mit\n---\n" + "x" * 5 * bounds.MIB)
    assert licence_of(tmp_path) is None
    card.write_text("---\nlicense: [mit, apache-2.0]\n---\n")
    assert licence_of(tmp_path) == "['mit', 'apache-2.0']"
