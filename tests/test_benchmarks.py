"""Benchmarks: their corpora, their checks of what they compare, and their commands in the documents."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import scale


@pytest.mark.drivers
@pytest.mark.slow
def test_a_sink_of_many_shards_is_planned_resumed_and_shown_by_a_few_requests() -> None:
    rows = {row["part"]: row for row in scale.measure(40)}
    assert rows["first plan"]["GET"] == 40
    others = [row for part, row in rows.items() if part != "first plan"]
    assert max(row["GET"] + row["HEAD"] + row["LIST"] + row["PUT"] for row in others) < 30


DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page: page.read_text() for page in (*sorted(DOCS.rglob("*.md")), DOCS.parent / "README.md")}
COMMANDS = sorted(
    {
        " ".join(shlex.split(found[1], comments=True))
        for text in PAGES.values()
        for found in re.finditer(r"python3? -m benchmarks((?: [^`\n]*)?)", text)
    }
)


@pytest.mark.slow
def test_every_command_of_docs_is_a_part_that_is_listed_with_options_that_it_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(*words: str) -> str:
        with pytest.raises(SystemExit, match=r"^0$"):
            command.main([*words])
        return capsys.readouterr().out

    assert [line.split()[0] for line in said().splitlines() if line.startswith("  ")] == [*command.PARTS]
    assert all(command.summary(name).endswith("?") for name in command.MEASUREMENTS.values())
    assert len(COMMANDS) > 12
    assert {line.split()[0] for line in COMMANDS if line and not line.startswith("-")} <= {*command.PARTS}
    for part in {line.split()[0] for line in COMMANDS if " --" in line}:
        options = {*re.findall(r"--[a-z][a-z-]*", said(part, "--help"))}
        given = [words for line in COMMANDS if (words := line.split()) and words[0] == part]
        assert {word for words in given for word in words if word.startswith("--")} <= options, part
    with pytest.raises(SystemExit, match="benchmarks parts: no such part"):
        command.main(["parts"])
