"""Recordings of a training that are replaced or missing: noticed by their versions, whatever names them."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import ChangedError, Shards
from tests.corpora import AUDIO, a_pipeline, wav, write_shard
from tests.recipes import a_recipe
from tests.training.trained import indexed, planned, record_of

ROWS = 6


def write_clips(folder: Path) -> None:
    folder.mkdir(parents=True)
    for row in range(ROWS):
        (folder / f"{row}.wav").write_bytes(wav(8000, seed=row))


def a_manifest(folder: Path) -> str:
    write_clips(folder / "clips")
    lines = [{"audio_filepath": f"clips/{row}.wav", "duration": 0.5, "text": "six"} for row in range(ROWS)]
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    return "m.jsonl"


def a_table(folder: Path) -> str:
    write_clips(folder / "clips")
    audio = pa.array([{"bytes": None, "path": f"clips/{row}.wav"} for row in range(ROWS)], AUDIO)
    table = pa.table({"id": [*map(str, range(ROWS))], "audio": audio, "text": ["six"] * ROWS})
    write_shard(folder / "t.parquet", table=table)
    return "*.parquet"


def a_folder(folder: Path) -> str:
    write_clips(folder / "clips")
    names = [f"{row}.wav" for row in range(ROWS)]
    (folder / "clips" / "metadata.csv").write_text("file_name,text\n" + "".join(f"{name},six\n" for name in names))
    return "clips"


NAMED = {"manifest": a_manifest, "table": a_table, "folder": a_folder}


@dataclass
class Corpus:
    """A corpus whose rows name files, on disk or on an object store, and a training over it."""

    source: Shards
    checkpoint: Path
    out: Path
    put: Callable[[str, bytes], object]
    """Replaces a file; the first content again has its first time."""
    labels: raysp.Parquet

    def recipe(self, **fields: object) -> raysp.Finetune:
        return a_recipe("", self.checkpoint, self.out, source=self.source, **fields)

    def begin(self, **fields: object) -> str:
        """Index the corpus, and record the training, or go on with it; return the digest of the recordings."""
        indexed(self.recipe(**fields))
        return record_of(self.out)["parts"]["recordings"]


def times_of(folder: Path) -> dict[bytes, int]:
    """Return the times of files by their content."""
    return {path.read_bytes(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def put_on_disk(folder: Path, times: dict[bytes, int], path: str, data: bytes) -> None:
    (folder / path).write_bytes(data)
    time_ns = times.get(data, 10**18)
    os.utime(folder / path, ns=(time_ns, time_ns))


@pytest.fixture
def corpus(request, tmp_path, tiny) -> Corpus:
    kind, place = request.param.split(" on ")
    folder, out, options = tmp_path / "in", tmp_path / "out", {}
    url, name = str(folder), NAMED[kind](folder)
    labels = str(tmp_path / "labels")
    put: Callable[[str, bytes], object] = partial(put_on_disk, folder, times_of(folder))
    if place == "s3":
        s3 = request.getfixturevalue("s3")
        bucket, other = s3.bucket(), s3.bucket()
        s3.upload(folder, bucket)
        url, labels, options = f"s3://{bucket}", f"s3://{other}/labels", s3.options
        put = lambda path, data: s3.client.put_object(Bucket=bucket, Key=path, Body=data)  # noqa: E731
    root = url if kind == "table" else None
    source = Shards(f"{url}/{name}", text="text", audio_root=root, storage_options=options)
    return Corpus(source, tiny, out, put, raysp.Parquet(labels, storage_options=options))


@pytest.mark.parametrize("corpus", ["manifest on disk", "folder on s3", "table on s3"], indirect=True)
def test_a_recording_that_is_replaced_is_named_and_the_same_one_again_is_accepted(corpus):
    before = corpus.begin()
    corpus.put("clips/3.wav", wav(8000, seed=3))
    assert corpus.begin() == before
    corpus.put("clips/4.wav", wav(8000, seed=104))
    for _ in range(2):  # a run that is refused leaves nothing behind
        with pytest.raises(
            ChangedError,
            match=r"out: 1 recording of source has another version than when this training began: "
            r"\S+\.parquet:4 \('(clips/)?4\.wav'\); put the earlier files back with their times, use another sink, or "
            "start over with --restart",
        ):
            corpus.begin()
    corpus.put("clips/4.wav", wav(8000, seed=4))
    assert corpus.begin() == before


@pytest.mark.parametrize("corpus", ["manifest on disk"], indirect=True)
def test_replaced_noise_is_named(corpus, words):
    source, corpus.source = corpus.source, Shards(words, text="text")
    noise = {"augment": [raysp.Gain(), raysp.Noise(source)]}
    corpus.begin(**noise)
    corpus.put("clips/3.wav", wav(8000, seed=103))
    with pytest.raises(ChangedError, match=r"1 recording of augment\.1\.source has another version .*3\.wav"):
        corpus.begin(**noise)
    corpus.put("clips/3.wav", wav(8000, seed=3))
    corpus.begin(**noise)


def test_a_missing_recording_is_not_compared_and_is_indexed_once_it_is_there(tmp_path, tiny):
    folder = tmp_path / "in"
    source = Shards(f"{folder}/{a_manifest(folder)}", text="text")
    manifest, clip = folder / "m.jsonl", folder / "clips" / "5.wav"
    manifest.write_text(manifest.read_text().replace('"duration": 0.5, ', ""))
    recipe = a_recipe("", tiny, tmp_path / "out", source=source)
    clip.rename(tmp_path / "5.wav")
    indexed(recipe)
    (tmp_path / "out" / ".raysp" / "recipe.json").unlink()  # as if it was killed before
    assert planned(recipe)["left_out"] == {"not_found": 1}
    (tmp_path / "5.wav").rename(clip)
    assert planned(recipe)["left_out"] == {}
    indexed(recipe)
    clip.unlink()
    indexed(recipe)
    assert planned(recipe)["rows_trained"] == ROWS


def relabelled(corpus: Corpus) -> Corpus:
    """Label a corpus again, and return it with its labels."""
    source = replace(corpus.source, text=None, labels=None)
    pipeline = a_pipeline(source, corpus.labels)
    if corpus.source.labels is None:
        raysp.run(pipeline, engine="here", progress=False)
    else:
        raysp.retry(corpus.labels.url, shards=["*"], pipeline=pipeline, engine="here", progress=False)
    return replace(corpus, source=replace(source, labels=corpus.labels.url, text="pred_text"))


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["folder on disk", "table on s3"], indirect=True)
def test_recordings_that_are_not_read_since_they_are_labelled_are_compared_too(corpus):
    corpus = relabelled(corpus)
    before = corpus.begin()
    is_folder = corpus.source.urls[0].endswith("clips")  # its labels are those of the files as they were
    corpus.put("clips/3.wav", wav(8000, seed=3))
    assert (relabelled(corpus) if is_folder else corpus).begin() == before
    corpus.put("clips/4.wav", wav(8000, seed=104))
    of_files = r"parquet:4 \('clips/4\.wav'\); put the earlier files back"
    with pytest.raises(ChangedError, match="`recordings` was" if is_folder else of_files):
        (relabelled(corpus) if is_folder else corpus).begin()
