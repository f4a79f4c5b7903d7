"""What users are advised to do about rows without labels."""

import re
from pathlib import Path

from raysp.ops.remedies import FILTERED, REMEDIES, remedy

PACKAGE = Path(__file__).parents[2] / "raysp"
MADE = re.compile(r'(?:AudioError|\.fail|\.skip|AudioError\.__init__)\(\s*"([a-z_]+)"')


def test_every_reason_that_a_row_may_have_no_label_for_has_a_remedy():
    made = {kind for file in PACKAGE.rglob("*.py") for kind in MADE.findall(file.read_text())}
    assert len(made) > 10
    assert made - {FILTERED, "stopped"} <= REMEDIES.keys()  # "stopped" ends a command
    assert remedy("of a later raysp") == "see error_message of these rows"
