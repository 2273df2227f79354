"""Which VM is meant when SNI, Host, :authority and the target of a request do not agree."""

from __future__ import annotations

import pytest

from atoll.domain.account import Account
from framework.edge import Edge
from framework.h2 import H2, get
from framework.raw import Got, Recorder, Wire, nothing_is_left_over

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


class TestNames:
    """Which VM is meant: SNI, Host, :authority and an absolute target."""

    async def _asks(self, edge: Edge, first: str, *hosts: str, sni: str = "open") -> Got | None:
        async with await Wire.open(edge, name=sni) as wire:
            lines = [first, *(f"Host: {host}" for host in hosts), "", ""]
            await wire.send("\r\n".join(lines).encode("latin-1"))
            return await wire.answer()

    async def test_sni_of_one_vm_opens_no_other(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder
    ) -> None:
        """The Host decides, as with a browser that joins connections (RFC 9113, 9.1.1)."""
        got = await self._asks(edge, "GET / HTTP/1.1", edge.host("web"), sni="open")
        assert got is not None
        assert got.status == 401
        got = await self._asks(edge, "GET / HTTP/1.1", edge.host("open"), sni="web")
        assert got is not None
        assert got.status == 200
        assert not web.raw

    @pytest.mark.parametrize(
        ("target", "host"),
        [
            ("https://web.atoll.localhost/", "open.atoll.localhost"),
            ("https://open.atoll.localhost/", "web.atoll.localhost"),
            ("http://web.atoll.localhost/", "open.atoll.localhost"),
            ("https://open.atoll.localhost@web.atoll.localhost/", "open.atoll.localhost"),
            ("https://web.atoll.localhost@open.atoll.localhost/", "open.atoll.localhost"),
            ("//web.atoll.localhost/", "open.atoll.localhost"),
            ("ftp://web.atoll.localhost/", "open.atoll.localhost"),
            ("https:///", "open.atoll.localhost"),
            ("https://", "open.atoll.localhost"),
            ("@web.atoll.localhost/", "open.atoll.localhost"),
            ("open.atoll.localhost:443", "web.atoll.localhost"),
        ],
    )
    async def test_absolute_targets(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder, target: str, host: str
    ) -> None:
        await self._asks(edge, f"GET {target} HTTP/1.1", host)
        assert not web.raw
        for request in open_vm.seen:
            assert request.values("host") == [b"open.atoll.localhost"]
            assert request.is_plain

    async def test_own_page_by_absolute_target(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        """No spelling of the sign-in paths gets to the VM."""
        host = edge.host("open")
        for target in (f"https://{host}/__atoll/auth?code=x", f"http://{host}/__atoll/auth"):
            got = await self._asks(edge, f"GET {target} HTTP/1.1", host)
            assert got is not None
            assert got.status in (400, 403, 404)

    @pytest.mark.parametrize(
        "host",
        [
            "",
            " ",
            "open.atoll.localhost.",
            "OPEN.ATOLL.LOCALHOST:",
            "open.atoll.localhost:0x50",
            "open.atoll.localhost:443:443",
            "open.atoll.localhost:-1",
            "open.atoll.localhost:999999",
            "open_atoll.localhost",
            "_open.atoll.localhost",
            "open%2eatoll.localhost",
            "%6fpen.atoll.localhost",
            "open.atoll.localhost%00",
            "open.atoll.localhost\0",
            "open.atoll.localhost/",
            "/open.atoll.localhost",
            "open.atoll.localhost?x",
            "open.atoll.localhost#x",
            "open.atoll.localhost\\x",
            "a@open.atoll.localhost",
            "open..atoll.localhost",
            ".open.atoll.localhost",
            "open.atoll.localhost, web.atoll.localhost",
            "open.atoll.localhost web.atoll.localhost",
            "open.atoll.localhost\tx",
            "127.0.1.2",
            "127.0.1.2:8000",
            "[::ffff:127.0.1.2]",
            "2130706689",
            "localhost",
            "atoll.localhost.evil.example",
            "xopen.atoll.localhost",
            "open.atoll.localhost.atoll.localhost",
            "web.open.atoll.localhost",
            f"{'a' * 64}.atoll.localhost",
            f"{'a.' * 120}atoll.localhost",
            f"{'a' * 5000}.atoll.localhost",
            "öpen.atoll.localhost",
            "|web.atoll.localhost",
            "open.atoll.localhost|*",
            "*.atoll.localhost",
            "*",
            "-open.atoll.localhost",
            "0-open.atoll.localhost",
        ],
    )
    async def test_odd_hosts_are_nobodys(
        self, edge: Edge, ann: Account, web: Recorder, open_vm: Recorder, host: str
    ) -> None:
        got = await self._asks(edge, "GET / HTTP/1.1", host)
        assert got is None or got.status in (400, 401, 421)
        assert not web.raw
        assert not open_vm.raw
        fields = [(name, value) for name, value in get("x") if name != b":authority"]
        async with await H2.open(edge, name="open") as h2:
            await h2.request(1, [*fields, (b":authority", host.encode("latin-1"))])
            result = await h2.ended(1)
        # HAProxy takes an empty port and one `:443` off an :authority; it is then an ordinary name.
        ordinary = {b"open.atoll.localhost", b"open.atoll.localhost:443"}
        assert result.is_refused or host.endswith((":", ":443:443"))
        assert {value.lower() for seen in open_vm.seen for value in seen.values("host")} <= ordinary

    async def test_capitals_are_the_same_name(
        self, edge: Edge, ann: Account, open_vm: Recorder
    ) -> None:
        got = await self._asks(edge, "GET / HTTP/1.1", "OPEN.Atoll.LOCALHOST")
        assert got is not None
        assert got.status == 200

    @pytest.mark.parametrize("hosts", [(), ("open.atoll.localhost", "open.atoll.localhost")])
    async def test_exactly_one_host(
        self, edge: Edge, ann: Account, open_vm: Recorder, hosts: tuple[str, ...]
    ) -> None:
        for version in ("HTTP/1.1", "HTTP/1.0"):
            got = await self._asks(edge, f"GET / {version}", *hosts)
            assert got is None or got.status == 400 or len(set(hosts)) == 1
        await nothing_is_left_over(edge, open_vm)

    @pytest.mark.parametrize(
        ("authority", "host"),
        [
            (b"open.atoll.localhost", b"web.atoll.localhost"),
            (b"web.atoll.localhost", b"open.atoll.localhost"),
            (b"", b"web.atoll.localhost"),
        ],
    )
    async def test_authority_and_host_of_h2(
        self,
        edge: Edge,
        ann: Account,
        web: Recorder,
        open_vm: Recorder,
        authority: bytes,
        host: bytes,
    ) -> None:
        fields = [(name, value) for name, value in get("x") if name != b":authority"]
        fields += [(b":authority", authority)] if authority else []
        async with await H2.open(edge, name="open") as h2:
            await h2.request(1, [*fields, (b"host", host)])
            await h2.ended(1)
        assert not web.raw
        for request in open_vm.seen:
            assert request.values("host") == [b"open.atoll.localhost"]

    @pytest.mark.parametrize("port", ["23001", "65535", "22", "0", "00443", "8000", "1", "99999"])
    async def test_a_port_named_by_the_client_is_never_open(
        self, edge: Edge, ann: Account, open_vm: Recorder, port: str
    ) -> None:
        """Only the default port is; and no Host makes the edge a way to another port of the VM."""
        got = await self._asks(edge, "GET / HTTP/1.1", f"{edge.host('open')}:{port}")
        assert got is None or got.status in (200, 401, 400, 421)
        if got is not None and got.status == 200:
            assert not 23000 <= int(port) <= 23999
            assert got.body.startswith(b"open ")  # the default port's server
