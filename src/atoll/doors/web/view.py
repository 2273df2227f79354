"""What every page works with."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.doors.web.choices import Choosing
from atoll.doors.web.forms import Forms
from atoll.doors.web.lines import Lines
from atoll.doors.web.pages import Pages
from atoll.doors.web.visitor import Visitors


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Who looks, what there is to see, and what to make of it."""

    visitors: Visitors
    lines: Lines
    choices: Choosing
    forms: Forms
    pages: Pages
