"""All pages by slug: one per verb, the topics, the errors, the skill. `doc`, the API door and the
generated files under docs/ show these, so they cannot say different things.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from atoll.base.errors import NotFound
from atoll.commands import error_pages, pages, skill
from atoll.commands.addresses import Addresses
from atoll.commands.registry import Command, Registry
from atoll.commands.topics import TOPICS

ALL = "all"
ERRORS = "errors"
_INTRO = (
    "Atoll turns a Linux machine into a cloud of real VMs, with one command language behind SSH, the"
    " prompt and HTTPS."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page in Markdown, heading included, without a last newline."""

    slug: str
    title: str
    summary: str
    text: str


class Library:
    """The pages of one cloud; `addresses` are its own."""

    def __init__(self, *, registry: Registry, addresses: Addresses) -> None:
        self._registry = registry
        self._addresses = addresses
        self._pages = {page.slug: page for page in self._made()}

    def __iter__(self) -> Iterator[Page]:
        return iter(self._pages.values())

    def get(self, slug: str) -> Page | None:
        """The page with this slug."""
        return self._pages.get(slug)

    def find(self, words: Sequence[str]) -> str:
        """The text for what was asked: nothing, `all`, a slug, a verb or the first word of some.

        Raises NotFound with the nearest slug.
        """
        slug = "-".join(words).lower()[:60].removesuffix(".md")
        if not slug:
            return self.index()
        if slug == ALL:
            return self.whole()
        matched = self._registry.match(words)
        if matched is not None and matched[1] == len(words):
            slug = slug_of(matched[0])
        found = self._pages.get(slug) or self._pages.get(error_pages.slug_of(slug))
        if found is not None:
            return found.text
        family = [page.text for page in self if page.slug.startswith(f"{slug}-")]
        if family:
            return "\n\n".join(family)
        near = difflib.get_close_matches(slug, self._pages, n=1)
        hint = f"Did you mean doc {near[0]}?" if near else "Try: doc"
        raise NotFound(f"no page {slug!r}", hint=hint)

    def index(self) -> str:
        """Every page with one line."""
        lines = [f"- `{page.slug}`: {page.summary}" for page in self]
        head = f"# Pages\n\n{_INTRO} Read one with `doc <page>`, or at"
        return (
            f"{head} {self._addresses.cloud_url('docs/<page>.md')}; `doc {ALL}` is all of them.\n\n"
            + "\n".join(lines)
        )

    def whole(self) -> str:
        """Every page, one after the other."""
        return "\n\n".join(page.text for page in self)

    def llms_txt(self) -> str:
        """The index as https://llmstxt.org has it."""

        def line(page: Page) -> str:
            url = self._addresses.cloud_url(f"docs/{page.slug}.md")
            return f"- [{page.title}]({url}): {page.summary}"

        first = self._pages[skill.SLUG]
        whole = self._addresses.cloud_url(f"docs/{ALL}.md")
        return "\n".join(
            (
                f"# Atoll\n\n> {_INTRO} Commands are lines: `{self._addresses.lobby_command} '<line>'`.",
                f"\n## Start here\n\n{line(first)}",
                "\n## Pages\n",
                *(line(page) for page in self if page is not first),
                f"\n## Optional\n\n- [Everything]({whole}): all pages in one",
            )
        )

    def _made(self) -> Iterator[Page]:
        text = skill.skill(self._addresses)
        yield Page(slug=skill.SLUG, title=skill.TITLE, summary=skill.SUMMARY, text=text)
        for topic in TOPICS:
            text = f"# {topic.title}\n\n{topic.body}"
            yield Page(slug=topic.slug, title=topic.title, summary=topic.summary, text=text)
        for command in self._registry:
            yield Page(
                slug=slug_of(command),
                title=command.name,
                summary=pages.first_sentence(command),
                text=pages.own_page(command),
            )
        yield Page(
            slug=ERRORS,
            title="Errors",
            summary="what each code means and what to do",
            text=errors(),
        )
        for code in error_pages.ERROR_PAGES:
            page = error_pages.ERROR_PAGES[code]
            yield Page(
                slug=error_pages.slug_of(code),
                title=f"Error {code}",
                summary=page.means.split(":")[0].split(". ")[0].rstrip("."),
                text=f"# Error {code}\n\n{error_pages.body_of(code)}",
            )


def slug_of(command: Command) -> str:
    """`share-set-public`."""
    return "-".join(command.words)


def errors() -> str:
    """The page of all codes."""
    parts = ["# Errors", error_pages.ABOUT]
    parts += [f"## {code}\n\n{error_pages.body_of(code)}" for code in error_pages.ERROR_PAGES]
    return "\n\n".join(parts)
