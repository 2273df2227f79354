"""Snapshots of real guests: what was written is in them, and a rollback brings it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.base.proc import run
from atoll.engine.disk.records import read_pins
from framework.agreement import boot_id, vm_id
from framework.atoll import Atoll
from framework.log_writer import LOG_WRITER

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]
GIB = 1 << 30
WRITER = f"""
{LOG_WRITER}
systemd-run -q --user --unit writer python3 writer.py
until [ -s /dev/shm/acked ]; do sleep 0.1; done
"""
# -> lines, when every one is what the writer wrote.
COUNT = """
python3 - <<'END'
import hashlib
lines = open("log").read().split("\\n")[:-1]
good = all(line == f"{n} {hashlib.md5(str(n).encode()).hexdigest()}" for n, line in enumerate(lines))
print(len(lines) if good else "BAD")
END
"""


async def inside(atoll: Atoll, vm: str, script: str) -> str:
    return (await atoll.ssh("bash -s", user=vm, stdin=script.encode())).out.decode().strip()


async def sound(atoll: Atoll, vm: str, folder: Path) -> None:
    """The VM's only snapshot, read from outside: held still, it has no journal to play back."""
    holder = vm_id(atoll, vm)
    (pin,) = (pin for pin in read_pins(atoll.config.pool) if pin.holder == holder)
    layer = atoll.config.pool / "layers" / f"{pin.layer}.qcow2"
    raw = folder / f"{vm}.raw"
    try:
        await run(["qemu-img", "convert", "-U", "-O", "raw", str(layer), str(raw)], seconds=120)
        for options, good in (("-fp", (0, 1)), ("-fn", (0,))):
            done = await run(["e2fsck", options, str(raw)], seconds=120, check=False)
            assert done.code in good, f"{vm}: e2fsck {options}: {done.out.decode()}"
            assert b"recovering journal" not in done.out
    finally:
        raw.unlink(missing_ok=True)


async def test_there_and_back_again(atoll: Atoll, tmp_path: Path) -> None:
    await atoll.command("new --name there")
    await inside(atoll, "there", f"echo one > note; sync; {WRITER}")
    # Of these nothing asked for a sync: they are in the guest's memory alone.
    await inside(
        atoll, "there", "head -c 8M /dev/urandom > big; md5sum big > sum; echo dirty > unsynced"
    )
    acked = int(await inside(atoll, "there", "cat /dev/shm/acked"))
    boot = await boot_id(atoll, "there")
    taken = await atoll.command("snap there first")
    assert taken["consistency"] == "clean"
    assert await boot_id(atoll, "there") == boot
    await sound(atoll, "there", tmp_path)
    now = int(await inside(atoll, "there", "cat /dev/shm/acked"))
    await inside(atoll, "there", "echo two > note; rm big sum unsynced; sync")

    back = await atoll.command("rollback there first")
    assert (back["status"], back["kept_consistency"]) == ("running", "clean")
    assert await boot_id(atoll, "there") != boot
    assert await inside(
        atoll, "there", "cat note unsynced; md5sum --quiet -c sum && echo same"
    ) == ("one\ndirty\nsame")
    # Every line that was acknowledged before, and none after the answer.
    assert acked < int(await inside(atoll, "there", COUNT)) <= now + 1
    await inside(atoll, "there", "echo three > note; sync")
    first, before = (await atoll.command("snap ls there"))["snapshots"]
    assert (first["snapshot"], before["snapshot"]) == ("first", back["kept"])
    assert first["alone_bytes"] == 0  # the VM stands on it
    assert before["alone_bytes"] > 0

    await atoll.command(f"rollback there {back['kept']}")
    assert (
        await inside(atoll, "there", "cat note; ls | grep -cE 'big|sum|sync' || true") == "two\n0"
    )
    assert int(await inside(atoll, "there", COUNT)) > now
    errors = await atoll.ssh(
        "sudo dmesg --level err,crit,alert,emerg | grep -i ext4", user="there", check=False
    )
    assert errors.out == b""

    await atoll.command("cp there@first copied")
    assert await inside(atoll, "copied", "cat note unsynced; hostname") == "one\ndirty\ncopied"
    machines = [await inside(atoll, vm, "cat /etc/machine-id") for vm in ("there", "copied")]
    assert machines[0] != machines[1]
    await atoll.command("rm there copied")


async def test_a_rollback_is_of_the_disk_and_not_of_its_size(atoll: Atoll) -> None:
    await atoll.command("new --name small")
    await inside(atoll, "small", "echo kept > note")
    await atoll.command("snap small first")
    await atoll.command("resize small --disk 12")
    await inside(atoll, "small", "rm note; fallocate -l 9G big; sync")
    await atoll.command("rollback small first")
    sizes = "cat /sys/block/vda/size; df --output=size -B1 / | tail -n 1; cat note; test ! -e big"
    sectors, fs_bytes, note = (await inside(atoll, "small", sizes)).split()
    assert (int(sectors) * 512, int(fs_bytes) > 11 * GIB, note) == (12 * GIB, True, "kept")
    await atoll.command("rm small")


async def test_a_guest_that_does_not_answer_has_snapshots_all_the_same(atoll: Atoll) -> None:
    await atoll.command("new --name deaf")
    stop = "sudo systemctl kill -s STOP atoll-agent.service"
    await inside(atoll, "deaf", f"echo one > note; sync; {stop}")
    taken = await atoll.command("snap deaf first")
    assert taken["consistency"] == "crash-consistent"
    await inside(atoll, "deaf", "echo two > note; sync")
    back = await atoll.command("rollback deaf first")
    assert (back["status"], back["kept_consistency"]) == ("running", "crash-consistent")
    assert await inside(atoll, "deaf", "cat note") == "one"
    await atoll.command(f"rollback deaf {back['kept']}")
    assert await inside(atoll, "deaf", "cat note") == "two"
    await atoll.command("rm deaf")
