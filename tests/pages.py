"""HTML pages as tests read them."""

from collections import Counter
from html.parser import HTMLParser

HOSTILE = "</pre></style><script>alert(1)</script><img src=//x onerror='y'>\"&amp;{{ 7 * 7 }}{% raw %}\x1b[31m"
"""A text that would be markup, a template or a terminal code if it were not escaped."""


class Page(HTMLParser):
    """Tags, attributes and texts of a page.

    Args:
        html: the page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.marked: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag != "style" and data.strip():
            self.texts.append(" ".join(data.split()))
            self.marked.append((tag, self.texts[-1]))

    def after(self, text: str) -> str:
        """Return the text after another one."""
        return self.texts[self.texts.index(text) + 1]
