"""Shards of lhotse Shar: the cuts and recordings that lhotse reads, and files that do not fit together."""

import gzip
import json
import re
import unicodedata
import zlib
from pathlib import Path

import pytest

import raysp
from tests import corpora
from tests.corpora import a_pipeline, digits_table, wav, write_tar

NUM_CUTS, NUM_PER_SHARD = 5, 3


def write_shar(folder: Path, form: str = "flac") -> Path:
    """Write real digits by lhotse, in two shards; the second word of a cut begins before the first one."""
    lhotse = pytest.importorskip("lhotse")
    cuts = []
    for number, row in enumerate(digits_table(NUM_CUTS).to_pylist()):
        recording = lhotse.Recording.from_bytes(row["audio"]["bytes"], recording_id=f"r{number}")
        cut = recording.to_cut().with_id(f"a/b.{number}")
        half = cut.duration / 2
        cut.supervisions = [
            lhotse.SupervisionSegment(f"s{number}b", recording.id, half, half / 2, text="AFTER", speaker="x"),
            lhotse.SupervisionSegment(
                f"s{number}a", recording.id, 0, half, text=row["text"], speaker=row["speaker_id"], language="en"
            ),
        ]
        cut.custom = {"score": number + 0.5, "tags": ["real"]}
        cuts.append(cut)
    folder.mkdir()
    lhotse.CutSet.from_cuts(cuts).to_shar(folder, fields={"recording": form}, shard_size=NUM_PER_SHARD)
    return folder


@pytest.mark.parametrize("form", ["flac", "wav"])
def test_rows_are_the_cuts_that_lhotse_reads(tmp_path, form):
    folder = write_shar(tmp_path / "in", form)
    import lhotse

    rows = corpora.read(folder, "text", "speaker", "language", "duration", "score", "tags")
    theirs = [*lhotse.CutSet.from_shar(in_dir=str(folder))]
    assert [row["id"] for row in rows] == [cut.id for cut in theirs]
    for row, cut in zip(rows, theirs, strict=True):
        assert (row["duration"], row["score"], row["tags"]) == (cut.duration, cut.score, '["real"]')
        spoken = sorted(cut.supervisions, key=lambda one: one.start)
        assert row["text"] == " ".join(one.text for one in spoken)
        assert (row["speaker"], row["language"]) == (spoken[0].speaker, "en")
        assert row["seconds"] == cut.load_audio().shape[1] / cut.sampling_rate


@pytest.mark.parametrize("changed", ["recordings", "cuts"])
def test_a_shard_that_changed_since_it_was_planned_is_refused(tmp_path, changed):
    path = write_files(tmp_path / "in", [ONE, TWO], FILES)

    def change() -> None:
        if changed == "cuts":
            path.write_bytes(zipped([{**ONE, "x": 1}, TWO]))
        else:
            write_tar(path.parent / "recording.000000.tar", OTHER_FILES)

    assert "changed since it was planned" in corpora.failures(path.parent, change)[""]


def test_the_plan_knows_the_hours_and_passes_over_no_file_of_a_shard(tmp_path):
    folder = write_shar(tmp_path / "in")
    write_tar(folder / "features.000000.tar", [("a/b.0.nodata", b""), ("a/b.0.nometa", b"")])
    plan = raysp.plan(a_pipeline(str(folder), tmp_path / "out"))
    assert (plan.rows_todo, dict(plan.corpus.listed.passed_over)) == (NUM_CUTS, {})
    assert plan.corpus.shards[0].seconds > 0.5


@pytest.mark.parametrize("name", ["recording.000000.tar", "recording.tar"])
def test_recordings_named_without_their_cuts_are_refused(tmp_path, name):
    write_tar(tmp_path / name, FILES)
    assert "has the name of recordings of lhotse Shar" in corpora.refusal(tmp_path / name)


def zipped(cuts: "list[object]") -> bytes:
    return gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in cuts))


def write_files(folder: Path, cuts: "list[object] | bytes", files: "list[tuple[str, bytes]] | None") -> Path:
    folder.mkdir()
    lines = cuts if isinstance(cuts, bytes) else zipped(cuts)
    (folder / "cuts.000000.jsonl.gz").write_bytes(lines)
    if files is not None:
        write_tar(folder / "recording.000000.tar", files)
    return folder / "cuts.000000.jsonl.gz"


ONE, TWO = {"id": "1", "supervisions": []}, {"id": "2.x"}
FILES = [("1.wav", wav(900)), ("1.json", b"{}"), ("2.x.nodata", b""), ("2.x.nometa", b"")]
OTHER_FILES = [("1.wav", wav(950)), *FILES[1:]]


