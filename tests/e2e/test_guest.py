"""A VM is a computer: init system, packages, networks, limits and disk; and no way sideways."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.proc import Finished
from atoll.engine.net.address import Layout
from atoll.rpc.messages import ListVms, Vms
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

GIB = 1 << 30
# The address of the machine's own metadata service, in nearly every cloud.
METADATA = "169.254.169.254"
# A router of the user's own making: a namespace behind a veth pair, translated on its way out.
NETWORK = """
sudo ip netns add inner
sudo ip link add outside type veth peer name inside netns inner
sudo ip addr add 192.168.77.1/24 dev outside
sudo ip link set outside up
sudo ip -n inner addr add 192.168.77.2/24 dev inside
sudo ip -n inner link set inside up
sudo ip -n inner link set lo up
sudo ip -n inner route add default via 192.168.77.1
sudo ip link add toy type dummy
sudo ip addr add 192.0.2.1/32 dev toy
sudo ip link set toy up
sudo sysctl -qw net.ipv4.ip_forward=1
sudo nft 'table ip lab { chain out { type nat hook postrouting priority srcnat;
  ip saddr 192.168.77.0/24 oifname eth0 masquerade; }; }'
sudo systemd-run -q --unit inner-web -p NetworkNamespacePath=/run/netns/inner \
  python3 -m http.server -d /etc 8000
curl -sS --retry 60 --retry-delay 1 --retry-connrefused http://192.168.77.2:8000/hostname
ping -qc1 192.0.2.1 >/dev/null && echo dummy
sudo ip netns exec inner curl -sS -o /dev/null -w '%{http_code}\\n' http://deb.debian.org/
"""
LIMITED = """
cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
cat memory.max cpu.max pids.max
timeout 3 sh -c 'while :; do :; done'
awk '$1 == "nr_throttled" { print ($2 > 0) ? "throttled" : "free" }' cpu.stat
"""
# 80 MiB, with nowhere to swap to.
GREEDY = "python3 -c 'print(len(b\"x\" * (80 << 20)))'"
SWAP = """
sudo dd if=/dev/zero of=/swapfile bs=1M count=64 status=none
sudo chmod 600 /swapfile
sudo mkswap -q /swapfile
sudo swapon /swapfile
sudo swapon --show=NAME,SIZE --noheadings --bytes | tr -s ' '
sudo swapoff /swapfile
sudo rm /swapfile
"""
# What container engines and small Kubernetes distributions ask of a kernel, beyond what is built in.
MODULES = """
sudo modprobe -a overlay br_netfilter veth vxlan bridge ip_vs ip_vs_rr ip_vs_wrr ip_vs_sh nft_compat \
  xt_addrtype xt_comment xt_conntrack xt_MASQUERADE xt_multiport xt_statistic xt_mark wireguard tun
