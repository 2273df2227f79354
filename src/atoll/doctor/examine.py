"""All checks together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from atoll.base.errors import AtollError
from atoll.config import Config
from atoll.doctor import certificates, control, machine, mail, names, running
from atoll.doctor.finding import Finding, missing, ok
from atoll.doors.local import socket_path


async def examine(
    config: Config, config_path: Path, problem: AtollError | None, processes: Mapping[str, str]
) -> list[Finding]:
    """`problem` is why the configuration could not be read; the defaults are examined then."""
    first = (
        ok("config", str(config_path))
        if problem is None
        else missing("config", problem.message, problem.hint or f"edit {config_path}")
    )
    is_running = any(fact.startswith("running") for fact in processes.values())
    return [
        first,
        *await machine.examine(config, is_running=is_running),
        *await running.examine(config, processes),
        *await control.examine(socket_path(config.paths.run)),
        await asyncio.to_thread(mail.examine, config),
        await asyncio.to_thread(certificates.examine, config),
        *await names.examine(config),
    ]
