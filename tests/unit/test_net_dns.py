"""dnsmasq's arguments: bound to one address, nothing of the host's but its upstream servers."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from atoll.engine.net.dns import render

ADDRESS = IPv4Address("10.213.0.1")


def test_given_upstreams_are_the_only_ones() -> None:
    upstream = (IPv4Address("9.9.9.9"), IPv4Address("1.1.1.1"))
    argv = render(address=ADDRESS, upstream=upstream, pid_file=Path("/run/x.pid"))
    assert [word for word in argv if word.startswith("--server")] == [
        "--server=9.9.9.9",
        "--server=1.1.1.1",
    ]
    assert "--no-resolv" in argv
    assert not any("resolv-file" in word for word in argv)


def test_without_upstreams_the_hosts_are_followed() -> None:
    argv = render(address=ADDRESS, upstream=(), pid_file=Path("/run/x.pid"))
    assert "--resolv-file=/etc/resolv.conf" in argv
    assert "--no-resolv" not in argv


def test_it_is_bound_and_private() -> None:
    argv = render(address=ADDRESS, upstream=(), pid_file=Path("/run/x.pid"))
    for word in (
        "--listen-address=10.213.0.1",
        "--bind-interfaces",
        "--except-interface=lo",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--local=/int/",
        "--user=nobody",
        "--pid-file=/run/x.pid",
    ):
        assert word in argv
