"""Writes docs/configuration.md to stdout from the configuration's own fields."""

from __future__ import annotations

import sys

from atoll.config import Config

HEAD = """# Configuration

One TOML file, `/etc/atoll/atoll.toml`, or the one that `$ATOLL_CONFIG` names. Every value has a
default, so an empty file is right; a key that does not exist is an error that names it. `make up`
writes a file with all defaults and comments when there is none. `atoll config show` prints what is in
force. `make up` again brings a change into force; VMs run on meanwhile.

This page is generated from `src/atoll/config.py` (`make docs`); a test compares them.
"""


def reference() -> str:
    """The page."""
    parts = [HEAD]
    for name, section in Config.model_fields.items():
        kind = section.annotation
        assert kind is not None
        parts.append(f"\n## `[{name}]`\n\n{(kind.__doc__ or '').strip()}\n")
        parts.append("\n| key | default | what and why |\n|---|---|---|\n")
        for key, field in kind.model_fields.items():
            text = (field.description or "").replace("|", "\\|")
            parts.append(f"| `{key}` | `{_shown(field.default)}` | {text} |\n")
    return "".join(parts)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{value}"'


if __name__ == "__main__":
    sys.stdout.write(reference())
