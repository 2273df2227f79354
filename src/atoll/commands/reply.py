"""What a command gives back to the door that called it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atoll.domain.account import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`data` is JSON (printed with --json and by /exec), `text` is for people, without a last newline.

    `exit` is the process exit code. `run_in_vm` asks the door to run `command` inside the VM and to
    relay its streams and exit code instead of printing anything. `changed` names the VMs that were
    changed, for the record of what happened; None: the one that `data` calls `vm_name`.
    """

    data: Any = None
    text: str = ""
    exit: int = 0
    run_in_vm: Route | None = None
    command: str = ""
    changed: tuple[str, ...] | None = None
