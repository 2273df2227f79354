"""Whom HAProxy let in it lets in again without the rules: no more than they do, never after a change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from atoll.domain.account import Account
from atoll.domain.sharing import Opening
from atoll.domain.web import TOKEN_COOKIE
from atoll.doors.edge.decide import ADMITTED, EPOCH
from framework.edge import Edge, running_edge
from framework.published import private, public, published
from framework.raw import Got, Recorder, Wire, recorder

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
WEB, OPEN, ELSEWHERE = "127.0.1.1", "127.0.1.2", "127.0.1.3"
HIGH = 23001
DOMAIN = "shop.example.net"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge, recorder("high", WEB, HIGH):
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="web")
async def _web(edge: Edge) -> AsyncIterator[Recorder]:
    async with recorder("web", WEB) as web:
        yield web


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="open_vm")
async def _open_vm(edge: Edge) -> AsyncIterator[Recorder]:
    async with recorder("open", OPEN) as open_vm:
        yield open_vm


@pytest_asyncio.fixture(loop_scope="module", name="ann")
async def _ann(edge: Edge, web: Recorder, open_vm: Recorder) -> Account:
    """Owns `web` and `open`; `docs` is hers below a path, `soon` for an hour, `off` does not run."""
    ann = await edge.account(f"ann-{time.monotonic_ns()}@example.com")
    edge.domains = {DOMAIN: "web"}
    for vm in (private("web", WEB, ann), public("open", OPEN, ann), private("off", None, ann)):
        edge.cloud.put(vm)
    docs = Opening(account=ann.id, port=8000, path="/docs")
    soon = Opening(account=ann.id, port=8000, until=time.time() + 3600)
    for name, one in (("docs", docs), ("soon", soon)):
        edge.cloud.put(published(name, WEB))
        edge.cloud.change(name, openings=frozenset({one}))
    await edge.agreed()
    return ann


async def kept(edge: Edge) -> dict[str, str]:
    """Whom HAProxy would let in again, by host, token and epoch."""
    held, is_doubled = await edge.runtime.table(edge.files.map(ADMITTED))
    assert not is_doubled
    held.pop(EPOCH, "")
    return held


async def status(edge: Edge, name: str, *arguments: str, path: str = "/") -> int:
    """Of a GET."""
    return (await edge.curl(edge.url(name, path), "--path-as-is", *arguments)).status


def with_cookie(value: str) -> tuple[str, str]:
    """For curl."""
    return "-H", f"Cookie: {value}"


async def minted(edge: Edge, ann: Account, **claims: object) -> str:
    """A token by the edge's own key, as control would not make it."""
    ((kid, key), *_) = edge.ring.table().items()
    now = int(time.time())
    base = {"aud": edge.host("web"), "sub": ann.id, "email": ann.email, "sid": "5" * 32}
    token = jwt.encode(
        {"alg": "HS256", "kid": kid},
        {**base, "iat": now, "exp": now + 600, **claims},
        OctKey.import_key(key.encode()),
    )
    return f"{TOKEN_COOKIE}={token}"


