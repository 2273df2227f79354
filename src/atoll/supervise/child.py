"""One process to keep running: what it is, what it may do and what it sees of our environment."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One process to keep running.

    `user` None stays root. `low_ports` gives the one capability to listen below 1024.
    """

    name: str
    argv: tuple[str, ...]
    user: str | None = None
    low_ports: bool = False
    env: dict[str, str] = field(default_factory=dict)


def privileges(child: Child) -> tuple[str, ...]:
    """The `setpriv` prefix that drops what the child does not need and ties its life to ours."""
    argv = ["setpriv", "--pdeathsig", "TERM"]
    if child.user is not None:
        caps = "-all,+net_bind_service" if child.low_ports else "-all"
        group = pwd.getpwnam(child.user).pw_gid
        argv += ["--reuid", child.user, "--regid", str(group), "--init-groups", "--no-new-privs"]
        argv += ["--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", caps]
    return (*argv, "--")


def inherited_environment() -> dict[str, str]:
    """What children may see of our environment: where programs and our own code are, no more."""
    keep = ("PATH", "LANG", "LC_ALL", "TZ", "ATOLL_CONFIG", "PYTHONPATH")
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    kept.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return {**kept, "PYTHONUNBUFFERED": "1"}


def this_command(*arguments: str) -> tuple[str, ...]:
    """The argv that runs `atoll …` with this very interpreter."""
    return (sys.executable, "-m", "atoll", *arguments)
