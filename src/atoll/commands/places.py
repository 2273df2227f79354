"""What `share` verbs are given: a receiver, a port and a path of a VM, and how long it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from atoll.base.errors import Invalid
from atoll.commands.context import Context
from atoll.commands.registry import flag, whole_number
from atoll.domain.sharing import DEFAULT_PORT, PATH_CHARS, WHOLE, Place, is_plain

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LASTS = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
MOST_S = 5 * 366 * 86400  # longer is for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Flags that say what of a VM is meant."""

    port: int | None = flag(
        "--port",
        "this port inside in place of the VM's own",
        value="PORT",
        convert=whole_number("--port"),
    )
    path: str = flag("--path", "only what is below this path", default=WHOLE, value="/PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting(Where):
    """The same, and until when."""

    lasts: str = flag("--for", "how long: 30m, 2h, 7d or 4w; else for ever", default="", value="2h")
    until: str = flag(
        "--until", "the same as a time, like 2026-12-31T18:00Z", default="", value="TIME"
    )


def place(ctx: Context, args: Where) -> Place:
    """The port and path meant. Raises Invalid for what no web address can show."""
    return Place(port=_port(ctx, args.port), path=_path(args.path))


def only(ctx: Context, args: Where) -> Place | None:
    """What is meant of all that was opened; None, all of it, where no place is given. Raises Invalid."""
    found = place(ctx, args)
    return None if found == Place() else found


def _port(ctx: Context, port: int | None) -> int:
    https = ctx.cloud.config.https
    if port is None:
        return DEFAULT_PORT
    if not (https.vm_ports and https.vm_port_first <= port <= https.vm_port_last):
        span = f"{https.vm_port_first} to {https.vm_port_last}" if https.vm_ports else "none"
        raise Invalid(
            f"port {port} has no web address of its own; those that have: {span}",
            hint="Leave --port away for the VM's own port, see: share port",
        )
    return port


def _path(text: str) -> str:
    path = text.rstrip("/") or WHOLE
    if len(path) > PATH_CHARS or not is_plain(path):
        raise Invalid(
            f"--path {text[:60]!r} is no path that every server reads alike",
            hint="Try: --path /docs",
        )
    return path


def ends_at(ctx: Context, args: Lasting) -> float | None:
    """When it ends, in seconds since the epoch; None: never. Raises Invalid."""
    if args.lasts and args.until:
        raise Invalid("--for and --until say the same", hint="Give one of them")
    now = ctx.cloud.now()
    end = None
    if args.lasts:
        match = _LASTS.fullmatch(args.lasts)
        if match is None:
            raise Invalid(f"--for {args.lasts[:20]!r} is not a time", hint="Try: 30m, 2h, 7d or 4w")
        end = now + int(match[1]) * _SECONDS[match[2]]
    elif args.until:
        end = _time(args.until)
    if end is not None and not now < end <= now + MOST_S:
        raise Invalid("that is in the past, or more than five years away", hint="Try: --for 2h")
    return end


def _time(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise Invalid(
            f"--until {text[:40]!r} is not a time", hint="Try: --until 2026-12-31T18:00Z"
        ) from error
