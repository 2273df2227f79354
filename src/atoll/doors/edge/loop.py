"""Keeps HAProxy's maps equal to the store.

Invariants: the map files are written before the running HAProxy is told, so one that starts at any
moment reads the newest maps or is found by its new pid and compared; nothing is assumed about a
HAProxy that has not been compared since it started. While HAProxy is away the loop tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from atoll.base import log
from atoll.base.aio import poll
from atoll.base.errors import AtollError
from atoll.base.timeout import timeout
from atoll.config import Config
from atoll.domain.account import Published
from atoll.domain.vm_token import VmToken
from atoll.doors.edge import decide, tickets
from atoll.doors.edge.certs import Authority
from atoll.doors.edge.cutting import Cutting
from atoll.doors.edge.decide import ADMITTED, Maps, Table
from atoll.doors.edge.files import TABLES, Files, publish
from atoll.doors.edge.name_maps import NameMaps, Naming
from atoll.doors.edge.runtime import Runtime
from atoll.doors.edge.tls.sync import Keeping, TlsSync

LOOK_S = 2.0  # how soon a HAProxy that restarted behind our back is noticed
COMPARE_S = 60.0  # and how often one that did not is compared in full
RETRY_S = 0.5
FOLDERS_S = 60.0
INFORMED_S = 10.0  # without its engine, control says the truth after this: no VM is reachable

_log = log.get("edge")


class Publishing(Protocol):
    """Which VMs the edge serves now."""

    async def published(self) -> tuple[Published, ...]:
        """Every VM that has a name."""
        ...


class Revoking(Protocol):
    """Which sessions are over although their tokens are not."""

    async def revoked(self) -> dict[str, str]:
        """Session key -> account id."""
        ...


class Signing(Protocol):
    """Which keys sign tokens, or did and still verify them."""

    def table(self) -> dict[str, str]:
        """Key id -> key text."""
        ...


class Tokens(Protocol):
    """Which tokens open a VM's web address now."""

    async def good(self) -> tuple[VmToken, ...]:
        """All of them."""
        ...


class Versions(Protocol):
    """A counter that goes up when either of the two says something new."""

    version: int

    async def wait_beyond(self, version: int) -> int:
        """Return the version once it is greater."""
        ...

    def show(self, version: int) -> None:
        """HAProxy has what the stores said at this version."""


