"""Which lines of a prompt are kept for the next session. Pure.

Kept lines are read again by everybody who may use the account's keys, and end in backups. So a line
that may hold a secret is not kept: better one line too few. A line that begins with a blank is
not either, as in other shells.
"""

from __future__ import annotations

import re

LINES = 500  # of one account
LINE_CHARACTERS = 1000

# Words that come before or inside a secret.
_TELLING = re.compile(
    r"passw|passphrase|secret|credential|private|token|bearer|authorization|cookie"
    r"|api[_-]?key[=:]|(?<!\S)-p\S|[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@",
    re.IGNORECASE,
)
# An assignment: `--env KEY=VALUE` and `KEY=VALUE command`; flags with `=` are no assignments.
_ASSIGNED = re.compile(r"(?:^|\s|['\"])[A-Z][A-Z0-9_]*=\S")
# Keys, hashes and tokens: long runs without a blank that no name here is made of.
_RANDOM = re.compile(r"[A-Za-z0-9+/_=.-]{24,}")
_UNFIT = re.compile("[\0\ud800-\udfff]")  # what no store takes: NUL, bytes that are no UTF-8
_MARKS = (str.isupper, str.islower, str.isdigit)


def may_be_kept(line: str) -> bool:
    """Whether a line may be kept."""
    if not line or line[0].isspace() or len(line) > LINE_CHARACTERS:
        return False
    if _UNFIT.search(line) or _TELLING.search(line) or _ASSIGNED.search(line):
        return False
    return not any(_looks_random(word[0]) for word in _RANDOM.finditer(line))


def _looks_random(word: str) -> bool:
    """Letters of both cases with digits, or hexadecimal: no name of a VM, path or flag."""
    if re.search(r"[0-9a-f]{24,}", word, re.IGNORECASE):
        return True
    return all(any(map(mark, word)) for mark in _MARKS)
