"""Damage to any file of a training, and any value in its JSON files: a verb names the file, or shows the training."""

import json
import random
import shutil
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests import kit
from tests.soaked import soaked
from tests.trainings import Sink

VERBS = ("status OUT", "status OUT --json", "report OUT --out PAGE", "gc OUT")
ODD = (None, "x", -1, 10**400, float("nan"), [], {"a": 1}, True, 2**63, "\ud800", [[1]])
"""Values of which most are no values of any field."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    sink = Sink(folder / "model")
    sink.train(range(1, 4))
    sink.train(range(4, 7))
    sink.evaluate(6)
    sink.export(6)
    sink.hold(pid=1)
    return folder / "model"


def damages(data: bytes, chance: random.Random, every: int) -> Iterator[bytes]:
    """Yield damaged files: bytes that are wrong, and another value at each, or every n-th, place of its JSON."""
    place = chance.randrange(max(1, len(data)))
    yield data[:place] + bytes(0xFF ^ one for one in data[place : place + 1]) + data[place + 1 :]
    yield from (data[:place], b"", bytes(len(data)), b"[" * 100_000, b"[]", b"\xff\xfe\xfa")
    first, end, rest = data.partition(b"\n")
    try:
        value = json.loads(first)
    except ValueError:
        return
    for path in [*paths(value)][::every]:
        yield json.dumps(changed(value, path, chance.choice(ODD))).encode() + end + rest


def paths(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the places of all values in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


def changed(value: object, path: tuple[object, ...], new: object) -> object:
    if not path:
        return new
    copied = json.loads(json.dumps(value))
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copied


@pytest.mark.parametrize("every", [3, *soaked([1])])
def test_a_verb_over_a_damaged_training_names_the_file_or_shows_the_training(whole, tmp_path, every):
    verbs, sink = cycle(VERBS), tmp_path / "model"
    files = sorted(str(one.relative_to(whole)) for one in whole.rglob("*") if one.is_file())
    assert len(files) >= 10
    for file in files:
        for data in damages((whole / file).read_bytes(), random.Random(file), every):
            shutil.rmtree(sink, ignore_errors=True)
            shutil.copytree(whole, sink)
            (sink / file).write_bytes(data)
            verb = next(verbs)
            words = {"OUT": sink, "PAGE": tmp_path / "page.html"}
            ran = kit.run([words.get(word, word) for word in verb.split()], RAYSP_BEAT_SECONDS="0.01")
            about = ascii((file, data[:1000], verb, ran))
            assert "bug in raysp" not in ran.err, about
            assert ran.code == 0 or file in "".join(ran.err.split()), about
