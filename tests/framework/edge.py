"""A whole edge for tests: HAProxy started as in production, control's API, small web servers as VMs.

No QEMU. Needs root, HAProxy and curl.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.base import ids
from atoll.base.aio import TaskGroup, poll
from atoll.base.proc import run
from atoll.commands.reply import Reply
from atoll.config import Config, render
from atoll.domain.account import Account, Caller, Published
from atoll.domain.web import TOKEN_COOKIE
from atoll.doors.edge import decide, launch, tickets
from atoll.doors.edge.access_log import AccessLog
from atoll.doors.edge.asked import Questions
from atoll.doors.edge.decide import Maps
from atoll.doors.edge.files import TABLES, Files
from atoll.doors.edge.loop import EdgeSync
from atoll.doors.edge.runtime import Runtime
from atoll.doors.front.serve import serve
from atoll.services.answers import Answers
from atoll.services.certificates.shelf import Shelf
from atoll.services.changes import Changes
from atoll.services.keyring import KeyRing
from atoll.services.sessions import Sessions
from atoll.services.tokens import Tokens
from atoll.services.visits import Visits
from atoll.services.vm_tokens import VmTokens
from atoll.store import accounts
from atoll.store.engine import Store
from framework.clients import free_port
from framework.front import http, ways_upon
from framework.published import published

READY_S = 20.0
_START = (
    "import asyncio; from atoll.config import load; from atoll.doors.edge import launch;"
    "c = load(); asyncio.run(launch.prepare(c)); launch.become_haproxy(c)"
)


class Publisher:
    """Stands in for Cloud: VMs by name, and `changes`."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.vms: dict[str, Published] = {}

    async def published(self) -> tuple[Published, ...]:
        """What the edge asks."""
        return tuple(self.vms.values())

    async def named(self, name: str) -> Published | None:
        """What the sign-in pages ask."""
        return self.vms.get(name)

    def put(self, vm: Published) -> None:
        """Publish a VM, or publish it differently."""
        self.vms[vm.vm_name] = vm
        self.changes.bump()

    def change(self, name: str, **values: object) -> None:
        """Change some fields of one VM."""
        self.put(replace(self.vms[name], **values))  # type: ignore[arg-type]

    def remove(self, name: str) -> None:
        """Unpublish."""
        del self.vms[name]
        self.changes.bump()


class WhoAmI:
    """Stands in for Language: says who called and what."""

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """Echo."""
        return Reply(data={"email": caller.account.email, "line": line, "source": caller.source})

    def changes(self, line: str) -> bool:
        """Nothing does."""
        return False


