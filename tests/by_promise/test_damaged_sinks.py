"""Damage to any file of a sink: a verb names the file, or its result is that over the whole sink."""

import io
import json
import random
import re
import shutil
from itertools import cycle, islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit
from tests.soaked import soaked

VERBS = {
    "status": "status OUT --json",
    "report": "report OUT --out DEST/report.html",
    "verify": "verify OUT --trust",
    "export": "export OUT DEST --to jsonl",
    "diff": "diff OUT OTHER",
    "merge": "merge OUT OTHER --by pred_score --to DEST",
    "gc": "gc OUT",
    "run": "run LABEL",
    "plan": "plan LABEL --sample 0",
    "retry": "retry OUT --trust",
    "forget": "forget OUT ID --trust",
}
READERS = ("verify", "export", "diff", "merge", "forget")
"""Verbs that read all rows of label shards."""
STATES = ("finished", "stopped")
DAMAGES = ("flipped", "cut", "empty", "zeros", "of another file", "nested")
AT_ONCE = 1
"""Verbs for each damage to a file; the next ones for the next damage. In `make soak` all of them."""


@pytest.fixture(scope="module")
def sinks(tmp_path_factory) -> Path:
    """A folder with the sinks `finished` and `stopped` of one pipeline, and an equal one to compare with."""
    folder = tmp_path_factory.mktemp("sinks")
    corpus = kit.corpus(folder / "in", rows=5, faults=["not_audio"], shards=2)

    def pipeline(name: str) -> raysp.Pipeline:
        return corpus.pipeline(raysp.Parquet(f"{folder}/{name}", rows="ok", keep=["speaker_id"]))

    for name in ("other", "out"):
        raysp.run(pipeline(name), engine="here", progress=False)
    (folder / "out").rename(folder / "finished")
    kit.interrupted(pipeline("out"))
    (folder / "out").rename(folder / "stopped")
    kit.pipeline_file(folder / "label.py", pipeline("out"))
    (folder / "id").write_text(str(corpus.expected[0].id))
    return folder


def damaged(data: bytes, how: str, other: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(min(4, len(data)), max(1, len(data)))  # no reader looks at the first bytes of Parquet
    changed = {
        "flipped": data[:place] + bytes(0xFF ^ one for one in data[place : place + 1]) + data[place + 1 :],
        "cut": data[:place],
        "empty": b"",
        "zeros": bytes(len(data)),
        "of another file": other,
        "nested": b"[" * 100_000,
    }
    return changed[how]


def files(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def fresh(folder: Path, state: str) -> None:
    """Make the folder `out` a copy of a sink, and remove what verbs have written."""
    for place in (folder / "out", folder / "dest"):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / state, folder / "out")


def command(folder: Path, verb: str) -> list[object]:
    """Return the command line of a verb over the folder `out`."""
    places = {"OUT": folder / "out", "DEST": folder / "dest", "OTHER": folder / "other", "LABEL": folder / "label.py"}
    words = {**places, "ID": (folder / "id").read_text(), "DEST/report.html": folder / "report.html"}
    return [words.get(word, word) for word in VERBS[verb].split()]


class Over:
    """A verb over a copy of a sink, of which a file may be another one."""

    def __init__(self, folder: Path, state: str, verb: str, file: str = "", data: bytes = b"") -> None:
        self.out, self.dest = folder / "out", folder / "dest"
        fresh(folder, state)
        if file:
            (self.out / file).write_bytes(data)
        self.ran = kit.run(command(folder, verb), RAYSP_BEAT_SECONDS="0.01")
        self.result = self._result(verb) if self.ran.code in (0, 3) else None
        self.labels = self._labels(file, data)

    def _result(self, verb: str) -> object:
        """Return the result as far as it does not depend on time."""
        if verb == "status":
            found = json.loads(self.ran.out)
            return [found[name] for name in ("rows", "shards", "ok", "error")]
        if verb == "export":
            return {one.name: one.read_bytes() for one in self.dest.glob("*.jsonl")}
        if verb == "merge":
            return [{**row, "labelling": None} for row in kit.rows(self.dest)]
        return self.ran.out if verb == "diff" else self.ran.code

    def _labels(self, file: str, data: bytes) -> dict[str, object]:
        """Return the rows of the label shards, without the one that was damaged, unless it was written again."""
        found = {name: one for name, one in kit.label_shards(self.out).items() if (name, one) != (file, data)}
        return {name: pq.read_table(io.BytesIO(one)).to_pylist() for name, one in found.items()}

    def names(self, file: str) -> bool:
        """Return whether the output has the name of a file, lines of a table notwithstanding."""
        return "".join(file.split()) in "".join((self.ran.out + self.ran.err).split())


@pytest.mark.parametrize(
    ("state", "at_once"),
    [*((state, AT_ONCE) for state in STATES), *soaked([(state, len(VERBS)) for state in STATES])],
)
def test_a_verb_over_a_damaged_sink_names_the_file_or_has_the_result_of_the_whole_one(sinks, state, at_once):
    whole = {verb: Over(sinks, state, verb) for verb in VERBS}
    possible = [verb for verb in VERBS if whole[verb].ran.code in (0, 3)]
    assert {*VERBS} - {*possible} <= ({*READERS} if state == "stopped" else set())
    verbs, readers = cycle(possible), cycle(READERS)
    for file in files(sinks / state):
        other = (sinks / "other" / f"part-{1 - ('part-1' in file)}.parquet").read_bytes()
        content = (sinks / state / file).read_bytes()
        chance = random.Random(re.sub(r"\d{8}T\w+-\w+|[0-9a-f]{8,}", "", file))  # without ids
        for how in DAMAGES:
            data = damaged(content, how, other, chance)
            turn = islice(readers, min(at_once, len(READERS))) if file.endswith(".parquet") else islice(verbs, at_once)
            for verb in turn:
                one = Over(sinks, state, verb, file, data)
                about = (state, file, how, verb, one.ran)
                assert "bug in raysp" not in one.ran.err, about
                if one.names(file):
                    continue
                assert not file.endswith(".parquet"), about
                assert (one.ran.code, one.result) == (whole[verb].ran.code, whole[verb].result), about
                assert one.labels.items() <= whole[verb].labels.items(), about


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "gc"])
@pytest.mark.parametrize("number", [1, 2], ids=["one of them", "all"])
def test_every_verb_names_a_damaged_label_shard_with_the_reason(sinks, verb, number):
    fresh(sinks, "finished")
    for name in ("part-0.parquet", "part-1.parquet")[:number]:
        path = sinks / "out" / name
        path.write_bytes(path.read_bytes()[:-1])
    ran = kit.run(command(sinks, verb), RAYSP_BEAT_SECONDS="0.01")
    page = sinks / "report.html"
    text = ran.out + ran.err + (page.read_text() if verb == "report" else "")
    assert "damaged,ornotalabelshardofraysp(" in "".join(text.split()), (ran.code, ran.out, ran.err)
