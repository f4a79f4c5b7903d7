"""Recordings whose names are in one Unicode normal form, and lines that name them in another: one row for each."""

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


@pytest.mark.parametrize(("there", "named"), FORMS)
def test_metadata_in_another_unicode_form_is_that_of_the_recordings_unless_another_has_the_exact_name(
    tmp_path, there, named
):
    folder = tmp_path / "in"
    folder.mkdir()
    names = [normal(there, name) for name in NAMES]
    for name in names:
        (folder / name).write_bytes(wav())
    write_metadata(folder, [normal(named, names[0]), names[1], normal(named, names[1])])
    source = raysp.Shards(str(folder), text="text")
    raysp.run(a_pipeline(source, tmp_path / "out"), engine="here", progress=False)
    # The third line is a row without a recording, not the second one again.
    assert {row["id"]: (row["text"], row["error_type"]) for row in kit.rows(tmp_path / "out")} == {
        names[0]: ("text of 0", None),
        names[1]: ("text of 1", None),
        normal(named, names[1]): ("text of 2", "not_found"),
    }
