"""Documents name tests, files, commands and reasons that exist."""

import ast
import functools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from raysp.ops.rows import FILTERED, REMEDIES, WITHDRAWN
from raysp.text.targets import NO_TEXT, OUTSIDE, TOO_MANY
from raysp.training.objectives.class_targets import NO_CLASS, UNKNOWN_CLASS
from tests.commands import check_understood

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
README = TESTS.parent / "README.md"
PROMISES = "tests/models/promises/promises.md"
DOCUMENTS = {"docs/evidence/reliability.md": 40, "docs/evidence/threat-model.md": 20, PROMISES: 150}
"""Documents, and how many tests each names at least."""
NAMED = re.compile(r"`([\w/]+\.py)::([\w:]+)`")
BLOCKS = {"000": 9, "001": 4, "002": 4, "003": 6, "004": 5}  # of code on each page


def named(document: str) -> list[tuple[str, str]]:
    return NAMED.findall((TESTS.parent / document).read_text())


@functools.cache
def names_in(file: Path) -> set[str]:
    """Collect the tests of a file, those of a class as `TestClass::test_name`."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        found |= {f"{node.name}::{one.name}" for one in inner if isinstance(one, ast.FunctionDef)}
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_test_that_a_document_names_exists(document):
    assert len(named(document)) > DOCUMENTS[document]
    text = (TESTS.parent / document).read_text()
    assert len(re.findall(r"\.py::", text)) == len(named(document))  # none is written so that it would be passed over
    gone = [f"{file}::{name}" for file, name in named(document) if name not in names_in(TESTS / file)]
    gone += [path for path in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (TESTS.parent / path).is_file()]
    assert gone == []


def test_the_navigation_of_the_site_holds_each_page():
    text = (DOCS.parent / ".mkdocs.yml").read_text()
    assert yaml.safe_load(text)["validation"].keys() == {"nav", "links"}
    listed = set(re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} == listed


USED = [*DOCS.glob("*.md"), *DOCS.glob("reference/*.md")]
"""Pages for users."""
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
PAGES = [
    *DOCS.rglob("*.md"),
    *(TESTS.parent / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "cluster/README.md")),
    TESTS.parent / "cluster/slurm/README.md",
]


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as the site makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", one).strip().lower()) for one in headings}


def test_each_link_of_a_page_leads_to_a_file_and_a_heading():
    for page in PAGES:
        for path, anchor in LINK.findall(re.sub(r"`[^`\n]*`", "", without_code(page))):
            if re.match(r"\w+:", path):
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page, path, anchor)
            assert not anchor or anchor in anchors(target), (page, path, anchor)


def test_the_readme_can_be_read_on_a_package_page():
    text = without_code(README)
    assert all(re.match("https://", path) for path, _ in LINK.findall(text)), "a package page has no other files"
    files = re.findall(r'`((?:docs|cluster|pipelines)/[\w./-]*)`(?:, "([^"]+)")?', text)
    assert len(files) > 10
    for path, heading in files:
        assert (README.parent / path).exists(), path
        assert not heading or re.search(rf"^#+ {heading}$", (README.parent / path).read_text(), re.MULTILINE), heading


def commands(page: Path) -> list[list[str]]:
    """Return the words of each command of raysp in the blocks of a page that are for a shell."""
    found, kind = [], None
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            kind = line.removeprefix("```") if kind is None else None
        is_command = line.startswith("raysp " if kind in ("", "bash") else "$ raysp ")
        if kind in ("", "bash", "console") and is_command:
            found.append(shlex.split(line.removeprefix("$ "), comments=True)[1:])
    return found


def test_commands_on_pages_for_users_are_understood():
    lines = [one for page in [*USED, README] for one in commands(page)]
    assert len(lines) > 60
    for line in lines:
        if not line[0].startswith("-"):
            check_understood(*line)


def test_the_page_on_utterances_shows_the_file_as_it_is():
    blocks = re.findall(r"^```py\n(.*?)^```$", (DOCS / "utterances.md").read_text(), re.MULTILINE | re.DOTALL)
    recipe = (DOCS.parent / "pipelines/utterances.py").read_text()
    assert len(blocks) == 2
    assert [block for block in blocks if block not in recipe] == []


GUIDE = ("index", "data", "label", "utterances", "outputs", "evaluate", "train", "cluster")


def test_pages_are_few_and_short():
    words = {str(page.relative_to(DOCS)): len(page.read_text().split()) for page in DOCS.rglob("*.md")}
    assert {name: words[f"{name}.md"] for name in GUIDE if words[f"{name}.md"] > 900} == {}
    assert {name: count for name, count in words.items() if count > 3_500} == {}
    assert sum(words.values()) < 40_000
    for folder, most_pages, most_words, most in (("decisions", 34, 350, 9_000), ("evidence", 7, 1_500, 8_500)):
        counts = {name: count for name, count in words.items() if name.startswith(f"{folder}/")}
        assert len(counts) <= most_pages
        assert {name for name, count in counts.items() if count > most_words} <= {"evidence/roadmap.md"}
        assert sum(counts.values()) <= most


def test_the_page_on_columns_has_every_reason_why_a_row_has_no_label():
    page = (DOCS / "reference/columns.md").read_text()
    page = page[page.index("\n## Reasons of skipped rows\n") : page.index("\n## Exports\n")]
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))))
    of_rows = {*REMEDIES, FILTERED, WITHDRAWN}
    of_trainings = {NO_TEXT, OUTSIDE, TOO_MANY, NO_CLASS, UNKNOWN_CLASS}
    assert (of_rows | of_trainings) - explained == set()


def test_each_promise_of_the_models_documents_is_shown_or_has_its_reason():
    text = (TESTS.parent / PROMISES).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 80
    for row in rows:
        promise, shown = row.removeprefix("| ").removesuffix(" |").split(" | ")
        assert promise
        assert NAMED.search(shown) or re.search(r"[Nn]ot so: \w+ \S+", shown), row
    blocks = {f"{page}-{block}" for page, count in BLOCKS.items() for block in range(1, count + 1)}
    assert {*re.findall(r"\d{3}-\d", "".join(rows))} == blocks
