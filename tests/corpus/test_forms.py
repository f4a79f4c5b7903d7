"""Recordings whose names are in one Unicode normal form, and lines that name them in another: one row for each."""

import unicodedata

import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, wav


@pytest.mark.parametrize(("there", "named"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_metadata_in_another_unicode_form_is_that_of_the_recordings_unless_another_has_the_exact_name(
    tmp_path, there, named
):
    folder = tmp_path / "in"
    folder.mkdir()
    names, others = (
        [unicodedata.normalize(form, name) for name in ("\u00e9t\u00e9.wav", "na\u00efve.wav")]
        for form in (there, named)
    )
    for name in names:
        (folder / name).write_bytes(wav())
    lines = [f"{name},text of {place}\n" for place, name in enumerate((others[0], names[1], others[1]))]
    (folder / "metadata.csv").write_text(f"file_name,text\n{''.join(lines)}")
    source = raysp.Shards(str(folder), text="text")
    raysp.run(a_pipeline(source, tmp_path / "out"), engine="here", progress=False)
    # The third line is a row without a recording, not the second one again.
    assert {row["id"]: (row["text"], row["error_type"]) for row in kit.rows(tmp_path / "out")} == {
        names[0]: ("text of 0", None),
        names[1]: ("text of 1", None),
        others[1]: ("text of 2", "not_found"),
    }
