"""Writes the generated pages under docs/: `python -m atoll.commands.reference [docs folder]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from atoll.base import atomic
from atoll.commands import library, pages, skill
from atoll.commands.addresses import Addresses
from atoll.commands.verbs import REGISTRY
from atoll.config import Config

DOCS = Path("docs")


def generated() -> Mapping[str, str]:
    """Path under docs/ -> what must be there."""
    return {
        "reference/commands.md": pages.reference(REGISTRY),
        "reference/errors.md": library.errors() + "\n",
        "skill.md": skill.skill(Addresses(Config())) + "\n",
    }


def main() -> None:
    """Write the pages."""
    docs = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for name, text in generated().items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text.encode(), mode=0o644)


if __name__ == "__main__":
    main()
