"""The ten tasks, the fleet they are done in, and what one side of the comparison types and reads.

Invariant: nothing is counted that was not printed. A task that a side cannot do is absent there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

TASKS = (
    "list",
    "create",
    "copy",
    "share with one person",
    "logs",
    "restart",
    "resize",
    "snapshot",
    "rollback",
    "delete",
)
FLEET = ("web", "shop", "db", "cache", "build")  # all running, all tagged with TAG
TAG = "prod"
NEW, COPY = "wiki", "web-next"  # what create and copy make; delete removes the copy
PERSON = "bob@example.com"
# What a VM has written on its console: the same on all sides, for it is the VM's and not the tool's. One
# line, so that it is the tools that are compared.
CONSOLE = "web login:"


@dataclass(frozen=True, slots=True)
class Turn:
    """One command, and all of what came back."""

    command: str
    output: str

    @property
    def text(self) -> str:
        """What an agent's context holds of it."""
        return f"{self.command}\n{self.output}\n" if self.output else f"{self.command}\n"


Side: TypeAlias = Mapping[
    str, Sequence[Turn]
]  # task -> what it takes, to the point where it is done


def text_of(turns: Sequence[Turn]) -> str:
    """All of it."""
    return "".join(turn.text for turn in turns)
