"""What users are advised to do about rows without labels."""

import re
from pathlib import Path

import raysp
from raysp.ops.rows import REMEDIES  # of some reasons, such as a crash of a worker, there is no quick recording

PACKAGE = Path(raysp.__file__).parent
MADE = re.compile(
    r'(?:AudioError|DecoderFailure|fail|fail_ok|skip|__init__)\(\s*(?:[\w.\[\]]+,\s*)?"([a-z]+(?:_[a-z]+)+)"'
    r'|^(?:UNKNOWN|UNREADABLE_TEXT|NO_SPEECH) = "(\w+)"',
    re.MULTILINE,
)
"""Reasons in the source: an argument of what makes a row fail, behind the row itself if need be, or a constant."""
NO_ROWS = {"filtered", "withdrawn", "stopped"}
"""Reasons that a user asked for, and one that ends a command."""


def test_every_reason_that_a_row_may_have_no_label_for_has_a_remedy():
    texts = [file.read_text() for file in PACKAGE.rglob("*.py")]
    made = {found[1] or found[2] for text in texts for found in MADE.finditer(text)} - NO_ROWS
    assert {"too_short", "decoder_timeout", "model_output", "unknown_language", "unreadable_text"} <= made
    assert len(made) >= 18
    assert made - REMEDIES.keys() == set()
