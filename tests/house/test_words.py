"""Numbers in messages have their noun in the right number, and no message is written as "shard(s)"."""

import ast
import re
from pathlib import Path

import pytest

from raysp.words import count, without_password

PACKAGE = Path(__file__).parents[2] / "raysp"
UNDECIDED = re.compile(r"[a-z]\((s|es)\)")


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "shard", "1 shard"),
        (12_000, "row", "12,000 rows"),
        (0.5, "GPU", "0.5 GPUs"),
        (3, "batch", "3 batches"),
        (2, "entry", "2 entries"),
    ],
)
def test_a_noun_follows_its_number(number, noun, words):
    assert count(number, noun) == words


def test_no_message_leaves_the_number_to_the_reader():
    texts = (
        (path, node.lineno, node.value)
        for path in sorted(PACKAGE.rglob("*.py"))
        if UNDECIDED.search(path.read_text())
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    assert [f"{path}:{line}" for path, line, text in texts if UNDECIDED.search(text)] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pa55@head:8265", "http://user:***@head:8265"),
        ("--address https://:pa/55@head: gone", "--address https://:***@head: gone"),
        ("http://head:8265/a@b", "http://head:8265/a@b"),
        ("127.0.0.1:6379", "127.0.0.1:6379"),
    ],
)
def test_passwords_of_urls_are_not_shown(text, shown):
    assert without_password(text) == shown
