"""`ls` of 500 VMs over SSH, beside `ssh host true` to OpenSSH's sshd on loopback with the same key.

The 500 are rows that are put into the store: `ls` reads, sorts and prints them like any other, only
the engine knows none of them, so none has an address. Turn by turn, medians.

sshd and its client agree on sntrup761 by default, which costs more than X25519. So sshd is asked
both ways, and the goal is judged by the faster of them.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from bench.peer import sshd
from bench.report import Row

from atoll.base.proc import run
from framework.atoll import Atoll

VMS, ROUNDS = 500, 15
X25519 = ("-o", "KexAlgorithms=curve25519-sha256")


async def measure(atoll: Atoll) -> list[Row]:
    """One row; the rows in the store are taken out again."""
    _fill(atoll)
    try:
        with tempfile.TemporaryDirectory(dir=atoll.folder) as folder:
            return [await _compare(atoll, Path(folder))]
    finally:
        _empty(atoll)


async def _compare(atoll: Atoll, folder: Path) -> Row:
    public = atoll.key.with_name(atoll.key.name + ".pub").read_bytes()
    with sshd(folder, public) as port:
        bare = ["ssh", "-p", str(port), *_options(folder, atoll), "root@127.0.0.1", "true"]
        lobby = ["ssh", "-p", str(atoll.config.ssh.port), *_options(folder, atoll), "127.0.0.1"]
        ways = {
            "bare": bare,
            "x25519": [*bare[:-2], *X25519, *bare[-2:]],
            "ls": [*lobby, "ls"],
            "whoami": [*lobby, "whoami"],
        }
        listed = json.loads((await run([*lobby, "ls", "--json"], seconds=60)).out)["vms"]
        assert len(listed) >= VMS, len(listed)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(ROUNDS + 1):
            for way, argv in ways.items():
                began = time.perf_counter()
                said = (await run(argv, seconds=60)).out
                assert way != "ls" or said.count(b"row-") >= VMS, said[-200:]
                if number:
                    taken[way].append((time.perf_counter() - began) * 1000)
    bare_ms, same_ms, ls_ms, who_ms = (statistics.median(taken[way]) for way in ways)
    return Row(
        what=f"`ls` with {VMS} VMs over SSH, beside a bare `ssh host true` to OpenSSH's sshd",
        goal="≤ 1.3",
        measured=f"{ls_ms / bare_ms:.2f} ({ls_ms:.0f} ms; bare {bare_ms:.0f} ms); with X25519 asked "
        f"of sshd {ls_ms / same_ms:.2f} (bare {same_ms:.0f} ms)",
        met=ls_ms <= 1.3 * min(bare_ms, same_ms),
        runs=f"{ROUNDS} of each, in turns",
        remarks=f"`whoami` over the same door {who_ms:.0f} ms: the connection; the list itself "
        f"{ls_ms - who_ms:.0f} ms. The {VMS} are rows put into the store, unknown to the engine",
        raw={way: [round(ms, 1) for ms in times] for way, times in taken.items()},
    )


def _options(folder: Path, atoll: Atoll) -> list[str]:
    words = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new",
             f"UserKnownHostsFile={folder}/known_hosts"]  # fmt: skip
    return ["-F", "none", "-i", str(atoll.key), *(x for word in words for x in ("-o", word))]


def _fill(atoll: Atoll) -> None:
    with _store(atoll) as db:
        owner = db.execute("SELECT id FROM accounts").fetchone()[0]
        db.executemany(
            "INSERT INTO vms (id, owner, name, comment, image, cpus, memory_bytes, disk_bytes, phase,"
            " wanted, port, host_key, created_at, generation) VALUES"
            " (?, ?, ?, 'a row', 'debian', 1, 1073741824, 8589934592, 'live', 'stopped', 8000, '',"
            " ?, 0)",
            [(f"vm-row{n:09}", owner, f"row-{n}x", time.time()) for n in range(VMS)],
        )


def _empty(atoll: Atoll) -> None:
    with _store(atoll) as db:
        db.execute("DELETE FROM vms WHERE id LIKE 'vm-row%'")


def _store(atoll: Atoll) -> sqlite3.Connection:
    return sqlite3.connect(atoll.config.control_state / "atoll.db", timeout=30)
