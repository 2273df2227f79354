"""A second Atoll beside the machine's own: real engine, control and HAProxy under the real supervisor.

It has its own names, addresses, ports and folders, and shares only built images (by content hash).
`Atoll.leaks` says what it left behind after `down`, as the kernel sees it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll.base import ids
from atoll.base.proc import Finished, run
from atoll.config import Config, load
from atoll.doors.local import socket_path
from atoll.host_setup.layout import log_dir, prepare
from atoll.host_setup.local import Local
from atoll.host_setup.people import Person, ensure_key
from atoll.host_setup.up import control_ready, engine_ready
from atoll.rpc.client import EngineClient
from atoll.rpc.messages import Image, Prepare
from atoll.supervise import status as supervision
from framework import clock
from framework.clients import free_port

SOURCE = Path(__file__).parents[2] / "src"
INSTALLED = Path("/opt/atoll/venv/bin/python")
MIB = 1 << 20
DOWN_S = 300.0
PREPARE_S = 1800.0
SSH_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Atoll:
    """One running test cloud."""

    folder: Path
    config: Config
    config_path: Path
    python: Path
    key: Path  # private SSH key of the owner
    local: Local
    engine: EngineClient
    environment: dict[str, str] = field(repr=False)

    async def command(self, line: str) -> dict[str, Any]:
        """A command's JSON data, run as the owner through the local door."""
        return await self.local.data(f"{line} --json")

    async def ssh(
        self,
        *arguments: str,
        user: str = "",
        stdin: bytes | None = None,
        check: bool = True,
        seconds: float = SSH_S,
    ) -> Finished:
        """The real OpenSSH client; `user` a VM's name, or the lobby."""
        target = f"{user}@127.0.0.1" if user else "127.0.0.1"
        argv = ["ssh", *self.ssh_options(), target, *arguments]
        return await run(argv, seconds=seconds, stdin=stdin, check=check)

    def ssh_options(self) -> list[str]:
        """For ssh and, with -P for the port, scp and sftp."""
        options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new",
                   f"UserKnownHostsFile={self.folder}/known_hosts", "ConnectTimeout=20"]  # fmt: skip
        flags = [word for option in options for word in ("-o", option)]
        return ["-F", "none", "-i", str(self.key), "-p", str(self.config.ssh.port), *flags]

    def url(self, vm: str = "", path: str = "/", *, scheme: str = "https") -> str:
        """An address of a VM at the edge, or of the cloud itself."""
        host = f"{vm}.{self.config.https.domain}" if vm else self.config.https.domain
        return f"{scheme}://{host}:{self.config.https.port}{path}"

    async def cli(self, *arguments: str, seconds: float = 60, check: bool = True) -> Finished:
        """`atoll …` of the host, as another process."""
        argv = [str(self.python), "-m", "atoll", *arguments]
        return await run(argv, seconds=seconds, check=check, env=self.environment, cwd="/")

    async def pid_of(self, child: str) -> int:
        """The pid of `engine`, `control` or `edge` now."""
        watch = supervision.status(self.config.paths.run).children[child]
        assert watch.pid is not None, f"{child} is not running"
        return watch.pid

    async def start(self) -> None:
        """Processes up and answering; a second call changes nothing."""
        if not supervision.status(self.config.paths.run).is_alive:
            supervision.start(
                [str(self.python), "-m", "atoll", "serve", "supervise"],
                log_path=log_dir(self.config) / "supervise.log",
                env=self.environment,
            )
        await engine_ready(self.engine)
        await control_ready(self.local)

    async def down(self) -> None:
        """`atoll down`."""
        await self.engine.close()
        await self.cli("down", seconds=DOWN_S)

    def logs(self, *, lines: int = 60) -> str:
        """The end of every log, for a failed test's report."""
        parts = []
        for path in sorted(log_dir(self.config).glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(parts)

    async def leaks(self) -> list[str]:
        """What is left of it in the kernel; empty after `down`."""
        return await leaks(self.config, self.folder)


@asynccontextmanager
async def running_atoll(
    *, prepare_image: bool = True, settable_clock: bool = False, **overrides: Any
) -> AsyncIterator[Atoll]:
    """A started test cloud with an owner; `overrides` are TOML tables merged into its settings.

    Always taken down; raises AssertionError when something of it is left in the kernel.
    """
    folder = Path(tempfile.mkdtemp(prefix="atoll-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    atoll = await _made(folder, overrides)
    if settable_clock:
        clock.install(folder, folder / "source")
    try:
        await atoll.start()
        line = " ".join(atoll.key.with_name(atoll.key.name + ".pub").read_text().split()[:2])
        await atoll.local.ensure_owner(email="owner@example.com", key=line, label="test")
        if prepare_image:
            await warm_image(atoll)
        yield atoll
    except BaseException:
        sys.stderr.write(atoll.logs() + "\n")
        raise
    finally:
        await atoll.down()
        left = await atoll.leaks()
        shutil.rmtree(folder)
    assert not left, f"left behind: {left}"


async def _made(folder: Path, overrides: dict[str, Any]) -> Atoll:
    source = folder / "source"  # a copy: control's user could not enter a checkout below /root
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    config_path = folder / "atoll.toml"
    config_path.write_text(toml(_merged(settings(folder), overrides)))
    config = load(config_path)
    await prepare(config)
    entry = pwd.getpwuid(os.getuid())
    home = folder / "home"
    home.mkdir()
    key = await ensure_key(
        Person(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, home=home)
    )
    return Atoll(
        folder=folder,
        config=config,
        config_path=config_path,
        python=await _interpreter(config.control.user),
        key=key.private,
        local=Local(socket=socket_path(config.paths.run)),
        engine=EngineClient(socket=config.engine_socket),
        environment={
            "PATH": os.environ["PATH"],
            "ATOLL_CONFIG": str(config_path),
            "PYTHONPATH": str(source),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


async def warm_image(atoll: Atoll) -> None:
    """The default image, built and warm, as `atoll up` asks for it."""
    vms = atoll.config.vms
    request = Prepare(op=ids.new("op"), image=vms.image, cpus=vms.cpus, memory_bytes=512 * MIB)
    await atoll.engine.call(request, Image, seconds=PREPARE_S)


def settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Nothing here meets the machine's own Atoll or another test's."""
    number = secrets.randbelow(160)
    ports = _free_ports(4)
    return {
        "paths": {
            "state": str(folder / "state"),
            "run": str(folder / "run"),
            "cache": "/var/cache/atoll",
        },
        "network": {
            "instance": f"t{secrets.token_hex(2)[:3]}",
            "block": str(ipaddress.IPv4Network((f"10.{130 + number % 80}.0.0", 16))),
        },
        "vms": {"cpus": 1, "memory": "512M", "disk": "8G"},
        "engine": {"vm_uid_base": 800_000 + number * 10_000, "reserve": "64M"},
        "ssh": {"listen": "127.0.0.1", "port": ports[0]},
        "https": {
            "listen": "127.0.0.1",
            "port": ports[1],
            "http_port": ports[2],
            "vm_ports": False,  # one redirect of ports 3000-9999 per machine
        },
        "control": {"api_port": ports[3]},
    }


def _merged(base: dict[str, dict[str, Any]], over: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {**base.get(name, {}), **over.get(name, {})} for name in {*base, *over}}


def toml(tables: dict[str, dict[str, Any]]) -> str:
    """JSON's strings, numbers, booleans and arrays are TOML's, too."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


async def _interpreter(user: str) -> Path:
    """This one if control's user may run it, else the installed environment's."""
    for python in (Path(sys.executable), INSTALLED):
        argv = ["setpriv", "--reuid", user, "--clear-groups", str(python), "-c", "import pydantic"]
        if (await run(argv, seconds=30, check=False)).code == 0:
            return python
    raise AssertionError(f"user {user} can run neither {sys.executable} nor {INSTALLED}; make test")


async def leaks(config: Config, folder: Path) -> list[str]:
    """What a cloud with this configuration, all of it below `folder`, left in the kernel."""
    instance = config.network.instance
    found = [*_processes(str(folder)), *_mounts(str(folder))]
    found += [f"cgroup {path}" for path in _cgroups(instance)]
    for what, argv in (
        ("namespace", ["ip", "netns", "list"]),
        ("interface", ["ip", "-o", "link"]),
        ("nft", ["nft", "list", "tables"]),
        ("loop", ["losetup", "-a"]),
    ):
        printed = (await run(argv, seconds=20)).out.decode()
        words = (line for line in printed.splitlines() if _is_ours(line, instance, folder))
        found += [f"{what} {line.strip()}" for line in words]
    ports = (config.ssh.port, config.https.port, config.https.http_port)
    return found + [f"port {port}" for port in ports if not _is_free(port)]


def _processes(folder: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (path.parent / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        ours = folder in line or f"ATOLL_CONFIG={folder}/" in environment
        if ours and int(path.parent.name) != os.getpid():
            found.append(f"process {path.parent.name} {line[:160]}")
    return found


def _mounts(folder: str) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [f"mount {line}" for line in lines if folder in line]


def _cgroups(instance: str) -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").glob("**/") if path.name == instance]


def _is_ours(line: str, instance: str, folder: Path) -> bool:
    """Names we give: `<instance>`, `<instance>-3`, `<instance>h3`, `<instance>0`, `<instance>edge`."""
    pattern = rf"(?<![a-z0-9]){instance}(-?[0-9]+|h[0-9]+|edge)?(?![a-z0-9-])"
    return str(folder) in line or re.search(pattern, line) is not None


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex(("127.0.0.1", port)) != 0