class EdgeSync:
    """Owns the map files and HAProxy's maps at run time, with helpers for certificates and names.

    `is_informed` tells whether the addresses of VMs are known yet: right after control's start they
    are not, and the maps HAProxy has are better than maps without addresses.
    """

    def __init__(
        self,
        *,
        config: Config,
        keys: Path,
        cloud: Publishing,
        sessions: Revoking,
        signing: Signing,
        tokens: Tokens,
        changes: Versions,
        keeping: Keeping,
        is_informed: Callable[[], bool] = lambda: True,
        naming: Naming | None = None,
        proofs: Callable[[], Mapping[str, str]] = dict,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._cloud = cloud
        self._sessions = sessions
        self._signing = signing
        self._tokens = tokens
        self._changes = changes
        self._is_informed = is_informed
        self._now = now
        self._files = Files(config.edge_run)
        self._runtime = Runtime(self._files)
        self._cutting = Cutting(self._files, self._runtime)
        self._tls = TlsSync(
            files=self._files,
            runtime=self._runtime,
            authority=Authority(keys, config.https.domain),
            keeping=keeping,
            now=now,
        )
        self._names = NameMaps(
            files=self._files,
            runtime=self._runtime,
            domain=config.https.domain,
            naming=naming,
            proofs=proofs,
        )
        self._shown: Maps | None = None  # what HAProxy `_pid` has; None: unknown
        self._pid = 0
        self._compared_at = 0.0
        self._told = 0  # version HAProxy has

    async def prepare(self) -> None:
        """Write what HAProxy needs to start, as far as it is not there: certificate, maps.

        Tries until it succeeds: control's other doors must not wait for the edge.
        """
        while True:
            try:
                await self._prepare()
            except (AtollError, OSError) as error:
                _log.warning("edge not prepared", reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _prepare(self) -> None:
        async def made() -> bool | None:
            return (self._files.maps.is_dir() and self._files.certificate.parent.is_dir()) or None

        await poll(
            made, seconds=FOLDERS_S, what=f"`atoll serve edge` making folders in {self._files.root}"
        )
        self._tls.write(is_forced=True)
        await self._names.write()
        for table in (*TABLES, ADMITTED):
            if not self._files.map(table).exists():
                publish(self._files.map(table), b"")  # nothing is open until `run` knows better

    async def run(self) -> None:
        """Follow the changes for ever; `prepare` must have run."""
        await self._informed()
        version = -1
        while True:
            version = await self._next(version)
            if not await self._pushed(version):
                version = -1
                await asyncio.sleep(RETRY_S)

    async def _informed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with timeout(INFORMED_S):
                while not self._is_informed():
                    await self._changes.wait_beyond(self._changes.version)

    async def _next(self, version: int) -> int:
        """Wait for a change, but not longer than until HAProxy should be looked at."""
        with contextlib.suppress(TimeoutError):
            async with timeout(LOOK_S):
                await self._changes.wait_beyond(version)
        return self._changes.version

    async def _pushed(self, version: int) -> bool:
        try:
            await self._push(version)
        except (AtollError, OSError) as error:
            if self._shown is not None:
                _log.warning("edge not told", reason=str(error))
            self._shown = None
            return False
        return True

    async def _push(self, version: int) -> None:
        """Bring files and HAProxy to what the store says; raises Unavailable when it is away."""
        is_new = version != self._told or self._shown is None
        wanted = await self._wanted() if is_new or self._is_compare_due() else None
        if wanted is not None:
            self._write(wanted)
            await self._names.write()
        self._tls.write()
        pid = await self._runtime.pid()
        if pid != self._pid or self._shown is None:
            self._names.forget()
            self._tls.forget()
        if pid != self._pid or self._shown is None or self._is_compare_due():
            await self._compare(wanted or await self._wanted(), pid)
        elif wanted is not None:
            await self._change(self._shown, wanted)
        await self._names.tell()
        await self._tls.tell()
        self._told = version
        self._changes.show(version)

    async def _compare(self, wanted: Maps, pid: int) -> None:
        """Read what HAProxy has and replace each map that differs."""
        held: dict[str, Table] = {}
        broken: set[str] = set()
        for table in TABLES:
            held[table], twice = await self._runtime.table(self._files.map(table))
            if twice:
                broken.add(table)
        old = Maps(**held)
        if broken:
            await self._replace_all(old, wanted)
        else:
            await self._change(old, wanted)
        await self._runtime.forget_admitted()  # a change may have come and its answer not
        if old != wanted or broken:
            _log.info("edge compared", pid=pid, hosts=len(wanted.hosts), broken=sorted(broken))
        self._shown, self._pid, self._compared_at = wanted, pid, self._now()

    async def _replace_all(self, old: Maps, new: Maps) -> None:
        """Whole maps; nobody is granted anything while hosts and grants differ."""
        self._shown = None
        self._cutting.owe(decide.cut(old, new))
        for table, entries in (
            (decide.GRANTS, {}),
            (decide.TOKENS, new.tokens),
            (decide.KEYS, new.keys),
            (decide.REVOKED, new.revoked),
            (decide.HOSTS, new.hosts),
            (decide.GRANTS, new.grants),
        ):
            await self._runtime.replace(self._files.map(table), entries)
        await self._cutting.settle()

    async def _change(self, old: Maps, new: Maps) -> None:
        """Tell HAProxy the difference, then end the streams of those who lost access."""
        self._cutting.owe(decide.cut(old, new))
        steps = decide.changes(old, new)
        self._shown = None  # unknown, should HAProxy stop listening half-way
        await self._runtime.apply({table: self._files.map(table) for table in TABLES}, steps)
        await self._cutting.settle()
        self._shown = new

    async def _wanted(self) -> Maps:
        return decide.maps(
            await self._cloud.published(),
            await self._sessions.revoked(),
            domain=self._config.https.domain,
            block=self._config.network.block,
            keys=self._signing.table(),
            tokens=tickets.table(await self._tokens.good(), domain=self._config.https.domain),
        )

    def _write(self, maps: Maps) -> None:
        for table, entries in maps.tables().items():
            path = self._files.map(table)
            text = "".join(f"{key} {value}\n" for key, value in sorted(entries.items())).encode()
            if not path.exists() or path.read_bytes() != text:
                publish(path, text)

    def _is_compare_due(self) -> bool:
        return abs(self._now() - self._compared_at) > COMPARE_S
