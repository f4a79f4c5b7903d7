"""What users are advised to do about rows without labels."""

import re
from pathlib import Path

import raysp
from tests.corpora import a_pipeline, rows_table, wav, write_shard

PACKAGE = Path(raysp.__file__).parent
MADE = re.compile(
    r'(?:AudioError|DecoderFailure|fail|skip|__init__)\(\s*(?:[\w.\[\]]+,\s*)?"([a-z]+(?:_[a-z]+)+)"'
    r'|^(?:UNKNOWN|UNREADABLE_TEXT|NO_SPEECH) = "(\w+)"',
    re.MULTILINE,
)
"""Reasons in the source: an argument of what makes a row fail, behind the row itself if need be, or a constant."""
NO_ROWS = {"filtered", "withdrawn", "stopped"}
"""Reasons that a user asked for, and one that ends a command."""
UNKNOWN = "reason_of_a_later_raysp"


def test_every_reason_that_a_row_may_have_no_label_for_has_a_remedy(tmp_path):
    texts = [file.read_text() for file in PACKAGE.rglob("*.py")]
    made = {found[1] or found[2] for text in texts for found in MADE.finditer(text)} - NO_ROWS
    assert {"too_short", "decoder_timeout", "model_output", "unknown_language", "unreadable_text"} <= made
    assert len(made) >= 18
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(1, audio=wav(20)))
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    # The record of the run has the reasons in turn: of some, such as a crash of a worker, there is no quick recording.
    [receipts] = (tmp_path / "out" / ".raysp" / "log").iterdir()
    text = receipts.read_text()
    assert text.count('"too_short"') == 3  # of the piece, of the shard, and of the end
    found = {}
    for kind in (UNKNOWN, *made):
        receipts.write_text(text.replace('"too_short"', f'"{kind}"'))
        message = raysp.run(pipeline, engine="here", progress=False).nothing_labelled
        found[kind] = re.fullmatch(rf"0 of 1 row has a label \(1 {kind}\)\. For {kind}: (.*)", message)[1]
    unknown = found.pop(UNKNOWN)
    assert unknown == "see error_message of these rows"
    assert {kind for kind, remedy in found.items() if remedy == unknown} == set()
