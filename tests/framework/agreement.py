"""What must be true of an Atoll at rest: store, engine, kernel, pool and edge tell one story.

`disagreements` looks at each from outside, with its own means: the store's file, the engine's RPC and
records, /proc and control groups, the layers' own headers, HAProxy's runtime socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.base.aio import poll
from atoll.base.errors import AtollError
from atoll.base.proc import run
from atoll.domain.layer_plans import plan_collect
from atoll.doors.edge.decide import GRANTS, HOSTS
from atoll.doors.edge.files import Files
from atoll.doors.edge.runtime import Runtime
from atoll.engine.disk.pool import Pool
from atoll.engine.launch import start_time
from atoll.engine.records import Record
from atoll.rpc.messages import ListVms, Vm, Vms, VmState
from framework.atoll import Atoll

SETTLE_S = 90.0
BACK_S = 60.0
UIDS_PER_ATOLL = 10_000  # distance of `vm_uid_base` between two test clouds
_BUSY = frozenset({"intent", "undoing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One VM in the store."""

    vm: str
    name: str | None
    phase: str


async def agreed(atoll: Atoll) -> None:
    """Wait until nothing disagrees. Raises AssertionError naming what still does."""
    found: list[str] = []
    end = asyncio.get_running_loop().time() + SETTLE_S
    while asyncio.get_running_loop().time() < end:
        try:
            found = await disagreements(atoll)
        except (AtollError, OSError, sqlite3.Error) as error:  # somebody is still starting
            found = [f"not to be seen yet: {error}"]
        if not found:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("no agreement:\n" + "\n".join(found))


async def disagreements(atoll: Atoll) -> list[str]:
    """Every fact that two parts tell differently; empty at rest."""
    rows = store_rows(atoll)
    vms = {vm.vm: vm for vm in (await atoll.engine.call(ListVms(), Vms, seconds=10)).vms}
    records = {record.vm: record for record in read_records(atoll)}
    return [
        *_store(atoll, rows, vms),
        *await _listed(atoll, rows, vms),
        *_records(vms, records),
        *await _kernel(atoll, records),
        *await asyncio.to_thread(_pool, atoll, set(records)),
        *await _edge(atoll, rows, vms),
        *await _doors(atoll),
    ]


def store_rows(atoll: Atoll) -> dict[str, Row]:
    """VMs of the store by id, read from its file."""
    query = "SELECT id, name, phase FROM vms"
    return {vm: Row(vm=vm, name=name, phase=phase) for vm, name, phase in _rows(atoll, query)}


def vm_id(atoll: Atoll, name: str) -> str:
    """The id of the VM called `name`."""
    (found,) = [row.vm for row in store_rows(atoll).values() if row.name == name]
    return found


def read_records(atoll: Atoll) -> list[Record]:
    """The engine's records as they are on the disk now."""
    return list(_read_records(atoll.config.pool / "vms"))


def record_of(atoll: Atoll, vm: str) -> Record:
    """One record."""
    path = atoll.config.pool / "vms" / vm / "vm.json"
    return Record.model_validate_json(path.read_bytes())


def _read_records(root: Path) -> Iterator[Record]:
    for folder in sorted(root.iterdir()):
        try:
            yield Record.model_validate_json((folder / "vm.json").read_bytes())
        except FileNotFoundError:
            continue  # not written yet, or just removed


def _rows(atoll: Atoll, query: str) -> list[tuple[Any, ...]]:
    path = atoll.config.control_state / "atoll.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _store(atoll: Atoll, rows: dict[str, Row], vms: dict[str, Vm]) -> Iterator[str]:
    for op, kind, vm, state in _rows(atoll, "SELECT id, kind, vm, state FROM operations"):
        if state in _BUSY:
            yield f"store: operation {op} ({kind} of {vm}) is {state}"
    for row in rows.values():
        if row.phase == "creating":
            yield f"store: {row.name} is still being made"
    for vm in rows.keys() - vms.keys():
        yield f"store has {vm}, engine has not"
    for vm in vms.keys() - rows.keys():
        yield f"engine has {vm}, store has not"


