"""What a command gives back to the door that called it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from atoll.domain.account import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a reply goes on with: `data` has the keys of the reply's own, `text` is for people."""

    data: Any
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`data` is JSON (printed with --json and by /exec), `text` is for people, without a last newline.

    `exit` is the process exit code. `run_in_vm` asks the door to run `command` inside the VM and to
    relay its streams and exit code instead of printing anything. `changed` names the VMs that were
    changed, for the record of what happened; None: the one that `data` calls `vm_name`.

    A reply may go on: `more` makes a piece whenever there is something new, for ever. The door asks for
    the next one when the last has been taken, so that a slow reader holds up no more than one, and closes
    `more` as soon as nobody listens. `is_redrawn`: a piece stands for what came before, and a terminal
    shows the last one only.
    """

    data: Any = None
    text: str = ""
    exit: int = 0
    run_in_vm: Route | None = None
    command: str = ""
    changed: tuple[str, ...] | None = None
    more: AsyncGenerator[Piece, None] | None = None
    is_redrawn: bool = False