class TestWho:
    """Who is kept: whoever the rules let in to the whole site for as long as the token lasts."""

    async def test_the_owner_and_whoever_opens_what_is_public(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        jar = await edge.token(ann, "web")
        assert await status(edge, "web", *with_cookie(jar)) == 200
        assert await status(edge, "open") == 200
        theirs, everybodys = sorted(await kept(edge), key=len, reverse=True)
        assert theirs.startswith(f"{edge.host('web')}:{edge.port}|{jar.partition('=')[2]}|")
        assert everybodys.startswith(f"{edge.host('open')}:{edge.port}||")
        web.clear()
        others = f"theme=dark; {jar}; a=b"
        assert await status(edge, "web", *with_cookie(others), path="/any%2f..%2f?x") == 200
        assert len(await kept(edge)) == 2
        (seen,) = web.seen
        assert seen.values("x-atoll-user-id") == [ann.id.encode()]
        assert seen.values("x-atoll-email") == [ann.email.encode()]
        assert seen.values("x-forwarded-for") == [b"127.0.0.1"]
        assert seen.values("cookie") == [b"theme=dark; a=b"]

    async def test_somebody_it_is_shared_with(self, edge: Edge, ann: Account) -> None:
        bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
        one = Opening(account=bob.id, port=8000)
        edge.cloud.change("web", openings=frozenset({one}))
        await edge.agreed()
        assert await status(edge, "web", *with_cookie(await edge.token(bob, "web"))) == 200
        assert len(await kept(edge)) == 1

    async def test_a_custom_domain(self, edge: Edge, ann: Account, web: Recorder) -> None:
        edge.cloud.put(public("web", WEB, ann))
        await edge.agreed()
        for count in (0, 1):
            assert len(await kept(edge)) == count
            answer = await edge.curl(f"https://{DOMAIN}:{edge.port}/", "-k")
            assert answer.headers["x-upstream"] == "web"

    @pytest.mark.parametrize(
        ("name", "arguments", "path", "expected"),
        [
            ("docs", (), "/docs/x", 200),
            ("soon", (), "/", 200),
            ("off", (), "/", 503),
            ("web", ("-X", "POST"), "/", 200),
            ("web", ("-d", "x"), "/", 200),
            ("web", ("-X", "OPTIONS"), "/", 200),
            ("web", ("-H", "Authorization: Bearer of-the-vm"), "/", 200),
            ("web", ("--http1.1", "-H", "Connection: upgrade", "-H", "Upgrade: x"), "/", 200),
            ("web", ("-H", "Content-Length: 0"), "/", 200),
            ("web", (), "/__atoll/", 404),
            ("web", (), "/.well-known/acme-challenge/x", 200),
            ("23001-web", (), "/", 200),
            ("web", ("-H", "Host: WEB.{domain}"), "/", 200),
            ("web", ("-H", "Host: web.{domain}:23001"), "/", 200),
            ("web", ("-H", "Host: web.{domain}:1"), "/", 200),
            ("web", ("-H", "Host: web.{domain}:00443"), "/", 200),
        ],
    )
    async def test_nobody_of_whom_it_is_not_true(
        self,
        edge: Edge,
        ann: Account,
        name: str,
        arguments: tuple[str, ...],
        path: str,
        expected: int,
    ) -> None:
        jar = await edge.token(ann, name)
        domain = edge.config.https.domain
        named = [argument.replace("{domain}", domain) for argument in arguments]
        assert await status(edge, name, *with_cookie(jar), *named, path=path) == expected
        assert await kept(edge) == {}

    @pytest.mark.parametrize("how", ["forged", "elsewhere", "over", "revoked", "two"])
    async def test_no_token_that_is_not_good(self, edge: Edge, ann: Account, how: str) -> None:
        """What is public they may open, and could fill the map with."""
        jar = await edge.token(ann, "open")
        if how == "forged":
            jar = jar[:-8] + ("a" * 8 if jar[-8:] != "a" * 8 else "b" * 8)
        elif how == "elsewhere":
            jar = await edge.token(ann, "web")
        elif how == "over":
            jar = await minted(edge, ann, aud=edge.host("open"), exp=int(time.time()) - 1)
        elif how == "revoked":
            await edge.sessions.revoke_account(ann.id)
            await edge.agreed()
        else:
            jar = f"{jar}; {TOKEN_COOKIE}=x"
        assert await status(edge, "open", *with_cookie(jar)) == 200
        assert await kept(edge) == {}

    async def test_no_key_of_ones_own_making(self, edge: Edge, ann: Account, web: Recorder) -> None:
        """Host, token and epoch are kept as one text; they cannot be cut at another place."""
        jar = await edge.token(ann, "web")
        assert await status(edge, "web", *with_cookie(jar)) == 200
        (key,) = await kept(edge)
        host, token, epoch = key.split("|")
        for named, value in (
            (f"{host}|{token[:20]}", token[20:]),
            (f"{host}|{token}|{epoch}", ""),
            (f"{host}|", f"{token}|{epoch}"),
            (f"{host}", f"{token}|{epoch}|"),
            (EPOCH, ""),
            (host.upper(), token + "x"),
        ):
            async with await Wire.open(edge) as wire:
                lines = f"Host: {named}\r\nCookie: {TOKEN_COOKIE}={value}\r\n\r\n"
                await wire.send(f"GET / HTTP/1.1\r\n{lines}".encode())
                got = await wire.answer()
            assert got is None or got.status in {400, 401, 421}, (named, got)
        assert list(await kept(edge)) == [key]


Change = Callable[[Edge, Account, str], Awaitable[None]]


async def _share_ends(edge: Edge, _ann: Account, _jar: str) -> None:
    edge.cloud.change("web", openings=frozenset())


async def _share_shrinks(edge: Edge, ann: Account, _jar: str) -> None:
    one = Opening(account=ann.id, port=8000, path="/docs")
    edge.cloud.change("web", openings=frozenset({one}))


async def _stops(edge: Edge, _ann: Account, _jar: str) -> None:
    edge.cloud.change("web", address=None)


async def _is_removed(edge: Edge, _ann: Account, _jar: str) -> None:
    edge.cloud.remove("web")


async def _signs_out(edge: Edge, ann: Account, _jar: str) -> None:
    await edge.sessions.revoke_account(ann.id)


async def _keys_are_revoked(edge: Edge, _ann: Account, _jar: str) -> None:
    edge.ring.rotate(revoke=True)
    edge.cloud.changes.bump()


class TestChanges:
    """Whatever control changes, everybody is looked at anew."""

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (_share_ends, 403),
            (_share_shrinks, 403),
            (_stops, 503),
            (_is_removed, 403),
            (_signs_out, 401),
            (_keys_are_revoked, 401),
        ],
    )
    async def test_what_ends_access_ends_this(
        self, edge: Edge, ann: Account, change: Change, expected: int
    ) -> None:
        jar = await edge.token(ann, "web")
        for _ in range(3):
            assert await status(edge, "web", *with_cookie(jar)) == 200
        assert len(await kept(edge)) == 1
        await change(edge, ann, jar)
        await edge.agreed()
        assert await status(edge, "web", *with_cookie(jar)) == expected
        assert await kept(edge) == {}

    async def test_what_was_public(self, edge: Edge, ann: Account) -> None:
        jar = await edge.token(ann, "open")
        for arguments in ((), with_cookie(jar)):
            assert await status(edge, "open", *arguments) == 200
        edge.cloud.change("open", openings=frozenset())
        await edge.agreed()
        assert await status(edge, "open") == 401
        assert await status(edge, "open", *with_cookie(jar)) == 403

    async def test_another_address_and_another_port(
        self, edge: Edge, ann: Account, open_vm: Recorder
    ) -> None:
        jar = await edge.token(ann, "web")
        said = []
        for change in ({}, {"address": OPEN}, {"address": WEB, "port": HIGH}):
            edge.cloud.change("web", **change)
            await edge.agreed()
            for _ in range(2):
                answer = await edge.curl(edge.url("web"), *with_cookie(jar))
                said.append(answer.headers["x-upstream"])
        assert said == ["web", "web", "open", "open", "high", "high"]

    async def test_a_domain_that_leads_elsewhere(self, edge: Edge, ann: Account) -> None:
        edge.cloud.put(public("web", WEB, ann))
        await edge.agreed()
        url = f"https://{DOMAIN}:{edge.port}/"
        for domains, expected in (
            ({DOMAIN: "web"}, "web"), ({DOMAIN: "open"}, "open"), ({}, None),
        ):  # fmt: skip
            edge.domains = dict(domains)
            edge.cloud.changes.bump()

            async def leads(wanted: str | None = expected) -> bool:
                return (await edge.curl(url, "-k")).headers.get("x-upstream") == wanted

            async with asyncio.timeout(10):
                while not await leads():
                    pass
            assert await leads()

    async def test_a_comparison_forgets_what_it_cannot_know(self, edge: Edge, ann: Account) -> None:
        """Control that dies between a change and its end leaves it to the next one, which compares."""
        jar = await edge.token(ann, "web")
        assert await status(edge, "web", *with_cookie(jar)) == 200
        grants = edge.files.map("grants")
        edge.cloud.vms["web"] = private("web", WEB)  # as if the loop had got this far
        for line in edge.on_disk().grants:
            if line.startswith(f"{edge.host('web')}|"):
                await edge.runtime.ask(f"del map {grants} {line}")
        assert await status(edge, "web", *with_cookie(jar)) == 200  # kept
        fresh = edge.new_sync()
        running = asyncio.create_task(fresh.run())
        try:
            async with asyncio.timeout(10):
                while await status(edge, "web", *with_cookie(jar)) == 200:
                    pass
        finally:
            running.cancel()
        assert await status(edge, "web", *with_cookie(jar)) == 403

    async def test_without_an_epoch_nobody_is_kept(self, edge: Edge, ann: Account) -> None:
        """As in a HAProxy that control has not talked to yet."""
        jar = await edge.token(ann, "web")
        await edge.runtime.ask(f"clear map {edge.files.map(ADMITTED)}")
        for _ in range(2):
            assert await status(edge, "web", *with_cookie(jar)) == 200
            assert await status(edge, "open") == 200
            assert await kept(edge) == {}

    async def test_it_ends_with_the_token(self, edge: Edge, ann: Account) -> None:
        end = int(time.time()) + 3
        jar = await minted(edge, ann, exp=end)
        assert await status(edge, "web", *with_cookie(jar)) == 200
        assert len(await kept(edge)) == 1
        async with asyncio.timeout(10):
            while await status(edge, "web", *with_cookie(jar)) == 200:
                pass
        assert time.time() >= end - 1
        assert len(await kept(edge)) == 1  # and not because it was forgotten


