"""The forms of a page, as a browser would send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class PageForm:
    """One form; `fields` are its names with the values it has before anybody fills it in."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)  # names a person sees
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[PageForm] = []
        self.scripts: list[str] = []
        self.inline: list[str] = []
        self._form: PageForm | None = None
        self._area: str | None = None
        self._select: str | None = None
        self._is_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "script":
            self.scripts.append(given.get("src", ""))
            self._is_script = True
        if tag == "form":
            self._form = PageForm(given["action"], given.get("method", "get"))
            self.forms.append(self._form)
        if self._form is None:
            return
        name = given.get("name", "")
        if tag == "input" and name:
            if given.get("type") != "hidden":
                self._form.asked.add(name)
            if given.get("type") != "checkbox" or "checked" in given:
                self._form.fields.append((name, given.get("value", "")))
        elif tag == "textarea":
            self._area = ""
            self._form.asked.add(name)
            self._form.fields.append((name, ""))
        elif tag == "select":
            self._form.asked.add(name)
            self._select = name
        elif tag == "option" and self._select is not None:
            is_first = all(known != self._select for known, _ in self._form.fields)
            if is_first or "selected" in given:
                self._form.fields.append((self._select, given.get("value", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "textarea":
            assert self._form is not None
            name, _ = self._form.fields[-1]
            self._form.fields[-1] = (name, self._area or "")
            self._area = None
        elif tag == "select":
            self._select = None
        elif tag == "script":
            self._is_script = False

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.inline.append(data)
        if self._area is not None:
            self._area += data
        elif self._form is not None:
            self._form.text += data


def forms(html: str) -> list[PageForm]:
    """All forms of a page."""
    return _read(html).forms


def scripts(html: str) -> tuple[list[str], list[str]]:
    """Addresses of its scripts, and what it has of inline script or style."""
    read = _read(html)
    return read.scripts, [text for text in read.inline if text.strip()]


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    return reader
