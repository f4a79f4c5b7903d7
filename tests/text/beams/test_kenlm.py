"""Binary files of KenLM: scores of all kinds, and files that are refused.

The files in `binaries` were built by build_binary from `words.arpa`.
"""

import random
import shutil
import struct
from importlib.util import find_spec

import numpy as np
import pytest

from raysp import CheckpointError
from raysp.checkpoints import language_models
from raysp.text.beams import arpa, kenlm
from raysp.text.beams.language_model import scores_of
from tests.text.beams.kenlm_package import BINARIES, KINDS, import_from, kenlm_package  # noqa: F401 - a fixture

WORDS = ["ONE", "TWO", "NINE", "ÉTÉ", "A", "THREE", "UNHEARD"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def log_probs(model, sentences: list[list[str]], *, boundaries: bool) -> np.ndarray:
    """Return the log-probability of each word, and of the ends, of sentences of one length at once."""
    scores = scores_of(model)
    context = np.array([scores.start() if boundaries else [-1] * scores.context_fields] * len(sentences))
    found = []
    for words in [*zip(*sentences, strict=True), ["</s>"] * len(sentences)]:
        log_prob, context = scores(context, model.ids(words))
        found.append(log_prob)
    return np.stack(found)


@pytest.mark.usefixtures("kenlm_package")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_arpa_file(kind):
    draw = random.Random(1)
    sentences = [draw.choices(WORDS, k=9) for _ in range(100)]
    model, expected = kenlm.KenlmModel(BINARIES / f"{kind}.binary"), arpa.parse(BINARIES / "words.arpa")
    assert model.order == expected.order
    assert sorted(model.vocabulary()) == sorted(expected.vocabulary())
    tolerance = 1e-5 if kind in ("probing", "trie", "array") else 1e-3  # a quantised model has 256 values
    for boundaries in (True, False):
        found, of_text = (log_probs(one, sentences, boundaries=boundaries) for one in (model, expected))
        np.testing.assert_allclose(found, of_text, atol=tolerance, rtol=tolerance)


@pytest.mark.skipif(find_spec("kenlm") is not None, reason="kenlm is installed")
def test_without_the_package_the_message_names_the_extra(tmp_path):
    path = shutil.copy(BINARIES / "probing.binary", tmp_path)
    message = r"probing.binary': a binary file of KenLM \(probing\), which the package kenlm reads; pip install 'raysp"
    with pytest.raises(CheckpointError, match=message):
        language_models.open_model(tmp_path / path)


GOOD = (BINARIES / "trie.binary").read_bytes()
KIND_AT, COUNTS_AT = kenlm.SANITY.size, kenlm.SANITY.size + kenlm.KIND.size


def changed(place: int, data: bytes) -> bytes:
    return GOOD[:place] + data + GOOD[place + len(data) :]


@pytest.mark.usefixtures("kenlm_package")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD.replace(b"version 5", b"version 4"), "is 'format version 4'; expected 'format version 5'; build"),
        (kenlm.MAGIC + b" incomplete\n" + bytes(200), "is 'incomplete'; expected 'format version 5'"),
        (GOOD[:60], "numbers otherwise, or is damaged"),
        (GOOD[:COUNTS_AT], "ends within its header"),
        (changed(56, struct.pack(">f", 1.0)), "numbers otherwise, or is damaged"),
        (changed(KIND_AT, b"\xff"), "order 255 and"),
        (changed(KIND_AT + 8, struct.pack("<i", 9)), "has kind 9"),
        (changed(KIND_AT + 4, struct.pack("<f", float("nan"))), "multiplier nan"),
        (changed(KIND_AT + 12, b"\x00"), "has no words at its end"),
        (changed(COUNTS_AT, struct.pack("<Q", 2**63)), r"claims 9223372036854775808 44 113 n-grams in 1,366 bytes"),
        (changed(COUNTS_AT, struct.pack("<Q", 20)), "does not end with its 20 words"),
        (GOOD[:-1], "does not end with its 9 words"),
        (GOOD.replace("ÉTÉ".encode(), b"\xff\xff\xff\xff\xff"), "words that are not UTF-8"),
        (GOOD.replace(b"\0</s>\0", b"\0</x>\0"), "has no </s> among its words"),
    ],
)
def test_damaged_and_foreign_files_are_refused_with_what_was_found(tmp_path, data, message):
    path = tmp_path / "damaged.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        language_models.open_model(path)
    assert "damaged.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANG = "import time; time.sleep(600)"
FAIL = "raise TypeError"
OTHER_SCORES = """
class State: pass
class Config: pass
class Model:
    def __init__(self, *given): pass
    def __getattr__(self, name): return lambda *given: 0.5
"""


@pytest.mark.skipif(find_spec("kenlm") is not None, reason="kenlm is installed")
@pytest.mark.parametrize(
    ("package", "message"),
    [
        (CRASH, "scoring its words ended a process with signal SIGSEGV"),
        (HANG, "scoring its words takes more than 2 s"),
        (FAIL, "scoring its words ended a process with exit code 1"),
        (OTHER_SCORES, "the scores of some of its words are not logarithms of probabilities"),
    ],
    ids=["crash", "hang", "failure", "scores"],
)
def test_a_file_that_crashes_the_package_or_hangs_is_refused_by_a_process_of_its_own(
    tmp_path, monkeypatch, package, message
):
    (tmp_path / "kenlm.py").write_text(package)
    import_from(monkeypatch, tmp_path)
    if package == HANG:
        monkeypatch.setattr(kenlm, "START_SECONDS", 2)  # of 60
    path = shutil.copy(BINARIES / "trie.binary", tmp_path)
    with pytest.raises(CheckpointError, match=f"binary file of KenLM is damaged: .*{message}.*; build it again from"):
        language_models.open_model(tmp_path / path)
