"""A gateway to try: the real door, a real OpenSSH sshd playing each VM, the real `ssh` client.

VMs live on 127.0.0.2 and up, all on one port, as real ones all answer on 22. The directory and the
language are small in-memory ones: what the door asks of the cloud, without the cloud.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh

from atoll.base.errors import Conflict, Invalid, NotFound
from atoll.base.proc import Finished, run
from atoll.commands.complete import Choice, Choices
from atoll.commands.reply import Reply
from atoll.domain.account import Account, Caller, Door, Route
from atoll.doors.ssh.admission import Limits
from atoll.doors.ssh.door import SshDoor
from atoll.doors.ssh.visitor import Places
from atoll.services.keys import Keys
from framework.clients import free_port, listening

DOMAIN = "atoll.localhost"
ANN = Account(id="acct-ann", email="ann@example.com")
ANNS = Caller(account=ANN, door=Door.SSH)
BOB = Account(id="acct-bob", email="bob@example.com")


@dataclass
class Town:
    """Directory and language: accounts by key, VMs by owner and name."""

    keys: dict[str, Account] = field(default_factory=dict)
    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    openings: list[tuple[str, ...]] = field(default_factory=list)
    refused: int = 0

    async def caller_for_key(self, key_line: str, *, source: str) -> Caller | None:
        account = self.keys.get(key_line)
        if account is None:
            return None
        fingerprint = asyncssh.import_public_key(key_line).get_fingerprint()
        return Caller(account=account, door=Door.SSH, key_fingerprint=fingerprint, source=source)

    async def route(self, caller: Caller, vm_name: str) -> Route:
        route = self.routes.get((caller.account.id, vm_name))
        if route is None:
            raise NotFound(f"There is no VM '{vm_name[:60]}'", hint="Try: ls")
        if vm_name in self.stopped:
            raise Conflict(f"VM '{vm_name}' is paused", hint=f"Try: resume {vm_name}")
        return replace(route, caller=caller)

    async def opened(
        self, caller: Caller, route: Route, *, how: str, result: str = "ok", port: int | None = None
    ) -> None:
        self.openings.append((caller.account.email, route.vm_name, how, result, str(port or "")))

    def key_refused(self) -> None:
        self.refused += 1

    async def execute(
        self,
        caller: Caller,
        line: str,
        *,
        stdin: bytes = b"",
        progress: Callable[[str], None] | None = None,
    ) -> Reply:
        self.lines.append(line)
        match shlex.split(line):
            case ["whoami", *flags]:
                data = {"email": caller.account.email}
                text = json.dumps(data) if "--json" in flags else caller.account.email
                return Reply(data=data, text=text)
            case ["count", "-"]:
                return Reply(text=str(len(stdin)))
            case ["slow"]:
                if progress:
                    progress("working")
                return Reply(text="done")
            case ["status", code]:
                return Reply(text=f"exit {code}", exit=int(code))
            case ["ssh", vm, *command]:
                route = await self.route(caller, vm)
                return Reply(run_in_vm=route, command=" ".join(command))
            case [verb, *_]:
                raise Invalid(f"There is no command {verb!r}", hint="Try: help")
            case _:
                return Reply()

    async def recent(self, caller: Caller) -> tuple[str, ...]:
        return ()

    async def add(self, caller: Caller, line: str) -> None:
        """Nothing is kept."""

    def changes(self, line: str) -> bool:
        return False

    async def choices(self, caller: Caller, line: str) -> Choices:
        is_vm = line.startswith("ssh ")
        words = ["whoami", "status", "slow", "ssh"]
        if is_vm:
            words = [vm for owner, vm in self.routes if owner == caller.account.id]
        last = line.rpartition(" ")[2]
        found = sorted(word for word in words if word.startswith(last))
        return Choices(
            start=len(line) - len(last),
            settled=0,
            quote="",
            items=tuple(Choice(word=word, shown=word, is_value=is_vm) for word in found),
            help="",
        )


@contextmanager
def sshd(folder: Path, address: str, port: int, keys: Keys, vm_id: str) -> Iterator[int]:
    """OpenSSH's server as a VM has it: our user CA, a certified host key. Yields its pid."""
    folder.mkdir(parents=True)
    key, public = keys.new_host_key()
    name = vm_id.removeprefix("vm-")
    _private(folder / "host_key", key)
    certificate = keys.host_certificate(public, [vm_id, name, f"{name}.{DOMAIN}"])
    (folder / "host_key-cert.pub").write_text(certificate + "\n")
    (folder / "user_ca.pub").write_text(keys.user_ca_public + "\n")
    (folder / "sshd_config").write_text(
        f"""
ListenAddress {address}:{port}
HostKey {folder}/host_key
HostCertificate {folder}/host_key-cert.pub
TrustedUserCAKeys {folder}/user_ca.pub
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AcceptEnv FLAVOUR LANG
AllowStreamLocalForwarding yes
X11Forwarding yes
MaxSessions 100
MaxStartups 200
UseDNS no
PidFile none
Subsystem sftp /usr/lib/openssh/sftp-server
"""
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    log = (folder / "log").open("wb")
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")],
        stderr=log,
        start_new_session=True,
    )
    try:
        yield server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        log.close()


