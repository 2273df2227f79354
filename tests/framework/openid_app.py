"""The app of docs/openid.md, and its libraries for the Python of a VM."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from atoll.base.proc import run

_ROOT = Path(__file__).parents[2]
LIBRARIES = ("authlib", "httpx2", "starlette", "uvicorn")
# What a Debian VM's glibc loads; pip takes no general "linux" when it packs for another Python.
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")


def source() -> str:
    """The app as it stands on the page."""
    page = (_ROOT / "docs/openid.md").read_text()
    blocks = re.findall(r"(?:^    .*\n|^\n)+", page, re.MULTILINE)
    (found,) = [textwrap.dedent(block) for block in blocks if "import secrets" in block]
    return found


async def pack(folder: Path, *, python: str) -> None:
    """Put the libraries into `folder` for another Python, as `3.13`, at the versions pinned here."""
    lock = (_ROOT / "requirements-dev.lock").read_text()
    pins = folder.with_name(f"{folder.name}.txt")
    pins.write_text("\n".join(re.findall(r"(?m)^[\w.-]+==[\w.]+", lock)))
    argv = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    argv += ["--target", str(folder), "--only-binary=:all:", "--python-version", python]
    argv += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    await run([*argv, "-c", str(pins), *LIBRARIES], seconds=180)
