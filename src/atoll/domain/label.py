"""Comments and tags of a VM: what is allowed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from atoll.base.errors import Invalid
from atoll.domain.name import check_tag

COMMENT_BYTES = 200
MAX_TAGS = 64
_TERMINAL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # what a terminal may act on or cannot print


def check_comment(text: str) -> str:
    """`text` if it can be a comment: one line of at most 200 bytes, nothing a terminal acts on."""
    size = len(text.encode(errors="surrogatepass"))
    if size > COMMENT_BYTES:
        raise Invalid(f"a comment of {size} bytes is longer than {COMMENT_BYTES}")
    if any(unicodedata.category(char) in _TERMINAL for char in text):
        raise Invalid("a comment is one line without control characters")
    return text


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags, each once, in order."""
    checked = tuple(sorted({check_tag(tag) for tag in tags}))
    if len(checked) > MAX_TAGS:
        raise Invalid(f"{len(checked)} tags are more than {MAX_TAGS}")
    return checked
