"""What a page must be, checked with the standard library alone."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input"}
LOADING = {"src", "href", "action", "data", "srcset", "poster"}


class Page(HTMLParser):
    """Parses a page; `text` is what a reader sees, `loaded` every address it would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text = ""
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.code = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in LOADING:
                (self.links if tag == "a" else self.loaded).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            self.code += data
        else:
            self.text += data

    def assert_self_contained(self) -> None:
        assert all(address.startswith("data:") for address in self.loaded), self.loaded
        assert not any(
            word in self.code for word in ("http:", "https:", "@import", "url(", "fetch(")
        )
