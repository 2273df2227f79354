"""`python -m atoll.host_setup.web_files CACHE`: what checks and tests need, for scripts/bootstrap.sh.

It is what `atoll up` installs, and besides, apart from it, what only tests load into a page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from atoll.base.errors import AtollError
from atoll.doors.web.assets import for_tests, vendored
from atoll.host_setup.web_files.declared import FOR_PAGES, FOR_TESTS
from atoll.host_setup.web_files.install import install
from atoll.host_setup.web_files.registry import Registry, address


def main(cache: Path) -> int:
    """Install both folders; the exit code."""
    try:
        registry = Registry(url=address(), cache=cache)
        for folder, packages in ((vendored(), FOR_PAGES), (for_tests(), FOR_TESTS)):
            install(folder, packages, registry, _say)
    except AtollError as error:
        sys.stderr.write(f"atoll: {error}\n")
        return error.exit
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