@dataclass(slots=True)
class Upstream:
    """A web server in a VM's place. `release` lets a `/sse` stream go on."""

    name: str
    address: str
    port: int
    release: asyncio.Event

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head, reader, writer)
        writer.close()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = head.split()[1].decode()
        if path.startswith("/sse"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
            await writer.drain()
            await self.release.wait()
            writer.write(b"data: 2\n\n")
            await writer.drain()
            writer.close()
            return
        body = head
        if path.startswith("/upload"):
            body = (await _digest(head, reader)).encode()
        if path.startswith("/broken"):
            writer.close()
            return
        status = "503 Busy" if path.startswith("/busy") else "200 OK"
        fields = f"x-upstream: {self.name}\r\ncontent-length: {len(body)}"
        writer.write(
            f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode()
            + (b"" if head.startswith(b"HEAD ") else body)
        )
        await writer.drain()


async def _digest(head: bytes, reader: asyncio.StreamReader) -> str:
    fields = dict(
        line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line
    )
    left, digest = int(fields["content-length"]), hashlib.sha256()
    while left:
        data = await reader.read(min(left, 1 << 20))
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


@asynccontextmanager
async def upstream(name: str, address: str, port: int = 8000) -> AsyncIterator[Upstream]:
    """Serve while the body runs."""
    server = Upstream(name=name, address=address, port=port, release=asyncio.Event())
    listening = await asyncio.start_server(server.handle, address, port, reuse_address=True)
    try:
        yield server
    finally:
        server.release.set()
        listening.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got; header names in lower case, the last of a name wins."""

    status: int
    headers: dict[str, str]
    body: str


class Edge:
    """The running whole."""

    def __init__(self, *, config: Config, store: Store, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.files = Files(config.edge_run)
        self.cloud = Publisher()
        self.store = store
        self.keys = config.control_state / "keys"
        self.ring = KeyRing(self.keys / "token_keys.json")
        self.sessions = Sessions(
            store=store, changes=self.cloud.changes, keys=self.ring, session_seconds=3600
        )
        domain, changed = config.https.domain, self.cloud.changes.bump
        self.tokens = Tokens(store=store, domain=domain, changed=changed)
        self.vm_tokens = VmTokens(store=store, domain=domain, changed=changed)
        self.visits = Visits(store=store)
        self.misses: list[tuple[str, int]] = []  # VM and port, whenever nothing listened there
        self.access_log = AccessLog(path=self.files.visits, visits=self.visits, ports=self)
        self.questions = Questions(path=self.files.questions, domain=domain, tokens=self.vm_tokens)
        self.shelf = Shelf(config.certificates)
        self.proofs: Callable[[], Mapping[str, str]] = dict
        self.domains: dict[str, str] = {}  # custom domain -> VM name
        self.sync = self.new_sync()
        self.runtime = Runtime(self.files)
        self.http = http(
            config=config,
            language=WhoAmI(),
            sessions=self.sessions,
            callers=self.tokens,
            answers=Answers(store=store, key=os.urandom(32)),
            published=self.cloud.named,
            changes=self.cloud.changes,
            ca=self.keys / "ca.pem",
            ways=ways_upon(store, config),
            custom=self.served,
        )
        self.haproxy: asyncio.subprocess.Process | None = None

    def new_sync(self) -> EdgeSync:
        """An EdgeSync that knows nothing, as after a restart of control."""
        return EdgeSync(
            config=self.config,
            keys=self.keys,
            cloud=self.cloud,
            sessions=self.sessions,
            signing=self.ring,
            tokens=self.vm_tokens,
            changes=self.cloud.changes,
            keeping=self.shelf,
            naming=self,
            proofs=lambda: self.proofs(),
        )

    async def served(self) -> dict[str, str]:
        """Custom domains, as the edge asks for them."""
        return dict(self.domains)

    def missed(self, vm_name: str, port: int) -> None:
        """Kept for tests to see."""
        self.misses.append((vm_name, port))

    @property
    def port(self) -> int:
        """HTTPS."""
        return self.config.https.port

    def host(self, name: str) -> str:
        """`<name>.<domain>`, or the domain."""
        domain = self.config.https.domain
        return f"{name}.{domain}" if name else domain

    def url(self, name: str, path: str = "/", port: int | None = None) -> str:
        """A URL at a VM, or at the cloud's own host."""
        return f"https://{self.host(name)}:{port or self.port}{path}"

    async def account(self, email: str) -> Account:
        """A new account."""
        account = Account(id=ids.new("acct"), email=email)
        async with self.store.begin() as tx:
            await accounts.add(tx, account, now=0.0)
        return account

    def publish(
        self, name: str, address: str | None, owner: Account, *, is_public: bool = False
    ) -> None:
        """A VM of this owner on port 8000, private if nothing else is said."""
        self.cloud.put(published(name, address, (owner.id,), is_public=is_public))

    def use(self, ring: KeyRing) -> None:
        """Sign and verify with other keys."""
        self.ring = self.sessions._keys = self.sync._signing = ring
        self.cloud.changes.bump()

    async def token(self, account: Account, name: str) -> str:
        """A `Cookie` header value that opens a VM."""
        session_id = await self.sessions.new_session(account.id)
        token = self.sessions.mint(host=self.host(name), account=account, session_id=session_id)
        return f"{TOKEN_COOKIE}={token}"

    async def curl(
        self, url: str, *arguments: str, accept: str = "*/*", seconds: int = 20
    ) -> Answer:
        """One request; redirects are not followed."""
        argv = [
            "curl",
            "-sS",
            "-i",
            "--cacert",
            str(self.keys / "ca.pem"),
            "--max-time",
            str(seconds),
        ]
        argv += ["--connect-to", "::127.0.0.1:", "-H", f"Accept: {accept}", *arguments, url]
        return parse((await run(argv, seconds=seconds + 10)).out)

    async def page(self, url: str, *arguments: str) -> Answer:
        """One request as a browser makes it."""
        return await self.curl(url, *arguments, accept="text/html,application/xhtml+xml")

    async def shown(self) -> Maps:
        """What HAProxy has now."""
        held = {}
        for table in TABLES:
            held[table], twice = await self.runtime.table(self.files.map(table))
            assert not twice
        return Maps(**held)

    async def wanted(self) -> Maps:
        """What it should have."""
        return decide.maps(
            await self.cloud.published(),
            await self.sessions.revoked(),
            domain=self.config.https.domain,
            block=self.config.network.block,
            keys=self.ring.table(),
            tokens=tickets.table(await self.vm_tokens.good(), domain=self.config.https.domain),
        )

    async def agreed(self) -> None:
        """Wait until HAProxy and the files have what they should."""

        async def check() -> bool | None:
            with contextlib.suppress(Exception):
                wanted = await self.wanted()
                return (await self.shown() == wanted and self.on_disk() == wanted) or None
            return None

        await poll(check, seconds=READY_S, what="HAProxy agreeing with the store")

    def on_disk(self) -> Maps:
        """The map files."""
        held = {}
        for table in TABLES:
            lines = self.files.map(table).read_text().splitlines()
            held[table] = dict(line.split(" ", 1) for line in lines)
        return Maps(**held)

    async def start_haproxy(self) -> None:
        """As `atoll serve edge` does."""
        log = (self.folder / "haproxy.log").open("ab")
        self.haproxy = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _START, stdout=log, stderr=log,
            env={**os.environ, "ATOLL_CONFIG": str(self.folder / "atoll.toml"),
                 "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        log.close()

    async def kill_haproxy(self) -> None:
        """SIGKILL, and wait."""
        if self.haproxy is not None and self.haproxy.returncode is None:
            self.haproxy.send_signal(signal.SIGKILL)
            await self.haproxy.wait()


def parse(raw: bytes) -> Answer:
    """The last answer in curl's `-i` output (100 Continue comes before)."""
    while True:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        if status >= 200:
            break
        raw = body
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Answer(status, {k.lower(): v for k, v in headers.items()}, body.decode("latin-1"))


@asynccontextmanager
async def running_edge(**https: object) -> AsyncIterator[Edge]:
    """HAProxy, control's API and the loop between them, on free ports, with these settings of HTTPS."""
    # Not pytest's tmp_path: HAProxy runs as its own user and must get there.
    folder = Path(tempfile.mkdtemp(prefix="atoll-edge-"))
    folder.chmod(0o755)
    config = Config.model_validate(
        {
            "paths": {name: folder / name for name in ("state", "run", "cache")},
            "network": {"instance": "edgetest", "block": "127.0.1.0/24"},
            "https": {
                "port": free_port("0.0.0.0"), "http_port": free_port("0.0.0.0"),
                "vm_port_first": 23000, "vm_port_last": 23999, **https,
            },
            "control": {"api_port": free_port("0.0.0.0"), "user": "nobody"},
        }
    )  # fmt: skip
    (folder / "atoll.toml").write_text(render(config))
    keys = config.control_state / "keys"
    keys.mkdir(parents=True)
    store = Store(f"sqlite+aiosqlite:///{folder / 'atoll.db'}")
    await store.migrate()
    edge = Edge(config=config, store=store, folder=folder)
    try:
        await edge.start_haproxy()
        await edge.sync.prepare()
        async with edge.questions.serving(), edge.access_log.serving(), TaskGroup() as group:
            jobs = [
                group.create_task(serve(edge.http.app, port=config.control.api_port)),
                group.create_task(edge.sync.run()),
            ]
            await edge.agreed()
            try:
                yield edge
            finally:
                for job in jobs:
                    job.cancel()
    except BaseException:
        sys.stderr.write((folder / "haproxy.log").read_text()[-4000:])
        raise
    finally:
        await edge.kill_haproxy()
        await launch.withdraw(config)
        await store.close()
        shutil.rmtree(folder)
