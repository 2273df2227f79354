"""One thing that a dry run says would be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.domain.operation import Json


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that would be done; `about` says to what, and how."""

    do: str
    about: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        """As `would` lists it."""
        return {"do": self.do, **self.about}
