"""The pool's small records: its id and layout, and the pins.

A record that cannot be read stops the pool from opening: it might be what keeps a layer.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from atoll.base import atomic
from atoll.base.errors import Conflict
from atoll.domain.layers import LayerId, Pin

LAYOUT = 1


def pool_id(root: Path) -> str:
    """The id in format.json, made on first use. Raises Conflict for another layout."""
    path = root / "format.json"
    try:
        facts = json.loads(path.read_text())
        layout, found = facts["layout"], str(facts["pool"])
    except FileNotFoundError:
        return _new_pool(root, path)
    except (ValueError, KeyError, TypeError) as error:
        raise Conflict(f"{path} is damaged: {error}") from error
    if layout != LAYOUT:
        raise Conflict(
            f"{path}: layout {layout!r} is not {LAYOUT}, the one this version knows",
            hint="Install the version that made it; nothing was changed",
        )
    return found


def pin_path(root: Path, name: str) -> Path:
    """Where the pin `name` is recorded."""
    return root / "pins" / f"{name}.json"


def write_pin(root: Path, pin: Pin) -> None:
    """Record a pin, durably."""
    facts = {"name": pin.name, "layer": pin.layer, "holder": pin.holder}
    atomic.write_json(pin_path(root, pin.name), facts)


def read_pins(root: Path) -> Iterator[Pin]:
    """Every pin. Raises Conflict naming a file that is none."""
    for path in (root / "pins").iterdir():
        try:
            facts = json.loads(path.read_text())
            pin = Pin(
                name=str(facts["name"]),
                layer=LayerId(str(facts["layer"])),
                holder=str(facts["holder"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Conflict(f"{path} is damaged: {error}", hint="Repair it, or move it") from error
        if path != pin_path(root, pin.name):
            raise Conflict(f"{path} holds the pin {pin.name}", hint="Give it that name")
        yield pin


def _new_pool(root: Path, path: Path) -> str:
    if any((root / "layers").iterdir()):
        raise Conflict(f"{path} is missing, though the pool has layers", hint="Restore it")
    made = f"pool-{secrets.token_hex(8)}"
    atomic.write_json(path, {"layout": LAYOUT, "pool": made})
    return made
