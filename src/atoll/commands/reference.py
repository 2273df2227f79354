"""Writes docs/reference/commands.md: `python -m atoll.commands.reference [file]`."""

from __future__ import annotations

import sys
from pathlib import Path

from atoll.base import atomic
from atoll.commands.pages import reference
from atoll.commands.verbs import REGISTRY

PAGE = Path("docs/reference/commands.md")


def main() -> None:
    """Write the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, reference(REGISTRY).encode(), mode=0o644)


if __name__ == "__main__":
    main()
