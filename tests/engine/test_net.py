"""Slots and rules on the real kernel: who reaches whom, and what is left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from atoll.base import proc
from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Conflict, Unavailable
from atoll.config import Network as Settings
from atoll.engine.net import kernel
from atoll.engine.net.dns import Resolver
from atoll.engine.net.network import Network
from atoll.engine.net.services import Services
from framework import net_world
from framework.net_world import (
    WORLD,
    Datagrams,
    Echo,
    Guest,
    ask,
    delivered,
    send,
    sh,
    within,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
REFUSED_SECONDS = 0.4  # a dropped packet shows as silence; on these links an answer takes 1 ms
BLOCK = IPv4Network("10.214.0.0/16")
SERVICES = Services(
    port=27781,
    edge=IPv4Address("10.214.0.1"),
    edge_port=28443,
    seen_port=8443,
    domain="x.localhost",
)


def settings(*, connections: int = 4096, rate: int = 500) -> Settings:
    return Settings(
        instance="tnet",
        block=BLOCK,
        connections_per_vm=connections,
        new_connections_per_second=rate,
    )


@contextlib.asynccontextmanager
async def running(given: Settings | None = None, *, ready: int = 0) -> AsyncIterator[Network]:
    network = Network(settings=given or settings(), services=SERVICES, slots_ready=ready)
    try:
        await network.setup()
        await network.reconcile(())
        yield network
    finally:
        await network.teardown()


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with running() as network:
        yield network


@pytest.fixture
def world() -> Iterator[str]:
    with net_world.outside() as name:
        yield name


@contextlib.asynccontextmanager
async def guest_of(network: Network, name: str) -> AsyncIterator[tuple[Guest, str]]:
    """A guest on a new slot, and its outer address."""
    slot = await network.acquire()
    guest = Guest(name, await network.open_tap(slot))
    try:
        yield guest, str(slot.address)
    finally:
        guest.close()
        await network.release(slot.number)


@contextlib.contextmanager
def echo(netns: str | None, port: int) -> Iterator[None]:
    server = Echo(netns, port)
    try:
        yield
    finally:
        server.close()


@contextlib.contextmanager
def datagrams(netns: str, port: int) -> Iterator[Datagrams]:
    receiver = Datagrams(netns, port)
    try:
        yield receiver
    finally:
        receiver.close()


async def test_two_vms_alike_inside_answer_at_their_own_addresses(network: Network) -> None:
    async with guest_of(network, "tguest-a") as (a, a_address):
        async with guest_of(network, "tguest-b") as (b, b_address):
            assert a_address != b_address
            with echo(a.netns, 22), echo(b.netns, 8000):
                assert ask(None, a_address, 22) == "10.214.1.1"  # the host's side of slot 0
                assert ask(None, b_address, 8000) == "10.214.1.5"
                assert ask(None, b_address, 22, seconds=REFUSED_SECONDS) is None
        assert network.traffic(0).tx_bytes > 0
        assert network.traffic(0).rx_bytes > 0


async def test_no_vm_reaches_another(network: Network) -> None:
    async with guest_of(network, "tguest-a") as (a, _), guest_of(network, "tguest-b") as (b, addr):
        with echo(b.netns, 22):
            assert ask(None, addr, 22) is not None
            assert ask(a.netns, addr, 22, seconds=REFUSED_SECONDS) is None


async def test_a_vm_reaches_out_as_the_host_and_is_not_reached(
    network: Network, world: str
) -> None:
    async with guest_of(network, "tguest-a") as (guest, address):
        with echo(world, 80), echo(guest.netns, 22):
            assert ask(guest.netns, WORLD, 80) == net_world.HOST_TO_WORLD
            assert ask(world, address, 22, seconds=REFUSED_SECONDS) is None


async def test_a_vm_reaches_nothing_of_the_host(network: Network, world: str) -> None:
    # The control below shows that the server answers at all of these addresses.
    targets = ["10.214.1.1", str(network.layout.service), net_world.HOST_TO_WORLD]
    async with guest_of(network, "tguest-a") as (guest, _):
        with echo(None, 2299):
            for target in targets:
                assert ask(None, target, 2299) is not None, target
                assert ask(guest.netns, target, 2299, seconds=REFUSED_SECONDS) is None, target
            assert ask(guest.netns, "10.0.2.2", 2299, seconds=REFUSED_SECONDS) is None


async def test_no_metadata_address(network: Network, world: str) -> None:
    async with guest_of(network, "tguest-a") as (guest, _):
        with echo(world, 80):
            assert ask(None, net_world.METADATA, 80) is not None
            assert ask(guest.netns, net_world.METADATA, 80, seconds=REFUSED_SECONDS) is None


async def test_frames_that_are_not_the_vms_are_dropped(network: Network, world: str) -> None:
    async with guest_of(network, "tguest-a") as (guest, _):
        with datagrams(world, 5000) as receiver:
            send(guest.netns, WORLD, 5000, b"as given")
            sh(f"ip -n {guest.netns} addr add 10.0.2.99/24 dev eth0")
            send(guest.netns, WORLD, 5000, b"other address", source="10.0.2.99")
            sh(f"ip -n {guest.netns} link set eth0 address 52:54:00:a7:01:02")
            send(guest.netns, WORLD, 5000, b"other mac", source="10.0.2.15")
            assert [data for _, data in receiver.received()] == [b"as given"]


async def test_arp_cannot_be_spoofed(network: Network) -> None:
    async with guest_of(network, "tguest-a") as (guest, address):
        sh(f"ip -n {guest.netns} addr add 10.0.2.99/24 dev eth0")
        with echo(guest.netns, 22):
            assert ask(None, address, 22) is not None
            inner = network.layout.slot(0).netns
            assert ask(inner, "10.0.2.99", 22, seconds=REFUSED_SECONDS) is None
            neighbours = sh(f"ip -n {inner} neigh show dev t0 nud reachable")
            assert "10.0.2.15" in neighbours
            assert "10.0.2.99" not in neighbours


async def test_root_rules_hold_without_the_inner_ones(network: Network, world: str) -> None:
    """As if the namespace had been taken over: slot 0 sends with the address of slot 1."""
    async with guest_of(network, "tguest-a"), guest_of(network, "tguest-b") as (_, other):
        inner = network.layout.slot(0).netns
        sh(f"ip netns exec {inner} nft flush ruleset; ip -n {inner} addr add {other}/32 dev u0")
        with datagrams(world, 5000) as receiver:
            send(inner, WORLD, 5000, b"own", source="10.214.1.2")
            send(inner, WORLD, 5000, b"spoofed", source=other)
            assert [data for _, data in receiver.received()] == [b"own"]


async def test_connections_of_one_vm_are_bounded(world: str) -> None:
    async with running(settings(connections=16)) as network:
        async with guest_of(network, "tguest-a") as (a, _), guest_of(network, "tguest-b") as (b, _):
            with datagrams(world, 5000) as receiver:
                send(a.netns, WORLD, 5000, b"x", flows=60)
                assert len(receiver.received()) == 16
                send(b.netns, WORLD, 5000, b"x", flows=5)
                assert len(receiver.received()) == 5, "one VM's limit is not another's"


async def test_the_root_table_counts_too(world: str) -> None:
    """Connections that end in the namespace's view but not in the host's still count."""
    async with running(settings(connections=16)) as network:
        async with guest_of(network, "tguest-a"):
            inner = network.layout.slot(0).netns
            sh(f"ip netns exec {inner} nft flush ruleset")
            with datagrams(world, 5000) as receiver:
                send(inner, WORLD, 5000, b"x", flows=60)
                assert len(receiver.received()) == 16


async def test_new_connections_per_second_are_bounded(world: str) -> None:
    async with running(settings(rate=5)) as network:
        async with guest_of(network, "tguest-a") as (guest, _):
            with datagrams(world, 5000) as receiver:
                began = time.monotonic()
                send(guest.netns, WORLD, 5000, b"x", flows=200)
                burst, added = 10, 5 * (time.monotonic() - began)
                assert burst <= len(receiver.received()) <= burst + added + 1


async def test_dns_is_reached_by_vms_and_by_nobody_else(
    network: Network, world: str, tmp_path: Path
) -> None:
    resolver = Resolver(
        address=network.layout.service,
        upstream=(),
        pid_file=tmp_path / "pid",
        records=SERVICES.records(),
    )
    service = str(network.layout.service)
    async with guest_of(network, "tguest-a") as (guest, _), TaskGroup() as group:
        task = group.create_task(resolver.run())

        async def up() -> int | None:
            return _query(None, service)

        assert await poll(up, seconds=5, what="dnsmasq") == NXDOMAIN
        assert _query(guest.netns, "10.0.2.3") == NXDOMAIN
        assert _query(guest.netns, service) == NXDOMAIN
        assert _query(guest.netns, "10.0.2.3", tcp=True) == NXDOMAIN
        assert _query(world, service) is None
        task.cancel()
    assert _query(None, service) is None, "dnsmasq ends with its owner"


async def test_a_resolver_left_by_a_killed_engine_is_replaced(
    network: Network, tmp_path: Path
) -> None:
    resolver = Resolver(address=network.layout.service, upstream=(), pid_file=tmp_path / "pid")
    left = await proc.run([*resolver._argv[:1], *resolver._argv[2:]], seconds=5)  # forks
    assert left.code == 0
    old = int((tmp_path / "pid").read_text())

    async def replaced() -> bool | None:
        text = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
        return True if text.strip() not in ("", str(old)) else None

    async with TaskGroup() as group:
        task = group.create_task(resolver.run())
        await poll(replaced, seconds=5, what="the new dnsmasq")
        assert _query(None, str(network.layout.service)) == NXDOMAIN
        assert resolver.starts == 1
        task.cancel()


async def test_a_vm_reaches_services_and_the_edge_as_itself(network: Network, world: str) -> None:
    """On the address it asks for names, and by nothing that it says: its peer's address is its slot's."""
    async with (
        guest_of(network, "tguest-a") as (guest, address),
        guest_of(network, "tguest-b") as (
            other,
            elsewhere,
        ),
    ):
        with echo(None, SERVICES.port), echo(None, SERVICES.edge_port), echo(None, 22):
            for port in (80, SERVICES.seen_port):
                assert ask(guest.netns, "10.0.2.3", port) == address
                assert ask(other.netns, "10.0.2.3", port) == elsewhere
            assert ask(guest.netns, "10.0.2.3", 22, seconds=REFUSED_SECONDS) is None
            assert (
                ask(guest.netns, str(network.layout.service), 22, seconds=REFUSED_SECONDS) is None
            )
            assert (
                ask(world, str(network.layout.service), SERVICES.port, seconds=REFUSED_SECONDS)
                is None
            )


async def test_a_closed_slot_passes_nothing_and_forgets_nothing(
    network: Network, world: str
) -> None:
    async with guest_of(network, "tguest-a") as (guest, address):
        with echo(guest.netns, 22), echo(world, 80):
            with socket.create_connection((address, 22), timeout=5) as client:
                assert client.recv(100)
                network.close(0)
                assert ask(None, address, 22, seconds=REFUSED_SECONDS) is None
                assert ask(guest.netns, WORLD, 80, seconds=REFUSED_SECONDS) is None
                network.open(0)
                assert ask(None, address, 22) is not None
                assert ask(guest.netns, WORLD, 80) is not None
                await delivered(client, b"still there")
    with pytest.raises(Unavailable):
        network.open(0)


@pytest.mark.parametrize("forked", [True, False])
async def test_connections_that_a_forked_memory_brings_along_are_reset(
    network: Network, world: str, forked: bool
) -> None:
    """On the slot that they were made on, so nothing else is in their way."""
    slot = await network.acquire()
    guest = Guest("tguest-a", await network.open_tap(slot))
    try:
        with echo(world, 80), echo(guest.netns, 22):
            out = within(guest.netns, lambda: socket.create_connection((WORLD, 80), timeout=5))
            into = socket.create_connection((str(slot.address), 22), timeout=5)
            with out, into:
                assert out.recv(100)
                assert into.recv(100)
                guest.halt()
                await network.release(slot.number)
                assert (await network.acquire()).number == slot.number
                guest.carry(await network.open_tap(slot, forked=forked))
                for connection in (out, into):
                    if forked:
                        connection.sendall(b"as if nothing had been")
                        with pytest.raises(ConnectionResetError):
                            connection.recv(100)
                    else:
                        await delivered(connection, b"of a VM that was paused")
            assert ask(guest.netns, WORLD, 80) is not None
            assert ask(None, str(slot.address), 22) is not None
    finally:
        guest.close()
        await network.release(slot.number)


async def test_slots_are_given_once_and_found_again(network: Network) -> None:
    slots = [await network.acquire({1}) for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 2, 3]
    assert network.existing() == {0, 2, 3}

    successor = Network(
        settings=settings(), services=SERVICES, slots_ready=0
    )  # the engine restarted
    await successor.setup()
    await successor.reconcile({2})
    assert successor.existing() == {2}
    assert (await successor.acquire()).number == 0


async def test_ensure_keeps_what_is_whole_and_rebuilds_what_is_not(network: Network) -> None:
    async with guest_of(network, "tguest-a") as (guest, address):
        with echo(guest.netns, 22), socket.create_connection((address, 22), timeout=5) as client:
            assert client.recv(100)
            await network.setup()
            await network.ensure(0)
            await delivered(client, b"still there")
            assert ask(None, address, 22) is not None

    async with guest_of(network, "tguest-a") as (guest, address):
        network.close(0)
        with echo(guest.netns, 22):
            await network.ensure(0)
            assert ask(None, address, 22, seconds=REFUSED_SECONDS) is None, "stays closed"
            network.open(0)
            assert ask(None, address, 22) is not None, "with the tap a QEMU holds"

    sh("ip netns add tnet-7")  # what a crash in the middle of `build` leaves
    slot = network.layout.slot(7)
    assert network.existing() == {7}
    assert not kernel.is_complete(slot)
    assert await network.ensure(7) == slot
    assert kernel.is_complete(slot)


async def test_ready_slots_are_taken_first_and_made_again() -> None:
    async with running(ready=2) as network, TaskGroup() as group:
        task = group.create_task(network.keep_ready())

        async def full() -> tuple[int, ...] | None:
            return network.ready if len(network.ready) == 2 else None

        ready = await poll(full, seconds=10, what="two ready slots")
        assert ready == (0, 1)
        assert all(kernel.is_complete(network.layout.slot(number)) for number in ready)
        first, second = await network.acquire(), await network.acquire()
        assert {first.number, second.number} == {0, 1}

        async def refilled() -> bool | None:
            return True if {2, 3} <= network.existing() else None

        await poll(refilled, seconds=10, what="two more")
        task.cancel()


async def test_a_tap_belongs_to_one_process_and_leaves_our_namespace_alone(
    network: Network,
) -> None:
    before = os.readlink("/proc/self/ns/net")
    slot = await network.acquire()
    tap = await network.open_tap(slot)
    assert not os.get_inheritable(tap)
    with pytest.raises(Conflict):
        await network.open_tap(slot)
    os.close(tap)
    os.close(await network.open_tap(slot))
    assert os.readlink("/proc/self/ns/net") == before
    await network.release(slot.number)
    with pytest.raises(Unavailable):
        await network.open_tap(slot)


async def test_other_tables_stay_and_ours_go() -> None:
    chain = "chain c { type filter hook forward priority 0; policy drop; accept; }"
    sh(f"nft 'table inet tother {{ {chain}; }}'")
    try:
        async with running() as network:
            assert any("inet tother c" in problem for problem in network.problems)
            await network.acquire()
            await network.setup()  # again
            assert "table inet tnet" in sh("nft list tables")
        assert network.existing() == set()
        assert "tnet" not in sh("nft list tables; ip -o link; ip netns")
        assert "table inet tother" in sh("nft list tables")
    finally:
        sh("nft delete table inet tother")


async def test_a_block_in_use_elsewhere_is_refused(world: str) -> None:
    sh(f"ip route add 10.214.7.0/24 via {WORLD}")
    with pytest.raises(Conflict, match=r"10\.214\.7\.0/24"):
        await Network(settings=settings(), services=SERVICES, slots_ready=0).setup()


NXDOMAIN = 3


def _query(netns: str | None, server: str, *, tcp: bool = False) -> int | None:
    """The response code for `x.int`, which the resolver answers itself; None without an answer."""
    question = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\1x\3int\0" + struct.pack(">2H", 1, 1)

    def ask_it() -> int | None:
        answer: bytes
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(REFUSED_SECONDS)
            try:
                client.connect((server, 53))
                client.sendall(struct.pack(">H", len(question)) + question if tcp else question)
                answer = client.recv(600)[2 if tcp else 0 :]
            except OSError:
                return None
        return int(answer[3]) & 0xF if answer[:2] == b"\0\7" else None

    return net_world.within(netns, ask_it)