@dataclass(frozen=True, slots=True)
class Request:
    """One over HTTP/1.1, to a host, with a cookie that is named."""

    host: str
    jar: str = "none"
    method: str = "GET"
    target: str = "/"
    lines: tuple[str, ...] = field(default=())

    def text(self, edge: Edge, jars: dict[str, str]) -> bytes:
        """As it is sent."""
        host = self.host.replace("{domain}", edge.config.https.domain)
        cookie = (f"Cookie: {jars[self.jar]}",) if jars[self.jar] else ()
        lines = (f"{self.method} {self.target} HTTP/1.1", f"Host: {host}", *cookie, *self.lines)
        body = "abc" if "Content-Length: 3" in self.lines else ""
        body = "0\r\n\r\n" if "Transfer-Encoding: chunked" in self.lines else body
        return "\r\n".join((*lines, "", body)).replace("{port}", str(edge.port)).encode()


HOSTS = ("web.{domain}", "open.{domain}", "docs.{domain}", "soon.{domain}", "off.{domain}")
requests = st.builds(
    Request,
    host=st.sampled_from([
        *(f"{host}:{{port}}" for host in HOSTS), *HOSTS, "WEB.{domain}", "web.{domain}:443",
        "web.{domain}:23001", "23001-web.{domain}", "web.{domain}.", "nosuch.{domain}", "{domain}",
        f"{DOMAIN}:{{port}}", "open.{domain}|", "",
    ]),
    jar=st.sampled_from(["none", "ann", "among", "twice", "other", "bad", "empty", "bob"]),
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "DELETE", "get"]),
    target=st.sampled_from([
        "/", "/docs", "/docs/a?b=/../c", "/docs/../x", "/docs/%2e%2e/x", "/docs%2fx", "//", "/__atoll/x",
        "/__atoll", "/__ATOLL/x", "/.well-known/acme-challenge/x", "*", "https://{port}/",
    ]),
    lines=st.lists(
        st.sampled_from([
            "Accept: text/html", "Origin: https://evil.example", "Origin: null", "Upgrade: websocket",
            "Upgrade: h2c", "Connection: upgrade", "Connection: close, x-atoll-email",
            "Authorization: Bearer of-the-vm", "Authorization: Basic eDphdG9sbDEuYS5i",
            "X-Atoll-Authorization: atoll1.a.b", "X-Atoll-Email: eve@example.com",
            "X_Atoll.User-Id: eve", "X-Forwarded-Host: eve", "Cookie: a=b; __Host-atoll-x=y",
            "Content-Length: 0", "Content-Length: 3", "Transfer-Encoding: chunked",
            "User-Agent: git/2.39", "Content-Type: application/grpc", "Expect: 100-continue",
            "Host: evil.example",
        ]),
        max_size=4, unique=True,
    ).map(tuple),
)  # fmt: skip