cat /sys/fs/cgroup/cgroup.controllers
stat -fc %T /sys/fs/cgroup
unshare --user --map-root-user --net --pid --fork id -u
"""
# One line per target: `open` when a TCP connection came about within two seconds.
PROBE = """
for target in {targets}; do
  nc -z -w 2 ${{target%:*}} ${{target#*:}} 2>/dev/null && echo "$target open" || echo "$target shut"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guests:
    """VM `lab`, and `neighbour` with a larger disk, at `address` for the host."""

    atoll: Atoll
    address: IPv4Address

    async def sh(
        self, script: str, *, vm: str = "lab", seconds: float = 120, check: bool = True
    ) -> Finished:
        """Run a script inside; the first command that fails ends it."""
        return await self.atoll.ssh(
            "bash -e", user=vm, stdin=script.encode(), seconds=seconds, check=check
        )

    async def lines(self, script: str, *, vm: str = "lab", seconds: float = 120) -> list[str]:
        """What the script printed."""
        return (await self.sh(script, vm=vm, seconds=seconds)).out.decode().splitlines()

    async def reach(self, *targets: str) -> list[str]:
        """Those of `targets` (`address:port`) that VM `lab` can connect to."""
        said = await self.lines(PROBE.format(targets=" ".join(targets)))
        assert len(said) == len(targets), said
        return [line.removesuffix(" open") for line in said if line.endswith(" open")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guests(atoll: Atoll) -> AsyncIterator[Guests]:
    """Both VMs, gone afterwards."""
    await atoll.ssh("new", "--name", "lab")
    before = await _addresses(atoll)
    await atoll.ssh("new", "--name", "neighbour", "--disk", "12G")
    (address,) = await _addresses(atoll) - before
    yield Guests(atoll=atoll, address=address)
    await atoll.ssh("rm", "lab", "neighbour")


async def _addresses(atoll: Atoll) -> set[IPv4Address]:
    vms = (await atoll.engine.call(ListVms(), Vms, seconds=20)).vms
    return {IPv4Address(vm.address) for vm in vms if vm.address}


async def test_the_init_system_has_nothing_to_complain_about(guests: Guests) -> None:
    said = await guests.lines(
        "systemctl is-system-running --wait; systemctl --failed --no-legend --plain;"
        " systemctl --user is-system-running --wait; cat /proc/1/comm; id -un; sudo id -un"
    )
    assert said == ["running", "running", "systemd", "atoll", "root"]


async def test_packages_install_from_the_archive(guests: Guests) -> None:
    script = "sudo apt-get -q update && sudo apt-get -qy install hello && hello"
    assert (await guests.lines(script, seconds=400))[-1] == "Hello, world!"


async def test_networks_of_ones_own(guests: Guests) -> None:
    assert await guests.lines(NETWORK) == ["lab", "dummy", "200"]


async def test_limits_are_set_and_hold(guests: Guests) -> None:
    run = "sudo systemd-run -q --wait --pipe -p MemoryMax=32M -p MemorySwapMax=0"
    said = await guests.lines(
        f"{run} -p CPUQuota=20% -p TasksMax=50 sh <<'END'\n{LIMITED}END"  # timeout ends with 124
    )
    assert said == [str(32 << 20), "20000 100000", "50", "throttled"]
    within = await guests.sh(f"{run.replace('32M', '128M')} {GREEDY}")
    assert within.out.decode().strip() == str(80 << 20)
    beyond = await guests.sh(f"{run} --unit greedy {GREEDY}", check=False)
    assert (beyond.code != 0, beyond.out) == (True, b"")
    log = await guests.lines("sudo journalctl -q -u greedy -o cat")
    assert any("oom-kill" in line for line in log), log


async def test_the_kernel_has_what_containers_need(guests: Guests) -> None:
    controllers, filesystem, inner_user = await guests.lines(MODULES)
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(controllers.split())
    assert (filesystem, inner_user) == ("cgroup2fs", "0")


async def test_swap_on_a_file(guests: Guests) -> None:
    (said,) = await guests.lines(SWAP)
    assert said == f"/swapfile {(64 << 20) - 4096}"


async def test_the_disk_is_as_large_as_asked(guests: Guests) -> None:
    size = "lsblk -bdno SIZE /dev/vda; df -B1 --output=size / | tail -n 1"
    for vm, asked in (("lab", 8 * GIB), ("neighbour", 12 * GIB)):
        device, filesystem = map(int, await guests.lines(size, vm=vm))
        assert device == asked
        assert filesystem > 0.95 * asked, vm


async def test_freed_blocks_return_to_the_pool(guests: Guests) -> None:
    before = await _used(guests)
    await guests.sh("head -c 160M /dev/urandom > big; sync")
    assert await _used(guests) - before > 0.15
    await guests.sh("rm big; sync; sudo fstrim /")

    async def given_back() -> bool | None:
        return await _used(guests) - before < 0.05 or None

    await poll(given_back, seconds=30, what="freed blocks in the pool", every=1)


async def _used(guests: Guests) -> float:
    """GiB of the pool that are the VM's alone."""
    stat = json.loads((await guests.atoll.ssh("stat", "lab", "--json")).out)
    return float(stat["points"][0]["disk_used_gb"])


async def test_the_way_out_is_open(guests: Guests) -> None:
    assert await guests.reach("deb.debian.org:80", "deb.debian.org:443", "10.0.2.3:53") == [
        "deb.debian.org:80",
        "deb.debian.org:443",
        "10.0.2.3:53",
    ]


async def test_no_way_to_a_neighbour(guests: Guests) -> None:
    await guests.sh(
        "sudo systemd-run -q -p SuccessExitStatus=143 --unit web python3 -m http.server 8000",
        vm="neighbour",
    )

    async def served() -> bool | None:
        try:
            _, writer = await asyncio.open_connection(str(guests.address), 8000)
        except OSError:
            return None
        writer.close()
        return True

    await poll(served, seconds=60, what="the neighbour's server, asked from the host", every=0.5)
    assert await guests.reach(f"{guests.address}:8000", f"{guests.address}:22") == []
    ping = await guests.sh(f"ping -qc1 -W2 {guests.address}", check=False)
    assert ping.code == 1


async def test_no_way_to_the_host(guests: Guests) -> None:
    config = guests.atoll.config
    layout = Layout(instance=config.network.instance, block=config.network.block)
    gateway = str(guests.address - 1)  # the host's side of the neighbour's path; ours is alike
    own = [str(layout.slot(number).gateway.ip) for number in range(3)]
    addresses = [_own_address(), "10.0.2.2", str(layout.service), gateway, *own]
    with _listener() as port:
        for address in (_own_address(), str(layout.service), gateway):  # the host itself can
            with socket.create_connection((address, port), timeout=5):
                pass
        targets = [f"{address}:{port}" for address in addresses]
        targets += [f"{_own_address()}:{config.ssh.port}", f"10.0.2.2:{config.ssh.port}"]
        targets += [f"{address}:{config.control.api_port}" for address in addresses[:3]]
        targets += [f"{METADATA}:80", f"{layout.service}:22"]
        assert await guests.reach(*targets) == []


def _own_address() -> str:
    """The host's address on its way out; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])


@contextmanager
def _listener() -> Iterator[int]:
    """A service of the host on every address it has; yields the port."""
    with socket.create_server(("0.0.0.0", 0), backlog=64) as server:
        yield int(server.getsockname()[1])
