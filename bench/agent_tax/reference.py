"""The reference product's side: nobody asked it. Its documented JSON keys, filled in for the same fleet.

Where the documentation leaves something open it is decided in the product's favour: JSON without a blank;
of the keys that may be absent only those that every VM of this fleet has a value for; logs, of which
no shape is documented, as the bare text. It documents no snapshot and no rollback.
"""

from __future__ import annotations

import json
from typing import Any

from bench.agent_tax.tasks import CONSOLE, COPY, FLEET, NEW, PERSON, TAG, Side, Turn

_MADE = "2026-11-26T04:00:00Z"
_GIB = 1 << 30


def side() -> Side:
    """Every task it has."""
    restarted = _turn("restart web", {"status": "restarted", "vm_name": "web"})
    return {
        "list": [_turn("ls", {"vms": [_listed(name) for name in FLEET]})],
        "create": [_turn(f"new --name={NEW} --tag={TAG}", _new(NEW))],
        "copy": [_turn(f"cp web {COPY}", _copied(COPY))],
        "share with one person": [_turn(f"share add web {PERSON}", _shared())],
        "logs": [Turn("ssh exe.dev vm-logs web", CONSOLE)],
        "restart": [restarted],
        "resize": [_turn("resize web --cpu=2 --memory=2", _resized()), restarted],
        "delete": [_turn(f"rm {COPY}", {"deleted": [COPY], "failed": []})],
    }


def _turn(line: str, data: dict[str, Any]) -> Turn:
    return Turn(f"ssh exe.dev {line} --json", json.dumps(data, separators=(",", ":")))


def _where(name: str) -> dict[str, str]:
    return {"ssh_dest": f"{name}.exe.xyz", "ssh_host": f"{name}.exe.xyz"}


def _listed(name: str) -> dict[str, Any]:
    return {
        "vm_name": name,
        **_where(name),
        "https_url": f"https://{name}.exe.xyz",
        "status": "running",
        "region": "lax",
        "region_display": "Los Angeles",
        "tags": [TAG],
        "created_at": _MADE,
        "egress_policy": "all",
    }


def _new(name: str) -> dict[str, Any]:
    return {
        "vm_name": name,
        "tags": [TAG],
        "ssh_command": f"ssh {name}.exe.xyz",
        **_where(name),
        "ssh_port": 22,
        "https_url": f"https://{name}.exe.xyz",
        "proxy_port": 8000,
        "created_at": _MADE,
        "egress_policy": "all",
    }


def _copied(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "state": "starting",
        "source": "web",
        "ssh": f"ssh {name}.exe.xyz",
        "ssh_host": f"{name}.exe.xyz",
        "https_url": f"https://{name}.exe.xyz",
        "tags": [TAG],
        "created_at": _MADE,
        "egress_policy": "all",
        "elapsed": 0.39,
    }


def _shared() -> dict[str, Any]:
    return {
        "status": "invited",
        "vm_name": "web",
        "shared_with": PERSON,
        "url": "https://web.exe.xyz",
        "message": "",
    }


def _resized() -> dict[str, Any]:
    return {"old_memory": _GIB, "new_memory": 2 * _GIB, "old_cpus": 1, "new_cpus": 2}
