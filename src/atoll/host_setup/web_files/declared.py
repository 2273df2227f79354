"""The packages of npm that the page is built with, each pinned to one archive.

The integrity is the registry's own (`npm view NAME@VERSION dist.integrity`): the sha512 of the archive.
Whatever a registry, a mirror or a proxy sends instead is not installed. See docs/adr/0006-web-files.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One archive, and what is taken of it: path in the package -> name here."""

    name: str
    version: str
    integrity: str
    licence: str
    files: Mapping[str, str]

    @property
    def path(self) -> str:
        """Where a registry has the archive."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"

    @property
    def shown(self) -> str:
        """As people write it."""
        return f"{self.name}@{self.version}"


FOR_PAGES = (
    Package(
        name="htmx.org",
        version="2.0.11",
        integrity="sha512-Thx/WtpeOQqSrqBCw/A1cwGJGg4UrVa3+sW0GmrM3p4gJgO89ecH4qtbnyzDDWFvBTqjnIMCgELTNt636dtamA==",
        licence="0BSD",
        files={"dist/htmx.min.js": "htmx.js", "LICENSE": "htmx.LICENSE.txt"},
    ),
    Package(
        name="htmx-ext-sse",
        version="2.2.4",
        integrity="sha512-LJmxVhykyflBWgh5PvbRidcyuqMHlgfajmmzumvKctv9puvsufeH6OaejSMZTNTnEI8O2wXXn4ZZtBdpEMqmEQ==",
        licence="0BSD",
        files={"dist/sse.min.js": "sse.js", "LICENSE": "sse.LICENSE.txt"},
    ),
    Package(
        name="@xterm/xterm",
        version="6.0.0",
        integrity="sha512-TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==",
        licence="MIT",
        files={
            "lib/xterm.mjs": "xterm.js",
            "css/xterm.css": "xterm.css",
            "LICENSE": "xterm.LICENSE.txt",
        },
    ),
    Package(
        name="@xterm/addon-fit",
        version="0.11.0",
        integrity="sha512-jYcgT6xtVYhnhgxh3QgYDnnNMYTcf8ElbxxFzX0IZo+vabQqSPAjC3c1wJrKB5E19VwQei89QCiZZP86DCPF7g==",
        licence="MIT",
        files={"lib/addon-fit.mjs": "xterm-fit.js", "LICENSE": "xterm-fit.LICENSE.txt"},
    ),
)

FOR_TESTS = (
    Package(
        name="axe-core",
        version="4.14.1",
        integrity="sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        licence="MPL-2.0",
        files={"axe.min.js": "axe.js", "LICENSE": "axe.LICENSE.txt"},
    ),
)
