"""Recordings whose names are in one Unicode normal form, and lines that name them in another: one row for each."""

import dataclasses
import unicodedata
from pathlib import Path

import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, wav

NAMES = ["\u00e9t\u00e9.wav", "na\u00efve.wav"]
FORMS = [("NFD", "NFC"), ("NFC", "NFD")]


def normal(form: str, name: str) -> str:
    return unicodedata.normalize(form, name)


def write_metadata(folder: Path, names: list[str]) -> None:
    rows = "".join(f"{name},text of {place}\n" for place, name in enumerate(names))
    (folder / "metadata.csv").write_text(f"file_name,text\n{rows}")


@pytest.fixture(params=["disk", "s3"])
def source(request, tmp_path):
    """A function that returns the source of a folder."""
    if request.param == "disk":
        return lambda folder: raysp.Shards(str(folder))
    s3 = request.getfixturevalue("s3")

    def uploaded(folder: Path) -> raysp.Shards:
        bucket = s3.bucket()
        s3.upload(folder, bucket, "in/")
        return raysp.Shards(f"s3://{bucket}/in", storage_options=s3.options)

    return uploaded


def rows_of(source: raysp.Shards, sink: Path) -> list[dict[str, object]]:
    raysp.run(a_pipeline(dataclasses.replace(source, text="text"), sink), engine="here", progress=False)
    return kit.rows(sink)


@pytest.mark.parametrize(("there", "named"), FORMS)
def test_metadata_in_another_unicode_form_is_that_of_the_recordings_unless_another_has_the_exact_name(
    source, tmp_path, there, named
):
    folder = tmp_path / "in"
    folder.mkdir()
    names = [normal(there, name) for name in NAMES]
    for name in names:
        (folder / name).write_bytes(wav())
    write_metadata(folder, [normal(named, names[0]), names[1], normal(named, names[1])])
    rows = rows_of(source(folder), tmp_path / "out")
    # The third line is a row without a recording, not the second one again.
    assert {row["id"]: (row["text"], row["error_type"]) for row in rows} == {
        names[0]: ("text of 0", None),
        names[1]: ("text of 1", None),
        normal(named, names[1]): ("text of 2", "not_found"),
    }