@dataclass
class Ground:
    """Everything a test of the gateway uses."""

    folder: Path
    town: Town
    keys: Keys
    vm_port: int
    door: SshDoor
    sshd_pids: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    def ssh_line(self, *args: str) -> list[str]:
        return ["ssh", "-F", str(self.config), *args]

    async def ssh(self, *args: str, stdin: bytes | None = None, seconds: float = 30) -> Finished:
        """Run the OpenSSH client to its end."""
        return await self.tool("ssh", *args, stdin=stdin, seconds=seconds)

    async def tool(
        self, name: str, *args: str, stdin: bytes | None = None, seconds: float = 30
    ) -> Finished:
        """`ssh`, `scp` or `sftp` with the client configuration of this ground."""
        return await run(
            [name, "-F", str(self.config), *args], seconds=seconds, stdin=stdin, check=False
        )

    def new_key(self, name: str, account: Account | None) -> Path:
        """A client key; known to the town when it has an account."""
        path = self.folder / name
        key = asyncssh.generate_private_key("ssh-ed25519")
        _private(path, key.export_private_key("openssh").decode())
        path.with_suffix(".pub").write_bytes(key.export_public_key("openssh"))
        if account is not None:
            self.town.keys[" ".join(key.export_public_key().decode().split()[:2])] = account
        return path

    def config_for(self, key: str) -> Path:
        """A client configuration that offers another key only."""
        path = self.folder / f"ssh_config_{key}"
        path.write_text(
            self.config.read_text().replace(f"{self.folder}/ann\n", f"{self.folder}/{key}\n")
        )
        return path

    def write_config(self) -> None:
        host_key = asyncssh.read_private_key(self.keys.host_key_path).export_public_key().decode()
        (self.folder / "known_hosts").write_text(
            f"[127.0.0.1]:{self.door.port} {' '.join(host_key.split()[:2])}\n"
            f"@cert-authority * {self.keys.host_ca_public}\n"
        )
        self.config.write_text(
            f"""
Host gw
    HostName 127.0.0.1
    Port {self.door.port}
    User ann
Host *
    IdentityFile {self.folder}/ann
    IdentitiesOnly yes
    IdentityAgent none
    StrictHostKeyChecking yes
    UserKnownHostsFile {self.folder}/known_hosts
    GlobalKnownHostsFile none
"""
        )


@asynccontextmanager
async def ground(
    folder: Path,
    *,
    limits: Limits | None = None,
    vms: tuple[str, ...] = ("web",),
    listen: str = "127.0.0.1",
    places: Places | None = None,
) -> AsyncIterator[Ground]:
    """A door and one sshd per VM of ann's, serving while the body runs."""
    keys = Keys(folder / "keys")
    town = Town()
    vm_port = free_port("127.0.0.2")
    door = SshDoor(
        listen=listen,
        places=places,
        port=0,
        domain=DOMAIN,
        directory=town,
        language=town,
        history=town,
        keys=keys,
        vm_ssh_port=vm_port,
        limits=limits,
    )
    here = Ground(folder, town, keys, vm_port, door)
    here.new_key("ann", ANN)
    here.new_key("bob", BOB)
    here.new_key("nobody", None)
    with _sshds(here, vms):
        async with door.serving():
            here.write_config()
            for number in range(len(vms)):
                await listening(vm_port, f"127.0.0.{number + 2}", seconds=10)
            yield here


@contextmanager
def _sshds(here: Ground, vms: tuple[str, ...]) -> Iterator[None]:
    if not vms:
        yield
        return
    name, address = vms[-1], f"127.0.0.{len(vms) + 1}"
    vm_id = f"vm-{name}"
    with sshd(here.folder / vm_id, address, here.vm_port, here.keys, vm_id) as pid:
        here.sshd_pids[name] = pid
        authorized = here.folder / vm_id / "authorized_keys"
        authorized.write_bytes((here.folder / "ann.pub").read_bytes())
        here.town.routes[ANN.id, name] = Route(
            vm_id=vm_id,
            vm_name=name,
            address=address,
            login_user=getpass.getuser(),
            host_ca=here.keys.host_ca_public,
            caller=ANNS,
        )
        with _sshds(here, vms[:-1]):
            yield


def _private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
