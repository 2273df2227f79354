"""Links, forms and sockets by which another page acts as the person, at the real edge."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest

from atoll.domain.account import Account
from atoll.domain.web import SESSION_COOKIE
from framework.edge import Answer, Edge, running_edge
from framework.h2 import H2, get
from framework.raw import Recorder, Wire, said

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


ELSEWHERE = [
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "http://web.atoll.localhost/",
    "javascript:alert(1)",
    "data:text/html,x",
    "https://web.atoll.localhost.evil.example/",
    "https://web.atoll.localhost@evil.example/",
    "https://evil.example#.atoll.localhost/",
    "https://evil.example?.atoll.localhost/",
    "https://evil.example\\.atoll.localhost/",
    "https://evil.example/.atoll.localhost",
    "https://web.atoll.localhost:1/",
    "https://web.atoll.localhost:443@evil.example/",
    "https://web.atoll.localhost:{port}@evil.example/",
    "https://web.atoll.localhost%00.evil.example/",
    "https://web.atoll.localhost%2eevil.example/",
    "https://user@web.atoll.localhost:{port}/",
    "https://web.atoll.localhost:{port}//evil.example/",
    "https://web.atoll.localhost:{port}/\\evil.example",
    "\thttps://evil.example/",
    "https://\tevil.example/",
    "https://web.atoll.localhost:{port}\r\nx: y",
    "https://[::1]/",
    "https://web.atoll.localhost\x00:{port}/",
    "HTTPS://EVIL.EXAMPLE/",
    "/%5cevil.example",
    "/\t/evil.example",
    "/.//evil.example",
    "///evil.example",
    "https://ｗeb.evil.example/",
    "https://web。evil.example/",
    "https://xn--web-evil.example/",
    "web.atoll.localhost",
    "",
]


class TestRedirects:
    """A link to us must not end elsewhere."""

    @pytest.mark.parametrize("to", ELSEWHERE)
    async def test_sign_in_leads_to_our_own_pages_only(
        self, edge: Edge, ann: Account, to: str
    ) -> None:
        session = await edge.sessions.new_session(ann.id)
        jar = ("-H", f"Cookie: {SESSION_COOKIE}={session}")
        to = to.format(port=edge.port)
        answer = await edge.page(edge.url("", f"/login?to={quote(to, safe='')}"), *jar)
        self._stays(edge, answer)
        answer = await edge.page(edge.url("", f"/login?to={quote(to, safe='')}"))
        self._stays(edge, answer)

    @pytest.mark.parametrize("to", ELSEWHERE)
    async def test_and_so_does_the_handoff(self, edge: Edge, ann: Account, to: str) -> None:
        session = await edge.sessions.session(await edge.sessions.new_session(ann.id))
        assert session is not None
        code = edge.sessions.handoff(session, host=edge.host("web"), way="w" * 22)
        jar = ("-H", f"Cookie: __Host-atoll-way={'w' * 22}")
        query = f"?code={code}&to={quote(to.format(port=edge.port), safe='')}"
        answer = await edge.page(edge.url("web", f"/__atoll/auth{query}"), *jar)
        assert answer.status == 303
        self._stays(edge, answer)

    @pytest.mark.parametrize(
        "target",
        ["//evil.example/", "/\\evil.example", "https://evil.example/", "/%0d%0ax:y", "/a%00"],
    )
    async def test_the_way_to_sign_in_is_ours(
        self, edge: Edge, ann: Account, web: Recorder, target: str
    ) -> None:
        got = await said(edge, "web", "Accept: text/html", target=target)
        assert got is not None
        assert got.status in (302, 400, 421)
        if got.status == 302:
            where = urlsplit(got.headers[b"location"].decode())
            assert where.netloc == f"{edge.host('')}:{edge.port}"
            assert where.path == "/login"
        assert not web.raw

    def _stays(self, edge: Edge, answer: Answer) -> None:
        where = answer.headers.get("location", "/")
        assert "\\" not in where
        assert not where.startswith("//")
        parts = urlsplit(where)
        assert parts.scheme in ("", "https")
        assert parts.netloc in ("", *(f"{edge.host(name)}:{edge.port}" for name in ("web", "")))


class TestForms:
    """Forms and sockets that a page of another site sends with the person's cookies."""

    @pytest.mark.parametrize(
        "said_of_it",
        ["Origin: https://evil.example", "Origin: null", "Origin: https://web.atoll.localhost",
         "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://atoll.localhost.evil",
         "Origin: https://evil.example/atoll.localhost", "Origin: https://atoll.localhost@evil.example",
         "Origin: //", "Origin: https://[", "Sec-Fetch-Site: other"],
    )  # fmt: skip
    async def test_nobody_is_signed_in_or_out_by_another_page(
        self, edge: Edge, ann: Account, said_of_it: str
    ) -> None:
        code = await edge.sessions.login_code(ann.id)
        session = await edge.sessions.new_session(ann.id)
        cookie = ("-H", f"Cookie: {SESSION_COOKIE}={session}", "-H", said_of_it)
        for path in (f"/login/{code}", "/logout"):
            answer = await edge.page(edge.url("", path), "-X", "POST", *cookie)
            assert answer.status == 403
            assert "set-cookie" not in answer.headers
        assert await edge.sessions.account_for_session(session)
        await edge.sessions.redeem(code)  # it was not used up

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://open.atoll.localhost",
                                        "https://web.atoll.localhost.evil", "", "file://"])  # fmt: skip
    @pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "x"])
    async def test_another_pages_socket_is_refused(
        self, edge: Edge, ann: Account, web: Recorder, origin: str, upgrade: str
    ) -> None:
        token = await edge.token(ann, "web")
        got = await said(
            edge, "web", f"Cookie: {token}", f"Origin: {origin}", "Connection: Upgrade",
            f"Upgrade: {upgrade}", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
        )  # fmt: skip
        assert got is not None
        assert got.status == 403
        assert not web.raw

    async def test_over_h2_too(self, edge: Edge, ann: Account, web: Recorder) -> None:
        """RFC 8441 asks with CONNECT, where there is no `Upgrade` header."""
        token = await edge.token(ann, "web")
        for protocol in ([(b":protocol", b"websocket")], []):
            async with await H2.open(edge, name="web") as h2:
                fields = get(edge.host("web"))
                fields[0] = (b":method", b"CONNECT")
                more = [(b"cookie", token.encode()), (b"origin", b"https://evil.example")]
                await h2.request(1, [*fields[:1], *protocol, *fields[1:], *more])
                assert (await h2.ended(1)).is_refused
        assert not web.raw

    async def test_a_program_that_sends_no_origin_has_no_borrowed_cookie(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        got = await said(edge, "web", f"Cookie: {await edge.token(ann, 'web')}", body="")
        assert got is not None
        assert got.status == 200


class TestGuessing:
    """An edge of its own: its limits outlast the test."""

    async def test_links_cannot_be_tried_out(self) -> None:
        async with running_edge() as edge:
            statuses = []
            async with await Wire.open(edge, name="") as wire:
                for number in range(400):
                    code = f"{number:043d}"
                    head = f"POST /login/{code} HTTP/1.1\r\nHost: {edge.host('')}\r\n"
                    await wire.send(f"{head}Content-Length: 0\r\n\r\n".encode())
                    got = await wire.answer()
                    assert got is not None
                    statuses.append(got.status)
            assert set(statuses) == {403, 429}
            assert statuses.index(429) <= 301
            assert statuses[-1] == 429
