"""Binary files of KenLM: scores of all kinds, texts of a search, and files that are refused.

The files in `binaries` were built by build_binary from `words.arpa`.
"""

import random
import struct
import sys

import numpy as np
import pytest

from raysp import CheckpointError
from raysp.checkpoints import language_models
from raysp.text.beams import arpa, kenlm
from raysp.text.beams.language_model import scores_of
from tests.text.beams.kenlm_package import BINARIES, KINDS, kenlm_package  # noqa: F401 - a fixture

WORDS = ["ONE", "TWO", "NINE", "ÉTÉ", "A", "THREE", "UNHEARD"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    language_models._opened.cache_clear()
    language_models._opened_binary.cache_clear()


def log_probs(model, sentences: list[list[str]], *, boundaries: bool) -> np.ndarray:
    """Return the log-probability of each word, and of the ends, of sentences of one length at once."""
    scores = scores_of(model)
    context = np.array([scores.start() if boundaries else [-1] * scores.context_fields] * len(sentences))
    found = []
    for words in [*zip(*sentences, strict=True), ["</s>"] * len(sentences)]:
        log_prob, context = scores(context, model.ids(words))
        found.append(log_prob)
    return np.stack(found)


@pytest.mark.parametrize("boundaries", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_arpa_file(kenlm_package, kind, boundaries):  # noqa: F811
    draw = random.Random(1)
    sentences = [draw.choices(WORDS, k=9) for _ in range(200)]
    model, expected = kenlm.KenlmModel(BINARIES / f"{kind}.binary"), arpa.parse(BINARIES / "words.arpa")
    assert (model.order, model.num_ngrams) == (expected.order, expected.num_ngrams)
    assert sorted(model.vocabulary()) == sorted(expected.vocabulary())
    found = log_probs(model, sentences, boundaries=boundaries)
    tolerance = 1e-5 if kind in ("probing", "trie", "array") else 1e-3  # a quantised model has 256 values
    expected_log_probs = log_probs(expected, sentences, boundaries=boundaries)
    np.testing.assert_allclose(found, expected_log_probs, atol=tolerance, rtol=tolerance)


def test_without_the_package_the_message_names_the_extra(monkeypatch):
    kenlm._opened.cache_clear()
    monkeypatch.setitem(sys.modules, "kenlm", None)
    message = r"probing.binary': a binary file of KenLM \(probing\), which the package kenlm reads; pip install 'raysp"
    with pytest.raises(CheckpointError, match=message):
        language_models.open_model(BINARIES / "probing.binary")


GOOD = (BINARIES / "trie.binary").read_bytes()
KIND_AT, COUNTS_AT = kenlm.SANITY.size, kenlm.SANITY.size + kenlm.KIND.size


def changed(place: int, data: bytes) -> bytes:
    return GOOD[:place] + data + GOOD[place + len(data) :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            GOOD.replace(b"version 5", b"version 4"),
            "is 'format version 4'; expected 'format version 5'; build",
        ),
        (kenlm.MAGIC + b" incomplete\n" + bytes(200), "is 'incomplete'; expected 'format version 5'"),
        (GOOD[:40], "is 'format'; expected"),
        (GOOD[:60], "numbers otherwise, or is damaged"),
        (GOOD[:COUNTS_AT], "ends within its header"),
        (changed(56, struct.pack(">f", 1.0)), "numbers otherwise, or is damaged"),
        (changed(KIND_AT, b"\x00"), "order 0 and"),
        (changed(KIND_AT, b"\xff"), "order 255 and"),
        (changed(KIND_AT + 8, struct.pack("<i", 9)), "has kind 9"),
        (changed(KIND_AT + 8, struct.pack("<i", -1)), "has kind -1"),
        (changed(KIND_AT + 4, struct.pack("<f", float("nan"))), "multiplier nan"),
        (changed(KIND_AT + 12, b"\x00"), "has no words at its end"),
        (changed(COUNTS_AT, struct.pack("<Q", 2**63)), r"claims 9223372036854775808 44 113 n-grams in 1,366 bytes"),
        (changed(COUNTS_AT, struct.pack("<Q", 0)), "claims 0 44 113 n-grams"),
        (changed(COUNTS_AT, struct.pack("<Q", 20)), "does not end with its 20 words"),
        (GOOD[:-1], "does not end with its 9 words"),
        (GOOD[:-40], "does not end with its 9 words"),
        (GOOD.replace("ÉTÉ".encode(), b"\xff\xff\xff\xff\xff"), "words that are not UTF-8"),
        (GOOD.replace(b"\0</s>\0", b"\0</x>\0"), "has no </s> among its words"),
    ],
)
def test_damaged_and_foreign_files_are_refused_with_what_was_found(kenlm_package, tmp_path, data, message):  # noqa: F811
    path = tmp_path / "damaged.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        language_models.open_model(path)
    assert "damaged.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_body_ends_the_process_that_probes_a_file_and_no_other(kenlm_package, tmp_path, kind):  # noqa: F811
    draw, data = random.Random(0), bytearray((BINARIES / f"{kind}.binary").read_bytes())
    body = range(COUNTS_AT + 8 * 3, len(data) - 60)
    for place in body:
        data[place] ^= 1 << draw.randrange(8)
    path = tmp_path / "damaged.bin"
    path.write_bytes(data)
    found = kenlm.damage_of(path)
    assert found is None or found.startswith("is damaged: ")
    if found is not None:
        with pytest.raises(CheckpointError, match=r"damaged\.bin"):
            language_models.open_model(path)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "scoring its words ended a process with signal SIGSEGV",
        ),
        ("import time; time.sleep(600)", "scoring its words takes more than 2 s"),
        ("import sys; sys.exit(3)", "the scores of some of its words are not logarithms of probabilities"),
        ("import sys; sys.exit(1)", "scoring its words ended a process with exit code 1"),
    ],
)
def test_a_file_that_crashes_the_package_or_hangs_is_refused(kenlm_package, tmp_path, monkeypatch, program, message):  # noqa: F811
    (tmp_path / "misbehaving.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(kenlm, "PROGRAM", "misbehaving")
    monkeypatch.setattr(kenlm, "START_SECONDS", 2 if "sleep" in program else 60)
    with pytest.raises(CheckpointError, match=f"binary file of KenLM is damaged: .*{message}.*; build it again from"):
        language_models.open_model(BINARIES / "trie.binary")
