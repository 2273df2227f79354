"""An editor's day in a minute: one connection that stays, and everything at once inside of it.

The connection exchanges keys anew all the time, is busy, then silent for longer than its keep-alives
allow a dead peer to be, then busy again. A second one is idle from beginning to end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.base.aio import together
from atoll.base.proc import run
from framework.atoll import Atoll
from framework.blobs import blob, digest
from framework.clients import SHOUTER, Terminal, client, exists, free_port, listening, shout

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

VM = "desk"
BUSY_S = 15.0  # of laps, before the silence and after it
QUIET_S = 25
ANSWER_S = 60.0
# A peer that is silent for three of these is given up; QUIET_S is survived by answers only.
ALIVE = ("-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=3")
REKEY = ("-o", "RekeyLimit=1M")
LAP_MB = 2
SERVICES = f"""
cat > shouter.py <<'END'
{SHOUTER}END
cat > answers.py <<'END'
import hashlib, sys, time
for line in sys.stdin:
    time.sleep(float(line.split()[0]))
    print(hashlib.sha256(line.encode()).hexdigest(), flush=True)
END
mkdir web; head -c 2M /dev/urandom > web/page
systemd-run -q --user --unit shouter python3 shouter.py
systemd-run -q --user --unit web python3 -m http.server -b 127.0.0.1 -d web 7001
for port in 7000 7001; do
  for _ in $(seq 200); do nc -z 127.0.0.1 $port && break; sleep 0.1; done
done
sha256sum < web/page
"""
STREAM = "head -c 2M /dev/urandom > part; sha256sum < part >&2; cat part; exit 7"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(atoll: Atoll) -> AsyncIterator[str]:
    """The VM with its services; yields the checksum of the page it serves."""
    await atoll.ssh("new", "--name", VM)
    said = await atoll.ssh("bash -e", user=VM, stdin=SERVICES.encode())
    yield said.out.split()[0].decode()
    await atoll.ssh("rm", VM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The one connection, and what runs on it from beginning to end."""

    atoll: Atoll
    folder: Path
    page: str
    local: int
    socks: int
    server: asyncio.subprocess.Process
    terminal: Terminal

    def via(self, tool: str, *arguments: str) -> list[str]:
        """A client that goes by the connection, and fails without it."""
        options = self.atoll.ssh_options()
        if tool != "ssh":
            options = ["-P" if word == "-p" else word for word in options]
        ours = ["-o", f"ControlPath={self.folder}/ctl", "-o", "ProxyCommand=false"]
        return [tool, *options, *ours, *arguments, f"{VM}@127.0.0.1"]

    async def ask(self, quiet_s: int = 0) -> None:
        """A line to the process that stays; it answers with the checksum, after a while."""
        line = f"{quiet_s} {os.urandom(100_000).hex()}\n".encode()
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(line)
        async with asyncio.timeout(quiet_s + ANSWER_S):
            answer = await self.server.stdout.readline()
        assert answer.decode().strip() == hashlib.sha256(line).hexdigest()

    async def stream(self) -> None:
        """A command on a channel of its own: both streams and the exit code."""
        done = await run([*self.via("ssh"), STREAM], seconds=ANSWER_S, check=False)
        assert done.code == 7, done.err
        assert done.err.split()[0].decode() == hashlib.sha256(done.out).hexdigest()

    async def files(self) -> None:
        """There and back by sftp."""
        there, back, batch = (self.folder / name for name in ("there", "back", "batch"))
        sent = await asyncio.to_thread(blob, there, LAP_MB)
        batch.write_text(f"put {there} file\nget file {back}\nrm file\n")
        await run(self.via("sftp", "-b", str(batch)), seconds=ANSWER_S)
        assert digest(back) == sent

    async def forward(self) -> None:
        """By -L, larger than a window."""
        text = os.urandom(1_500_000).hex().encode()
        assert await shout(self.local, text) == text.upper()

    async def proxy(self) -> None:
        """By -D."""
        argv = ["curl", "-sS", "--socks5-hostname", f"127.0.0.1:{self.socks}",
                "http://127.0.0.1:7001/page"]  # fmt: skip
        done = await run(argv, seconds=ANSWER_S)
        assert hashlib.sha256(done.out).hexdigest() == self.page

    async def window(self, columns: int) -> None:
        """The terminal is dragged to another width, and the shell inside knows."""
        self.terminal.resize(columns=columns, rows=40)
        self.terminal.type("stty size\n")
        await self.terminal.until(b"40 %d\r\n" % columns)

    async def laps(self, first: int) -> int:
        """All of it at once, for a while; the number after the last lap."""
        clock = asyncio.get_running_loop().time
        began, number = clock(), first
        while clock() - began < BUSY_S or number < first + 2:
            await together(
                self.ask(),
                self.stream(),
                self.files(),
                self.forward(),
                self.proxy(),
                self.window(100 + number),
            )
            number += 1
        return number


async def test_everything_at_once_on_a_connection_that_stays(
    atoll: Atoll, page: str, tmp_path: Path
) -> None:
    log, control, target = tmp_path / "log", tmp_path / "ctl", f"{VM}@127.0.0.1"
    local, socks = free_port(), free_port()
    base, via = (["ssh", *atoll.ssh_options(), *more] for more in (ALIVE, ("-S", str(control))))
    keep = ["-v", "-E", str(log), "-N", "-M", "-S", str(control)]
    forwards = ["-L", f"{local}:127.0.0.1:7000", "-D", str(socks)]
    async with AsyncExitStack() as stack:
        beside = stack.enter_async_context
        idle = await beside(client([*base, target, "read word; echo got $word; exit 5"]))
        master = await beside(client([*base, *REKEY, *keep, *forwards, target]))
        await exists(control)
        await listening(local)
        server = await beside(client([*via, target, "python3 answers.py"]))
        terminal = stack.enter_context(Terminal([*via, "-tt", target], columns=90, rows=40))
        await terminal.until(rb"\$ ")
        desk = Desk(atoll=atoll, folder=tmp_path, page=page, local=local, socks=socks,
                    server=server, terminal=terminal)  # fmt: skip

        laps = await desk.laps(0)
        new_keys = log.read_text().count("SSH2_MSG_NEWKEYS received")
        assert new_keys > laps, "each lap is several times the limit after which keys are new"
        await desk.ask(QUIET_S)
        await desk.laps(laps)

        assert server.stdin is not None
        server.stdin.write_eof()
        assert await asyncio.wait_for(server.wait(), ANSWER_S) == 0
        terminal.type("exit 3\n")
        assert await terminal.ended() == 3
        assert (master.returncode, idle.returncode) == (None, None), log.read_text()[-2000:]
        out, _ = await asyncio.wait_for(idle.communicate(b"awake\n"), ANSWER_S)
        assert (idle.returncode, out) == (5, b"got awake\n")