async def _listed(atoll: Atoll, rows: dict[str, Row], vms: dict[str, Vm]) -> list[str]:
    shown = {vm["vm_name"]: vm["status"] for vm in (await atoll.command("ls"))["vms"]}
    real = {
        row.name: vms[row.vm].state.value
        for row in rows.values()
        if row.phase == "live" and row.name and row.vm in vms
    }
    return [] if shown == real else [f"`ls` says {shown}, store and engine say {real}"]


def _records(vms: dict[str, Vm], records: dict[str, Record]) -> Iterator[str]:
    if set(vms) != set(records):
        yield f"records of {sorted(records)}, the engine lists {sorted(vms)}"
    for record in records.values():
        if record.intent is not None:
            yield f"record: {record.vm} has an open intent {record.intent.kind}"
        has_process = record.pid is not None and start_time(record.pid) == record.pid_started
        if has_process != (record.state is VmState.RUNNING):
            yield f"record: {record.vm} is {record.state}, its process {record.pid}: {has_process}"
        if (record.slot is not None) != has_process:
            yield f"record: {record.vm} has slot {record.slot}, process: {has_process}"


async def _kernel(atoll: Atoll, records: dict[str, Record]) -> list[str]:
    running = {r.vm: r for r in records.values() if r.pid is not None}
    pids = {r.pid for r in running.values()}
    found = []
    if (seen := _pids_of(atoll)) != pids:
        found.append(f"kernel: processes {sorted(seen)}, records {sorted(p for p in pids if p)}")
    if (groups := _groups(atoll)) != set(running):
        found.append(f"kernel: control groups {sorted(groups)}, running {sorted(running)}")
    slots = {r.slot for r in running.values()}
    instance, ahead = atoll.config.network.instance, atoll.config.engine.slots_ready
    names = (await run(["ip", "netns", "list"], seconds=10)).out.decode()
    for what, text, pattern in (
        ("namespaces", names, rf"^{instance}-(\d+)\b"),
        ("links", "\n".join(os.listdir("/sys/class/net")), rf"^{instance}h(\d+)$"),
    ):
        have = {int(number) for number in re.findall(pattern, text, re.MULTILINE)}
        if not slots <= have or len(have - slots) > ahead:
            found.append(f"kernel: {what} {sorted(have)}, slots in use {slots}, ahead {ahead}")
    folders = {path.name for path in (atoll.config.paths.run / "vm").glob("vm-*")}
    found += [f"run folder: {vm} of no VM" for vm in sorted(folders - set(records))]
    sockets = {path.parent.name for path in (atoll.config.paths.run / "vm").glob("*/qmp.sock")}
    if sockets != set(running):
        found.append(f"run folder: sockets of {sorted(sockets)}, running {sorted(running)}")
    return found


def _pids_of(atoll: Atoll) -> set[int]:
    """Processes that run as one of this Atoll's VM users."""
    low = atoll.config.engine.vm_uid_base
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        uid = int(text.partition("Uid:")[2].split()[0])
        if low - 1 <= uid < low + UIDS_PER_ATOLL - 1 and "State:\tZ" not in text:
            found.add(int(status.parent.name))
    return found


def _groups(atoll: Atoll) -> set[str]:
    instance = atoll.config.network.instance
    root = Path("/sys/fs/cgroup")
    parents = [path for path in (root / instance, *root.glob(f"*/{instance}")) if path.is_dir()]
    return {path.name for parent in parents for path in parent.iterdir() if path.is_dir()}


