"""Texts beside recordings of a folder."""

import pyarrow.parquet as pq
import pytest
from praatio import textgrid
from praatio.utilities.constants import Interval, Point

import raysp
from raysp.corpus import sidecars
from raysp.errors import PlanError, ShardError
from raysp.storage.stores import open_store
from tests.corpora import a_pipeline, label_here, wav


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "recordings"
    place.mkdir()

    def add(name, data=b""):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
        return place

    for name in ("a.wav", "b/c.wav"):
        add(name, wav(8000))
    return add


def pipeline(place, text="text"):
    return a_pipeline(raysp.Shards(str(place), text=text), raysp.Parquet(f"{place.parent}/labels"))


def texts(place):
    """Label a folder, and return the texts by id."""
    label_here(pipeline(place))
    table = pq.read_table(f"{place.parent}/labels", columns=["id", "text"])
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


@pytest.mark.slow
def test_a_text_is_read_from_a_file_of_the_same_name(folder):
    folder("a.txt", b"\xef\xbb\xbfONE  two\r\n")
    folder("b/c.TXT", "größe\n".encode())
    place = folder("b/notes.txt", b"of no recording")
    plan = raysp.plan(pipeline(place))
    assert plan.corpus.passed_over == {".txt": 1}
    assert not plan.notes[1:]
    assert texts(place) == {"a.wav": "ONE  two", "b/c.wav": "größe"}


@pytest.mark.slow
def test_a_text_in_utf_16_is_read_and_neither_a_null_nor_a_link_that_leads_nowhere_is_one(folder):
    folder("a.txt", "größe\r\n".encode("utf-16"))
    folder("d.wav", wav(8000))
    folder("d.json", b'{"text": null}')
    place = folder("e.wav", wav(8000))
    (place / "e.txt").symlink_to("/nowhere.txt")
    assert texts(place) == {"a.wav": "größe", "b/c.wav": None, "d.wav": None, "e.wav": None}


@pytest.mark.slow
def test_a_recording_without_one_has_no_text_and_the_plan_says_so(folder):
    place = folder("b/c.lab", b"ONE")
    assert (
        "1 recording without metadata or a text beside it: other columns are null" in raysp.plan(pipeline(place)).notes
    )
    assert texts(place) == {"a.wav": None, "b/c.wav": "ONE"}


@pytest.mark.parametrize("suffix", ["txt", "lab", "json", "TextGrid"])
def test_of_several_files_the_first_kind_is_read(suffix, folder):
    for other in {"json", "TextGrid", suffix}:
        place = folder(f"a.{other}")
    entries = sorted(open_store(str(place)).list(), key=lambda one: one.path)
    found, files = sidecars.find([one for one in entries if one.path == "a.wav"], entries)
    assert files == [f"a.{'json' if suffix == 'TextGrid' else suffix}"]
    assert found.files == (f"*.{'json' if suffix == 'TextGrid' else suffix}",)


@pytest.mark.slow
def test_metadata_files_are_read_in_their_place(folder):
    folder("a.txt", b"beside")
    place = folder("metadata.csv", b"file_name,text\na.wav,listed\n")
    assert texts(place) == {"a.wav": "listed", "b/c.wav": None}


@pytest.mark.slow
def test_without_a_column_of_texts_nothing_beside_recordings_is_read(folder):
    place = folder("a.txt", b"ONE")
    plan = raysp.plan(pipeline(place, text=None))
    assert plan.corpus.passed_over == {".txt": 1}
    without = plan.fingerprint, [shard.version for shard in plan.corpus.shards]
    (place / "a.txt").unlink()
    plan = raysp.plan(pipeline(place, text=None))
    assert (plan.fingerprint, [shard.version for shard in plan.corpus.shards]) == without


def test_a_folder_without_texts_says_what_makes_them(folder):
    with pytest.raises(PlanError, match=r"no column 'text'.* metadata\.csv .*put a\.txt, .* beside a\.wav"):
        raysp.plan(pipeline(folder("notes.md")))


def read(place, name, planned=None):
    """Read the text beside a recording, as planned now or before."""
    store = open_store(str(place))
    entries = sorted(store.list(), key=lambda one: one.path)
    found, _ = sidecars.find([one for one in entries if one.path == name], entries)
    planned = planned or found
    (text,) = sidecars.read_columns(str(place), planned.files, [(name, planned.checks[name])], None)["text"].to_pylist()
    return text, planned


def test_a_text_that_changed_since_the_plan_is_noticed(folder):
    place = folder("a.txt", b"ONE")
    _, planned = read(place, "a.wav")
    folder("a.txt", b"TWO and more")
    with pytest.raises(ShardError, match=r"a\.wav: the text beside it changed since it was planned"):
        read(place, "a.wav", planned)
    (place / "a.txt").unlink()
    with pytest.raises(ShardError, match="changed since"):
        sidecars.read_columns(str(place), planned.files, [("a.wav", planned.checks["a.wav"])], None)


@pytest.mark.parametrize("form", ["short_textgrid", "long_textgrid"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_textgrid_is_read_in_both_forms_and_encodings(folder, tmp_path, form, encoding):
    grid = textgrid.Textgrid()
    phones = [Interval(0, 0.5, "W"), Interval(0.5, 1, 'AH1 "2"')]
    grid.addTier(textgrid.IntervalTier("phones", phones, 0, 1))
    grid.addTier(textgrid.PointTier("events", [Point(0.25, "3 clicks")], 0, 1))
    grid.addTier(textgrid.IntervalTier("Words", [Interval(0, 0.5, 'größe "1"'), Interval(0.5, 0.75, "! 7")], 0, 1))
    grid.save(str(tmp_path / "one.TextGrid"), form, includeBlankSpaces=True)
    raw = (tmp_path / "one.TextGrid").read_text(encoding="utf-8")
    place = folder("a.TextGrid", raw.encode(encoding))
    assert read(place, "a.wav")[0] == 'größe "1" ! 7'


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"[1]", r"a\.json: found \[1\], expected a JSON object with a text under 'text'"),
        ("a.json", b'{"text": 7}', "expected a JSON object with a text"),
        ("a.json", b"{", "Correct it, or rename it"),
        ("a.TextGrid", b"ooBinaryFile\x08TextGrid", "it ends early, or is no TextGrid"),
        ("a.TextGrid", b'"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "x" 0 1 9 0 1 "a"', "it ends early"),
        ("a.TextGrid", b'"ooTextFile" "TextGrid" 0 1 <exists> 0', "its tiers of intervals are none, expected one"),
        (
            "a.TextGrid",
            b'"ooTextFile" "TextGrid" 0 1 <exists> 2 "IntervalTier" "x" 0 1 0 "IntervalTier" "y" 0 1 0',
            "its tiers of intervals are 'x', 'y', expected one",
        ),
    ],
)
def test_what_holds_no_text_is_refused_with_its_name(folder, name, data, message):
    place = folder(name, data)
    with pytest.raises(ShardError, match=message):
        read(place, "a.wav")
