"""Snapshots of real guests: what was written is in them, and a rollback brings it back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from atoll.base.proc import run
from atoll.engine.disk.records import read_pins
from framework import net_world
from framework.agreement import boot_id, vm_id
from framework.atoll import Atoll
from framework.log_writer import LOG_WRITER
from framework.net_world import WORLD, Echo

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


# Holds a number in its memory and a connection open, and says how that ends.
HOLDER = f"""
cat > holder.py <<'END'
import os, socket, time
out = socket.create_connection(("{WORLD}", 80), timeout=5)
out.recv(100)
n = 0
while True:
    n += 1
    with open("/dev/shm/count.new", "w") as file:
        file.write(str(n))
    os.rename("/dev/shm/count.new", "/dev/shm/count")
    if os.path.exists("/dev/shm/speak"):
        try:
            out.sendall(b"is anybody there")
            out.recv(100)
            end = "answered"
        except OSError as error:
            end = type(error).__name__
        open("/dev/shm/end", "w").write(end)
        break
    time.sleep(0.05)
time.sleep(1e6)
END
systemd-run -q --user --unit holder python3 holder.py
until [ -s /dev/shm/count ]; do sleep 0.1; done
sudo mkdir -p /etc/atoll/after-fork.d
printf '#!/bin/sh\\nhostname >> /var/lib/forked\\n' | sudo tee /etc/atoll/after-fork.d/told > /dev/null
sudo chmod +x /etc/atoll/after-fork.d/told
sudo touch /var/lib/systemd/random-seed
"""
WHO = """
cat /etc/machine-id
sudo ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key
systemctl --user show -P MainPID holder
hostname
"""


async def test_the_very_processes_go_on_in_another_life(atoll: Atoll) -> None:
    """Each hazard of memory that is used twice: reference/field.md, 4.4."""
    world = net_world.outside()
    with world as netns:
        echo = Echo(netns, 80)
        try:
            await _two_lives(atoll)
        finally:
            echo.close()


async def _two_lives(atoll: Atoll) -> None:
    await atoll.command("new --name life")
    await inside(atoll, "life", f"{WRITER}{HOLDER}")
    before = (await inside(atoll, "life", WHO)).split("\n")
    boot, acked = (
        await boot_id(atoll, "life"),
        int(await inside(atoll, "life", "cat /dev/shm/acked")),
    )
    counted = int(await inside(atoll, "life", "cat /dev/shm/count"))
    taken = await atoll.command("snap life mid --live")
    assert (taken["live"], taken["consistency"]) == (True, "clean")
    await inside(atoll, "life", "echo later > note; rm -f log; sync; touch /dev/shm/speak")
    await inside(atoll, "life", "until [ -s /dev/shm/end ]; do sleep 0.1; done")
    await atoll.command("rename life lived")

    end = "touch /dev/shm/speak; until [ -s /dev/shm/end ]; do sleep 0.1; done; cat /dev/shm/end"
    drawn, kept = set(), ""
    for _ in range(2):
        back = await atoll.command("rollback lived mid")
        assert (back["status"], back["booted"], back["kept_live"]) == ("running", False, True)
        kept = kept or back["kept"]
        drawn.add(await inside(atoll, "lived", "head -c 16 /dev/urandom | md5sum"))
        seen = await inside(
            atoll,
            "lived",
            "date +%s; cat /dev/shm/count; echo; test ! -e note -a ! -e /dev/shm/end && echo as it was",
        )
        clock, count, note = seen.split("\n")
        assert abs(int(clock) - time.time()) < 3
        assert (int(count) > counted, note) == (True, "as it was")
        # It is who it is now: the name is today's, the rest is still this VM's.
        assert (await inside(atoll, "lived", WHO)).split("\n") == [*before[:-1], "lived"]
        assert await boot_id(atoll, "lived") == boot
        await inside(atoll, "lived", "until [ -s /var/lib/forked ]; do sleep 0.1; done")
        assert (
            await inside(
                atoll,
                "lived",
                "cat /var/lib/forked; ls /var/lib/systemd/random-seed 2>&1 | grep -c 'No such'",
            )
            == "lived\n1"
        )
        # The connection it remembers was another life's.
        assert await inside(atoll, "lived", end) == "ConnectionResetError"
        # The log goes on where it was, on the disk that it was on.
        assert int(await inside(atoll, "lived", COUNT)) > acked
    assert len(drawn) == 2
    errors = "sudo dmesg --level err,crit,alert,emerg | grep -i ext4"
    assert (await atoll.ssh(errors, user="lived", check=False)).out == b""

    # What the first rollback replaced had its memory, too.
    undone = await atoll.command(f"rollback lived {kept}")
    assert not undone["booted"]
    assert (
        await inside(atoll, "lived", "cat note /dev/shm/end") == "later\nTimeoutError"
    )  # an Echo speaks once

    await atoll.command("cp lived@mid twin")
    twin = (await inside(atoll, "twin", WHO)).split("\n")
    same = [one == other for one, other in zip(twin, before, strict=True)]
    assert same == [False, False, True, False]  # another VM, the same process
    assert (
        await inside(atoll, "twin", f"cat /dev/shm/end 2> /dev/null; {end}")
        == "ConnectionResetError"
    )
    booted = await atoll.command("rollback lived mid --cold")
    assert (booted["booted"], await boot_id(atoll, "lived") == boot) == (True, False)
    await atoll.command("rm lived twin")


async def test_memory_of_a_guest_that_does_not_say_who_it_is_is_not_let_out(atoll: Atoll) -> None:
    await atoll.command("new --name mute")
    await inside(
        atoll, "mute", "echo one > note; sync; sudo systemctl kill -s STOP atoll-agent.service"
    )
    boot = await boot_id(atoll, "mute")
    taken = await atoll.command("snap mute mid --live")
    assert (taken["live"], taken["consistency"]) == (True, "crash-consistent")
    back = await atoll.command("rollback mute mid")
    # Its memory was tried, and given up: it booted, and then it answered.
    assert (back["status"], back["booted"]) == ("running", True)
    assert (await inside(atoll, "mute", "cat note"), await boot_id(atoll, "mute") == boot) == (
        "one",
        False,
    )
    await atoll.command("rm mute")


async def test_a_machine_of_another_size_is_refused_and_nothing_is_lost(atoll: Atoll) -> None:
    await atoll.command("new --name grown")
    await atoll.command("snap grown mid --live")
    await atoll.command("resize grown --disk 12")
    back = await atoll.command("rollback grown mid")
    assert not back["booted"]
    sizes = (
        await inside(atoll, "grown", "cat /sys/block/vda/size; df --output=size -B1 / | tail -n 1")
    ).split()
    assert (int(sizes[0]) * 512, int(sizes[1]) > 11 * GIB) == (12 * GIB, True)
    await atoll.command("resize grown --memory 2")
    await atoll.command("restart grown")
    await inside(atoll, "grown", "echo now > note; sync")
    refused = await atoll.ssh("rollback grown mid", check=False)
    said = (refused.out + refused.err).decode()
    assert (refused.code, "memory 512M, now 2G" in said, "--cold" in said) == (75, True, True), said
    assert await inside(atoll, "grown", "cat note") == "now"
    assert (await atoll.command("rollback grown mid --cold"))["booted"]
    await atoll.command("rm grown")