def _pool(atoll: Atoll, vms: set[str]) -> list[str]:
    """Opened as the next engine would: from hard links, as the running one holds the lock."""
    pool = atoll.config.pool
    found = [f"pool: half-made {path.name}" for path in pool.glob("*/.*.new")]
    twin = Path(tempfile.mkdtemp(prefix="twin-", dir=pool.parent))
    try:
        for name in ("base", "layers", "pins", "retired"):
            (twin / name).mkdir()
            for path in (pool / name).iterdir():
                if not path.name.startswith("."):
                    os.link(path, twin / name / path.name)
        shutil.copy(pool / "format.json", twin)
        with Pool.open(twin) as opened:
            found += [f"pool: {name} is damaged: {why}" for name, why in opened.damaged.items()]
            found += [f"pool: left over: {step}" for step in plan_collect(opened.graph)]
            pins = opened.graph.pins.values()
            kept = {(pin.name, pin.holder) for pin in pins if pin.name.startswith("snap-")}
            if (rows := set(_rows(atoll, "SELECT id, vm FROM snapshots"))) != kept:
                found.append(f"pool: snapshots {sorted(kept)}, the store has {sorted(rows)}")
            live = set(_rows(atoll, "SELECT id, vm FROM snapshots WHERE has_memory"))
            kept = {(path.name, path.parts[-3]) for path in pool.glob("vms/*/snapshots/*")}
            if kept != live:
                found.append(f"pool: memory of {sorted(kept)}, the store has {sorted(live)}")
            if (disks := {vm for vm in opened.graph.vms() if vm.startswith("vm-")}) != vms:
                found.append(f"pool: disks of {sorted(disks)}, records of {sorted(vms)}")
    finally:
        shutil.rmtree(twin)
    return found


async def _edge(atoll: Atoll, rows: dict[str, Row], vms: dict[str, Vm]) -> list[str]:
    domain = atoll.config.https.domain
    hosts = {}
    for row in rows.values():
        if row.phase == "live" and row.name and (vm := vms.get(row.vm)) is not None:
            hosts[f"{row.name}.{domain}"] = vm.address or "-"
    files = Files(atoll.config.edge_run)
    runtime = Runtime(files)
    found = []
    table, twice = await runtime.table(files.map(HOSTS))
    if twice or {host: value.split(":")[0] for host, value in table.items()} != hosts:
        found.append(f"edge: hosts {table}, VMs {hosts}")
    grants, _ = await runtime.table(files.map(GRANTS))
    if {key.partition("|")[0] for key in grants} != set(hosts):
        found.append(f"edge: grants {sorted(grants)}, VMs {sorted(hosts)}")
    written = dict(line.split(" ", 1) for line in files.map(HOSTS).read_text().splitlines() if line)
    if written != table:
        found.append(f"edge: the map's file says {written}, HAProxy {table}")
    return found


async def _doors(atoll: Atoll) -> list[str]:
    closed = []
    for port in (atoll.config.ssh.port, atoll.config.https.port):
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            closed.append(f"port {port}: {error}")
        else:
            writer.close()
    return closed


async def answer_or_error(atoll: Atoll, line: str) -> dict[str, Any] | AtollError:
    """A command's data, or why it failed; anything but an AtollError is a defect."""
    try:
        return await atoll.command(line)
    except AtollError as error:
        return error


async def statuses(atoll: Atoll) -> dict[str, str]:
    """`ls`: state by name."""
    return {vm["vm_name"]: vm["status"] for vm in (await atoll.command("ls"))["vms"]}


async def boot_id(atoll: Atoll, vm: str) -> str:
    """Of the running guest, through the gateway."""
    out = (await atoll.ssh("cat /proc/sys/kernel/random/boot_id", user=vm)).out
    return out.decode().strip()


async def new(atoll: Atoll, name: str) -> dict[str, Any]:
    """`new` through the lobby."""
    made: dict[str, Any] = json.loads((await atoll.ssh("new", "--name", name, "--json")).out)
    return made


async def replaced(atoll: Atoll, child: str, pid: int) -> None:
    """Wait until the supervisor runs another process than the killed `pid`."""

    async def other() -> bool | None:
        try:
            return (await atoll.pid_of(child)) != pid or None
        except (AssertionError, KeyError):
            return None  # the status is being written

    await poll(other, seconds=BACK_S, what=f"another {child}")
