"""The page of recognisers has what opens each class of transformers, by running."""

from pathlib import Path

from raysp.backends.hugging_face.recogniser_families import FAMILIES, REFUSED
from tests.backends.recognisers.classes import classes, opened

PAGE = Path(__file__).parents[3] / "docs" / "evidence" / "recognisers.md"


def table(folder: Path) -> list[str]:
    """Return the rows of the page."""
    named = classes()
    found = {model_type: opened(model_type, cls, folder / model_type) for model_type, cls in named.items()}
    return [f"| {model_type} | {named[model_type]} | {how} |" for model_type, how in found.items()]


def test_the_page_has_what_opens_each_class(tmp_path):
    rows = table(tmp_path)
    assert [line for line in PAGE.read_text().splitlines() if "For" in line and line.startswith("| ")] == [
        row for row in rows if "For" in row
    ]
    assert len(rows) == 44
    assert sum("refused" not in row for row in rows) >= 39


def test_no_family_is_both_run_and_refused():
    assert not FAMILIES.keys() & REFUSED.keys()
