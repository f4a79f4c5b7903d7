"""The page of models has what opens each class of transformers that recognises speech, by running."""

from pathlib import Path

from raysp.backends.hugging_face.recogniser_families import FAMILIES, REFUSED
from tests.backends.recognisers.classes import Facts, classes, facts

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def rows_of(table: dict[str, Facts]) -> list[str]:
    """Return the rows of the page, one for classes with the same facts."""
    groups = sorted({*table.values()}, key=lambda group: (group.opened.startswith("refused"), group))
    return [
        f"| {', '.join(cls for cls, of_class in table.items() if of_class == group)} | {' | '.join(group)} |"
        for group in groups
    ]


def test_the_page_has_what_opens_each_class(tmp_path):
    table = {cls: facts(model_type, cls, tmp_path / model_type) for model_type, cls in sorted(classes().items())}
    begin, end = "| class | opened by | times | languages |\n|---|---|---|---|\n", "\n\n"
    assert PAGE.read_text().partition(begin)[2].partition(end)[0].splitlines() == rows_of(table)
    assert len(table) == 44
    assert sum("refused" not in of_class.opened for of_class in table.values()) >= 39


def test_no_family_is_both_run_and_refused():
    assert not FAMILIES.keys() & REFUSED.keys()