async def asked(edge: Edge, request: Request, jars: dict[str, str]) -> Got | None:
    """What it is answered, without what changes by itself; only what ends a wait is cut short."""
    async with await Wire.open(edge) as wire:
        await wire.send(request.text(edge, jars))
        got = await wire.answer(has_body=request.method != "HEAD", seconds=0.7)
    if got is not None:
        got.headers.pop(b"date", None)
    return got


@given(request=requests)
@example(request=Request("web.{domain}:{port}", "ann"))
@example(request=Request("open.{domain}:{port}", "none", lines=("X-Atoll-Email: eve@example.com",)))
@example(request=Request("open.{domain}:{port}", "ann", lines=("Origin: null",)))
@example(request=Request("web.{domain}:{port}", "ann", "POST", lines=("Origin: null",)))
@example(request=Request("docs.{domain}:{port}", "ann", target="/docs/../x"))
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_nobody_can_tell(
    edge: Edge, ann: Account, web: Recorder, open_vm: Recorder, request: Request
) -> None:
    """Any request is answered, and passed on, as the rules do that know nobody."""
    name = request.host.partition(".")[0].rpartition("-")[2].lower() or "web"
    name = name if name in {"web", "open", "docs", "soon", "off"} else "web"
    bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
    jar = await edge.token(ann, name)
    jars = {
        "none": "", "ann": jar, "among": f"a=b; {jar};c", "twice": f"{jar}; {jar}x",
        "other": await edge.token(ann, "nosuch"), "bad": f"{jar[:-4]}AAAA",
        "empty": f"{TOKEN_COOKIE}=; a=b", "bob": await edge.token(bob, name),
    }  # fmt: skip
    await edge.runtime.forget_admitted()
    seen = []
    for is_known in (False, True):
        for one in (web, open_vm):
            one.clear()
        if is_known:  # whatever can be kept of this visitor at this host is
            await asked(edge, Request(request.host, request.jar, target="/docs"), jars)
            await asked(edge, Request(request.host, request.jar), jars)
            for one in (web, open_vm):
                one.clear()
        got = await asked(edge, request, jars)
        seen.append((got, bytes(web.raw), bytes(open_vm.raw)))
    assert seen[0] == seen[1]
