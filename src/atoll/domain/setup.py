"""What a new VM is given for its first start: a script that runs once, and environment variables.

Both may hold secrets, so no error repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from atoll.base.errors import Invalid

SCRIPT_BYTES = 10 * 1024
ENV_COUNT = 64
ENV_BYTES = 16 * 1024  # names and values together
VALUE_BYTES = 4096
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ESCAPE = re.compile(r"\\([n\\])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A checked script (None: nothing runs) and checked variables."""

    script: str | None = field(default=None, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def checked(cls, script: str | None, pairs: Iterable[str]) -> Setup:
        """Raises Invalid for a script or a `NAME=value` that a VM cannot be given."""
        return cls(script=check_script(script) if script else None, env=parse_env(pairs))


def unescaped(text: str) -> str:
    r"""A script as typed in one line: `\n` is a line's end and `\\` a backslash; others stay."""
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else "\\", text)


def check_script(text: str) -> str:
    """`text` if it can run as a script. Raises Invalid."""
    size = len(text.encode(errors="surrogatepass"))
    if size > SCRIPT_BYTES:
        raise Invalid(
            f"a setup script of {size} bytes is over the limit of {SCRIPT_BYTES >> 10} KiB",
            hint="Let a short script fetch the long one",
        )
    if "\0" in text or not _is_unicode(text):
        raise Invalid("a setup script must be UTF-8 text without NUL")
    if not text.strip():
        raise Invalid("the setup script is empty", hint="Leave --setup-script away")
    return text


def parse_env(pairs: Iterable[str]) -> dict[str, str]:
    """Variables out of `NAME=value` words. Raises Invalid; a name given twice is an error."""
    env: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise Invalid(
                f"--env {name[:40]!r} is not NAME=value; a name has letters, digits and _",
                hint="Try: --env MODE=production",
            )
        if name in env:
            raise Invalid(f"--env {name} is given twice")
        if any(char in value for char in "\0\n\r") or not _is_unicode(value):
            raise Invalid(f"the value of --env {name} must be one line of UTF-8 text")
        if len(value.encode()) > VALUE_BYTES:
            raise Invalid(f"the value of --env {name} is over {VALUE_BYTES >> 10} KiB")
        env[name] = value
    size = sum(len(name) + len(value.encode()) for name, value in env.items())
    if len(env) > ENV_COUNT or size > ENV_BYTES:
        raise Invalid(
            f"--env: {len(env)} variables of {size} bytes are over the limit of {ENV_COUNT}, and"
            f" {ENV_BYTES >> 10} KiB in all",
            hint="Let the setup script write a file",
        )
    return env


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates stand for bytes that were no UTF-8
        return False
    return True