def test_a_cut_without_a_recording_is_a_row_without_audio(tmp_path):
    rows = corpora.read(write_files(tmp_path / "in", [ONE, TWO], FILES).parent)
    assert [(row["id"], row["error_type"]) for row in rows] == [("1", "filtered"), ("2.x", "no_audio")]


def test_values_that_have_a_name_of_ours_are_kept_under_another(tmp_path):
    supervisions = [{"id": "s", "start": 0, "text": "one", "custom": {"speaker": "x", "mood": "good"}}]
    cut = {"id": "1", "supervisions": supervisions, "custom": {"audio": "y"}}
    folder = write_files(tmp_path / "in", [cut], FILES[:2]).parent
    [row] = corpora.read(folder, "custom_audio", "custom_speaker", "mood", "supervisions")
    assert (row["custom_audio"], row["custom_speaker"], row["mood"]) == ("y", "x", "good")
    assert json.loads(row["supervisions"]) == supervisions


BAD = {
    "no recordings": ([ONE], None, "recording.000000.tar is missing beside it"),
    "fewer recordings": ([ONE, TWO], FILES[:2], "cut 2: the tar file beside it has its end, expected '2.x'"),
    "more recordings": ([ONE], FILES, "cut 2: the tar file beside it has '2.x', expected its end"),
    "another order": ([TWO, ONE], FILES, "cut 1: the tar file beside it has '1', expected '2.x'"),
    "twice": ([ONE, ONE], FILES, "line 2: cut '1' occurs again"),
    "no id": ([{"start": 0}], FILES, "line 1: is .* expected a cut with an id"),
    "no JSON": (gzip.compress(b"{"), FILES, "line 1: is not JSON"),
    "not cuts": ([{"id": "1", "supervisions": [3]}], FILES, "cut '1' is not a cut of a recording"),
    "of several": ([{"id": "1", "type": "MixedCut", "tracks": [{}]}], FILES, "its type is 'MixedCut'; expected"),
    "a part": ([{"id": "1", "start": 0.1}], FILES, "it starts at 0.1; expected 0"),
    "shorter": ([{"id": "1", "duration": 0.2, "recording": {"duration": 1}}], FILES, "is 0.2, its recording has 1"),
    "without end": ([{"id": "1", "duration": -1.0}], FILES, "its duration is -1.0; expected seconds"),
    "huge": ([{"id": "1", "supervisions": [{"start": 10**400}]}], FILES, "is not a cut of a recording"),
    "no gzip": (b"\x1f\x8b\x08rest", FILES, "expected a gzip file"),
    "half a gzip": (gzip.compress(json.dumps(ONE).encode())[:-9], FILES, "the gzip file ends early"),
    "two recordings": ([ONE], [*FILES[:1], ("1.flac", b"")], "cut '1' has several recordings"),
    "one twice": ([ONE], [FILES[0], FILES[0]], "cut '1' has two files 'wav'"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_damaged_or_do_not_fit_together_are_one_line(tmp_path, case):
    cuts, files, message = BAD[case]
    path = write_files(tmp_path / "in", cuts, files)
    found = corpora.refusal(path.parent)
    assert re.search(message, found)
    assert "\n" not in found


def test_a_manifest_that_grows_without_end_is_refused(tmp_path):
    path = write_files(tmp_path / "in", zlib.compress(bytes(300 * 2**20), level=1, wbits=31), FILES)
    assert "has more than 268,435,456 bytes uncompressed" in corpora.refusal(path.parent)


@pytest.mark.parametrize(("in_cuts", "in_tar"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_cuts_in_another_unicode_form_than_their_recordings_are_matched(tmp_path, in_cuts, in_tar):
    names = ["\u00e9t\u00e9", "na\u00efve"]
    in_tar, in_cuts = ([unicodedata.normalize(form, name) for name in names] for form in (in_tar, in_cuts))
    tmp_path.joinpath("cuts.000000.jsonl").write_text("".join(f"{json.dumps({'id': one})}\n" for one in in_cuts))
    recordings = [(f"{name}.wav", wav(1600 + 160 * n)) for n, name in enumerate(in_tar)]
    write_tar(tmp_path / "recording.000000.tar", recordings)
    rows = corpora.read(tmp_path / "cuts.000000.jsonl")
    assert [(row["id"], row["seconds"]) for row in rows] == [*zip(in_cuts, [0.1, 0.11], strict=True)]
