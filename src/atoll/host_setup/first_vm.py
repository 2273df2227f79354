"""The first VM, which serves a page, and its live clone: the newcomer's proof that all works.

Done once per pool. A marker says so, hence VMs that the user deleted later stay deleted.
"""

from __future__ import annotations

import asyncio
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

from atoll.base import atomic
from atoll.base.errors import AtollError
from atoll.base.proc import run
from atoll.config import Config
from atoll.host_setup.local import Local
from atoll.host_setup.people import Key, temporary_key
from atoll.host_setup.progress import Progress

NAME, COPY = "hello", "hello-copy"
SSH_S = 60.0
PAGE_S = 30  # for the page's process inside the VM


async def ensure(config: Config, local: Local, key: Key, progress: Progress) -> None:
    """Make both VMs unless that was done before or the account has VMs already."""
    marker = config.paths.state / "first-vm-made"
    if await asyncio.to_thread(marker.exists):
        return
    names = {vm["vm_name"] for vm in (await local.data("ls --json")).get("vms", [])}
    if names - {NAME, COPY}:  # somebody uses this cloud already
        atomic.write(marker, b"")
        return
    if NAME not in names:
        await progress.step(f"new --name {NAME}", local.data(f"new --name {NAME} --json"))
    vm = await _find(local, NAME)
    await progress.step(f"ssh {NAME}: a web page on port 8000", _serve_page(config, local, key, vm))
    if COPY not in names:
        await progress.step(f"cp {NAME} {COPY}", local.data(f"cp {NAME} {COPY} --json"))
    atomic.write(marker, b"")


async def _find(local: Local, name: str) -> dict[str, Any]:
    vms = (await local.data(f"ls --json {name}")).get("vms", [])
    vm: dict[str, Any] = next(vm for vm in vms if vm["vm_name"] == name)
    return vm


async def _serve_page(config: Config, local: Local, key: Key, vm: dict[str, Any]) -> None:
    """Through the SSH gateway with a real client: the way every user takes."""
    if key.is_usable:
        await _install_page(config, local, key.private, vm)
        return
    spare = await temporary_key(config.paths.run)
    label = "atoll-setup"
    await local.execute(f"ssh-key add --name {label} {shlex.quote(spare.line)}")
    try:
        await _install_page(config, local, spare.private, vm)
    finally:
        await local.execute(f"ssh-key remove {label}")
        await asyncio.to_thread(_remove_pair, spare.private)


async def _install_page(config: Config, local: Local, private: Path, vm: dict[str, Any]) -> None:
    known_hosts = config.paths.run / "setup_known_hosts"
    line = (await local.public_keys())["gateway_key"]
    atomic.write(known_hosts, f"* {line}\n".encode())
    program = resources.files("atoll.host_setup").joinpath("page", "page.py").read_text()
    script = resources.files("atoll.host_setup").joinpath("page", "install.sh").read_text()
    try:
        await run(
            ["ssh", "-F", "none", "-i", str(private), "-p", str(config.ssh.port),
             "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
             "-o", f"UserKnownHostsFile={known_hosts}", "-o", "ConnectTimeout=20",
             str(vm["ssh_dest"]), f"sh -s -- {shlex.quote(program)} {PAGE_S}"],
            seconds=SSH_S + PAGE_S,
            stdin=script.encode(),
        )  # fmt: skip
    except AtollError as error:
        raise type(error)(
            f"VM {vm['vm_name']!r} runs, but its page could not be installed: {error.message}",
            hint=f"Try: {vm.get('ssh_command', 'ssh ' + str(vm['ssh_dest']))}",
        ) from error
    finally:
        atomic.remove(known_hosts)


def _remove_pair(private: Path) -> None:
    for path in (private, private.with_name(private.name + ".pub")):
        path.unlink(missing_ok=True)
