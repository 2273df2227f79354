"""A VM as the store keeps it: what its owner asked for. What the engine sees of it is elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from atoll.base.errors import Conflict


class Phase(StrEnum):
    """Where a VM is in its life."""

    CREATING = "creating"  # an open operation makes it; its name is taken
    LIVE = "live"
    TRASHED = "trashed"  # nameless; `undo` brings it back until `trash_until`


class Wanted(StrEnum):
    """The state its owner last asked for."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRecord:
    """One row of the store, with its tags. `name` is None exactly while it is in the trash.

    `is_public` is read only, from its grants: its own port, the whole site, is open to everybody.
    """

    id: str
    owner: str
    name: str | None
    former_name: str | None = None
    comment: str = ""
    image: str
    cpus: int
    memory_bytes: int
    disk_bytes: int
    phase: Phase
    wanted: Wanted = Wanted.RUNNING
    port: int
    is_port_chosen: bool = False  # by `share port`; else it follows what listens inside
    is_public: bool = False
    host_key: str  # public key line of its sshd
    history: str | None = None  # its policy as `domain.retention` shows it; None: the default
    created_at: float
    trashed_at: float | None = None
    trash_until: float | None = None
    trash_act: str | None = None
    generation: int = 0
    tags: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return self.name or self.former_name or self.id

    @property
    def title(self) -> str:
        """`VM "web"`, for messages."""
        return title(self.label)

    def check_made(self) -> None:
        """Raises Conflict while it is being made, or in the trash."""
        if self.phase is not Phase.LIVE:
            raise Conflict(f"{self.title} is still being made", hint="Try again in a moment")


def title(name: str) -> str:
    """`VM "web"`; whatever a stranger typed is cut and escaped."""
    return f"VM {json.dumps(name[:60])}"
