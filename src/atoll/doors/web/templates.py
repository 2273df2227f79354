"""HTML from templates: every value is escaped, a name that is missing is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atoll.doors.web.assets import Assets

_FOLDER = Path(__file__).with_name("templates")


class Templates:
    """Renders them; `asset('terminal.js')` in one is the file's URL."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["asset"] = assets.url

    def render(self, name: str, **values: Any) -> str:
        """A whole page."""
        return self._environment.get_template(name).render(**values)
