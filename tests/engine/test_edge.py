"""The edge with the real HAProxy, curl and WebSockets: who gets in, who does not, and what passes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from atoll.base.aio import TaskGroup, poll
from atoll.base.proc import run
from atoll.domain.account import Account
from atoll.domain.web import SESSION_COOKIE, TOKEN_COOKIE, TOKEN_S
from atoll.doors.edge.cutting import Cutting
from atoll.services.sessions import Sessions
from framework.clients import client
from framework.edge import Answer, Edge, running_edge, upstream
from framework.published import openings, published
from framework.raw import trusting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
WEB, OTHER, SOCKET = "127.0.1.1", "127.0.1.2", "127.0.1.3"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        async with upstream("web", WEB), upstream("other", OTHER), upstream("high", WEB, 23001):
            yield edge


@pytest_asyncio.fixture(loop_scope="module", name="ann")
async def _ann(edge: Edge) -> Account:
    """An account that owns `web` (private), `open` (public) and `off` (not running)."""
    ann = await edge.account(f"ann-{time.monotonic_ns()}@example.com")
    for name, address, is_public in (
        ("web", WEB, False),
        ("other", OTHER, False),
        ("open", OTHER, True),
        ("off", None, False),
    ):
        edge.cloud.put(published(name, address, {ann.id}, is_public=is_public))
    await edge.agreed()
    return ann


def cookie(value: str) -> tuple[str, str]:
    """curl's arguments for one more cookie."""
    return "-H", f"Cookie: {value}"


class TestStrangers:
    """Nobody is signed in."""

    async def test_program_gets_401_json(self, edge: Edge, ann: Account) -> None:
        answer = await edge.curl(edge.url("web"))
        assert answer.status == 401
        assert json.loads(answer.body)["code"] == "unauthenticated"

    async def test_bearer_gets_401_even_as_browser(self, edge: Edge, ann: Account) -> None:
        answer = await edge.page(edge.url("web"), "-H", "Authorization: Bearer x")
        assert answer.status == 401

    async def test_browser_is_sent_to_login(self, edge: Edge, ann: Account) -> None:
        answer = await edge.page(edge.url("web", "/a?b=c&d=%20"))
        where = urlsplit(answer.headers["location"])
        assert answer.status == 302
        assert where.netloc == f"{edge.host('')}:{edge.port}"
        assert parse_qs(where.query)["to"] == [edge.url("web", "/a?b=c&d=%20")]

    async def test_unknown_vm_looks_like_a_private_one(self, edge: Edge, ann: Account) -> None:
        known = await edge.curl(edge.url("web"))
        unknown = await edge.curl(edge.url("nosuch"))
        assert known.status == unknown.status
        assert known.body == unknown.body.replace("nosuch", "web")

    async def test_default_port_of_public_vm_is_open(self, edge: Edge, ann: Account) -> None:
        assert (await edge.curl(edge.url("open"))).headers["x-upstream"] == "other"

    async def test_named_ports_of_public_vm_are_not(self, edge: Edge, ann: Account) -> None:
        for url in (edge.url("open", port=23001), edge.url("23001-open")):
            assert (await edge.curl(url)).status == 401

    @pytest.mark.parametrize(
        "path",
        ["/__atoll/../x", "//__atoll/auth", "/%5f_atoll/auth", "/./__atoll/x", "/__atoll%2fauth"],
    )
    async def test_path_tricks_reach_no_private_vm(
        self, edge: Edge, ann: Account, path: str
    ) -> None:
        answer = await edge.curl(edge.url("web", path), "--path-as-is")
        assert answer.status in (401, 403, 404, 405)
        assert "x-upstream" not in answer.headers

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("example.com", 421),
            ("web.atoll.localhost.example.com", 421),
            ("a.b.atoll.localhost", 421),
            ("web.atoll.localhost.", 400),
            ("x,open.atoll.localhost", 400),
            ("open.atoll.localhost@evil", 400),
            ("[::1]", 400),
            ("10.0.0.1", 421),
        ],
    )
    async def test_other_hosts_are_refused(
        self, edge: Edge, ann: Account, host: str, status: int
    ) -> None:
        answer = await edge.curl(edge.url("open"), "--http1.1", "-H", f"Host: {host}")
        assert answer.status == status

    async def test_two_hosts_are_refused(self, edge: Edge, ann: Account) -> None:
        raw = b"GET / HTTP/1.1\r\nHost: open.atoll.localhost\r\nHost: web.atoll.localhost\r\n\r\n"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", edge.port, ssl=trusting(edge), server_hostname=edge.host("web")
        )
        writer.write(raw)
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()

    async def test_plain_http_is_sent_to_https(self, edge: Edge, ann: Account) -> None:
        url = f"http://{edge.host('web')}:{edge.config.https.http_port}/a?b"
        answer = await edge.curl(url)
        assert (answer.status, answer.headers["location"]) == (308, edge.url("web", "/a?b"))


class TestTokens:
    """The cookie HAProxy checks."""

    async def test_good_token_opens_and_is_kept_from_the_vm(self, edge: Edge, ann: Account) -> None:
        token = await edge.token(ann, "web")
        for jar in (f"a=1; {token}; b=2", f"{token}; a=1; b=2", f"a=1; b=2; {token}"):
            answer = await edge.curl(edge.url("web"), *cookie(jar))
            assert answer.status == 200
            assert "cookie: a=1; b=2\r\n" in answer.body
            assert TOKEN_COOKIE not in answer.body
            assert f"x-atoll-user-id: {ann.id}\r\n" in answer.body
            assert f"x-atoll-email: {ann.email}\r\n" in answer.body

    @pytest.mark.parametrize(
        "odd", ["{0} ; a=1", " {0}", "{0};a=1", "a=1;{0}", "{0}; {1}=x", "{1}-session=s; {0}"]
    )
    async def test_no_spelling_leaks_it(self, edge: Edge, ann: Account, odd: str) -> None:
        token = await edge.token(ann, "web")
        value = odd.format(token, TOKEN_COOKIE)
        answer = await edge.curl(edge.url("web"), "--http1.1", "-H", f"Cookie:{value}")
        assert TOKEN_COOKIE not in answer.body

    async def test_alone_it_leaves_no_cookie_header(self, edge: Edge, ann: Account) -> None:
        answer = await edge.curl(edge.url("web"), *cookie(await edge.token(ann, "web")))
        assert answer.status == 200
        assert "cookie:" not in answer.body

    async def test_token_for_another_vm_is_refused(self, edge: Edge, ann: Account) -> None:
        token = await edge.token(ann, "other")
        assert (await edge.curl(edge.url("web"), *cookie(token))).status == 401
        assert (await edge.curl(edge.url("other"), *cookie(token))).status == 200

    async def test_token_without_grant_is_refused(self, edge: Edge, ann: Account) -> None:
        bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
        jar = cookie(await edge.token(bob, "web"))
        refused = await edge.curl(edge.url("web"), *jar)
        unknown = await edge.curl(edge.url("nosuch"), *cookie(await edge.token(bob, "nosuch")))
        assert refused.status == unknown.status == 403
        assert refused.body.replace("web.", "nosuch.") == unknown.body

    async def test_expired_token_is_refused(self, edge: Edge, ann: Account) -> None:
        session = await edge.sessions.new_session(ann.id)
        token = edge.sessions.mint(
            host=edge.host("web"), account=ann, session_id=session, until=time.time() - 5
        )
        assert (await edge.curl(edge.url("web"), *cookie(f"{TOKEN_COOKIE}={token}"))).status == 401

    async def test_token_of_a_clock_that_was_ahead_is_refused(
        self, edge: Edge, ann: Account
    ) -> None:
        """It would outlive the list of revoked sessions, which holds them for TOKEN_S."""
        for ahead_s, status in ((2 * 86400.0, 401), (30.0, 200)):
            ahead = Sessions(
                store=edge.store,
                changes=edge.cloud.changes,
                keys=edge.ring,
                session_seconds=7 * 86400,
                now=partial(lambda by_s: time.time() + by_s, ahead_s),
            )
            session = await ahead.new_session(ann.id)
            token = ahead.mint(host=edge.host("web"), account=ann, session_id=session)
            answer = await edge.curl(edge.url("web"), *cookie(f"{TOKEN_COOKIE}={token}"))
            assert answer.status == status

    @pytest.mark.parametrize("alg", ["none", "HS512", "RS256", ""])
    async def test_other_algorithms_are_refused(self, edge: Edge, ann: Account, alg: str) -> None:
        good = (await edge.token(ann, "web")).partition("=")[2]
        _, payload, signature = good.split(".")
        header = base64.urlsafe_b64encode(json.dumps({"alg": alg}).encode()).decode().rstrip("=")
        for forged in (
            f"{header}.{payload}.",
            f"{header}.{payload}.{signature}",
            f"{header}.{payload}",
        ):
            answer = await edge.curl(edge.url("web"), *cookie(f"{TOKEN_COOKIE}={forged}"))
            assert answer.status == 401

    async def test_changed_payload_is_refused(self, edge: Edge, ann: Account) -> None:
        header, payload, signature = (await edge.token(ann, "web")).partition("=")[2].split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        claims["exp"] += int(TOKEN_S)
        changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        forged = f"{TOKEN_COOKIE}={header}.{changed}.{signature}"
        assert (await edge.curl(edge.url("web"), *cookie(forged))).status == 401

    async def test_revoked_session_is_refused_at_once(self, edge: Edge, ann: Account) -> None:
        session = await edge.sessions.new_session(ann.id)
        token = edge.sessions.mint(host=edge.host("web"), account=ann, session_id=session)
        jar = cookie(f"{TOKEN_COOKIE}={token}")
        assert (await edge.curl(edge.url("web"), *jar)).status == 200
        await edge.sessions.revoke(session)
        await edge.agreed()
        assert (await edge.curl(edge.url("web"), *jar)).status == 401

    async def test_port_inside_by_port_and_by_name(self, edge: Edge, ann: Account) -> None:
        jar = cookie(await edge.token(ann, "web"))
        answer = await edge.curl(edge.url("web", port=23001), *jar)
        assert answer.headers["x-upstream"] == "high"
        assert (await edge.curl(edge.url("23001-web"), *jar)).status == 401  # another host
        jar = cookie(await edge.token(ann, "23001-web"))
        assert (await edge.curl(edge.url("23001-web"), *jar)).headers["x-upstream"] == "high"

    async def test_a_program_of_this_machine_keeps_its_port(self, edge: Edge, ann: Account) -> None:
        async with upstream("mine", "127.0.0.1", 23002):
            answer = parse_plain(
                (await run(["curl", "-si", "http://127.0.0.1:23002/"], seconds=10)).out
            )
        assert answer == "mine"


def parse_plain(raw: bytes) -> str:
    """The name of the upstream that answered."""
    return raw.decode().partition("x-upstream: ")[2].partition("\r\n")[0]


class TestHeaders:
    """What a client says of itself."""

    @pytest.mark.parametrize(
        "header",
        [
            "X-Atoll-User-Id", "x-atoll-email", "X_Atoll_User_Id", "X-Atoll_Email", "X-Atoll-Host",
            "X-ExeDev-UserID", "X-ExeDev-Email", "x_exedev_email", "Forwarded", "X-Real-IP",
            "X-Original-URL", "X-Original-Uri", "x_rewrite_url",
            "X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-User", "X-Forwarded-Host",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("version", ["--http1.1", "--http2"])
    async def test_forged_identity_is_stripped(
        self, edge: Edge, ann: Account, header: str, version: str
    ) -> None:
        answer = await edge.curl(edge.url("open"), version, "-H", f"{header}: forged")
        assert answer.status == 200
        assert "forged" not in answer.body

    async def test_stripped_when_signed_in_too(self, edge: Edge, ann: Account) -> None:
        jar = cookie(await edge.token(ann, "web"))
        answer = await edge.curl(edge.url("web"), *jar, "-H", "X-Atoll-User-Id: forged")
        assert "forged" not in answer.body
        assert answer.body.count("x-atoll-user-id:") == 1

    async def test_where_the_client_is(self, edge: Edge, ann: Account) -> None:
        answer = await edge.curl(edge.url("open"))
        assert "x-forwarded-for: 127.0.0.1\r\n" in answer.body
        assert "x-forwarded-proto: https\r\n" in answer.body
        assert f"x-forwarded-host: {edge.host('open')}:{edge.port}\r\n" in answer.body

    async def test_no_hsts_on_localhost(self, edge: Edge, ann: Account) -> None:
        answer = await edge.curl(edge.url("open"))
        assert "strict-transport-security" not in answer.headers

    async def test_form_of_another_site_is_refused(self, edge: Edge, ann: Account) -> None:
        jar = cookie(await edge.token(ann, "web"))
        for origin, status in (
            ("https://other.atoll.localhost", 403),
            (f"https://{edge.host('web')}.evil", 403),
            ("null", 403),
            (f"https://{edge.host('web')}:{edge.port}", 200),
        ):
            answer = await edge.curl(edge.url("web"), *jar, "-H", f"Origin: {origin}", "-d", "")
            assert answer.status == status, origin

    async def test_head(self, edge: Edge, ann: Account) -> None:
        answer = await edge.curl(edge.url("open"), "--head")
        assert (answer.status, answer.body) == (200, "")


class TestRefusals:
    """What people read when it does not work."""

    async def test_nothing_listens(self, edge: Edge, ann: Account) -> None:
        jar = cookie(await edge.token(ann, "web"))
        edge.cloud.change("web", port=2099)
        await edge.agreed()
        page = await edge.page(edge.url("web"), *jar)
        assert page.status == 503
        assert "port 2099" in page.body
        assert "share port web" in page.body
        answer = await edge.curl(edge.url("web"), *jar)
        assert json.loads(answer.body)["code"] == "no-listener"

    async def test_not_running(self, edge: Edge, ann: Account) -> None:
        jar = cookie(await edge.token(ann, "off"))
        answer = await edge.curl(edge.url("off"), *jar)
        assert answer.status == 503
        assert "resume off" in json.loads(answer.body)["hint"]
        assert (await edge.curl(edge.url("off"))).status == 401

    async def test_broken_answer(self, edge: Edge, ann: Account) -> None:
        # Over h2 HAProxy 2.6 ends the stream without an answer; 3.0 answers there too.
        assert (await edge.page(edge.url("open", "/broken"), "--http1.1")).status == 502


class TestLimits:
    """An edge of its own, since its limits outlast the test."""

    async def test_hammering_control_is_answered_429(self) -> None:
        async with running_edge() as edge:
            urls = edge.url("", "/healthz?[1-600]")
            jar = ["-H", "Host: atoll.localhost", "-o", "/dev/null", "-w", "%{http_code}\n"]
            argv = ["curl", "-sZ", "--cacert", str(edge.keys / "ca.pem"), *jar]
            out = (await run([*argv, "--connect-to", "::127.0.0.1:", urls], seconds=60)).out
            codes = out.split()
            assert codes.count(b"200") <= 300 < len(codes)
            assert codes.count(b"429") == len(codes) - codes.count(b"200")
            answer = await edge.curl(edge.url("", "/healthz"))
            assert answer.headers["retry-after"] == "10"


class TestLogin:
    """Cookies end to end, as a browser goes."""

    async def test_from_link_to_page(self, edge: Edge, ann: Account, tmp_path: Path) -> None:
        jar = ("-b", str(tmp_path / "jar"), "-c", str(tmp_path / "jar"))
        wanted = edge.url("web", "/deep?x=1")
        login = (await edge.page(wanted, *jar)).headers["location"]
        asked = await edge.page(login, *jar)
        assert asked.status == 401
        assert "browser" in asked.body

        code = await edge.sessions.login_code(ann.id)
        link = edge.url("", f"/login/{code}")
        looked = await edge.page(link, *jar)
        assert looked.status == 200
        assert SESSION_COOKIE not in str(looked.headers)
        await edge.page(link, *jar)  # looking twice uses nothing up
        redeemed = await edge.page(link, *jar, "-X", "POST")
        assert redeemed.status == 303

        onward = edge.url("", redeemed.headers["location"])
        begin = (await edge.page(onward, *jar)).headers["location"]
        assert begin == edge.url("web", "/__atoll/login?to=%2Fdeep%3Fx%3D1")
        onward = (await edge.page(begin, *jar)).headers["location"]
        handoff = (await edge.page(onward, *jar)).headers["location"]
        assert handoff.startswith(edge.url("web", "/__atoll/auth?code="))
        arrived = await edge.page(handoff, *jar)
        assert (arrived.status, arrived.headers["location"]) == (303, "/deep?x=1")
        assert "Secure" in arrived.headers["set-cookie"]
        assert "HttpOnly" in arrived.headers["set-cookie"]
        assert (await edge.page(wanted, *jar)).headers["x-upstream"] == "web"

        assert (await edge.page(handoff, *jar)).status == 403  # once only
        assert (await edge.page(link, *jar, "-X", "POST")).status == 403
        await self._sign_out(edge, jar, wanted)

    async def _sign_out(self, edge: Edge, jar: tuple[str, ...], wanted: str) -> None:
        kept = Path(jar[1]).read_text()
        refused = await edge.page(
            edge.url("web", "/__atoll/logout"), *jar, "-d", "", "-H", "Origin: https://evil.example"
        )
        assert refused.status == 403
        answer = await edge.page(edge.url("web", "/__atoll/logout"), *jar, "-d", "")
        assert answer.status == 303
        await edge.agreed()
        Path(jar[1]).write_text(kept)  # even a copy of the token is over
        assert (await edge.page(wanted, *jar)).status == 302
        assert (await edge.page(edge.url("", "/"), *jar)).status == 401

    async def test_handoff_is_for_one_host(self, edge: Edge, ann: Account) -> None:
        session = await edge.sessions.session(await edge.sessions.new_session(ann.id))
        assert session is not None
        code = edge.sessions.handoff(session, host=edge.host("web"), way="w" * 22)
        jar = cookie(f"__Host-atoll-way={'w' * 22}")
        answer = await edge.page(edge.url("other", f"/__atoll/auth?code={code}"), *jar)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers

    async def test_pages_know_who_is_signed_in(self, edge: Edge, ann: Account) -> None:
        session_id = await edge.sessions.new_session(ann.id)
        signed_in = cookie(f"{SESSION_COOKIE}={session_id}")
        assert ann.email in (await edge.page(edge.url("", "/docs"), *signed_in)).body
        assert ann.email not in (await edge.page(edge.url("", "/docs"))).body
        assert (await edge.page(edge.url("", "/"))).status == 401

    async def test_forms_of_a_vms_page_are_refused(self, edge: Edge, ann: Account) -> None:
        session_id = await edge.sessions.new_session(ann.id)
        form = (*cookie(f"{SESSION_COOKIE}={session_id}"), "-d", "vm=web")
        sent = await edge.page(
            edge.url("", "/run/rm"), *form, "-H", f"Origin: {edge.url('web', '')}"
        )
        assert sent.status == 403

    async def test_exec(self, edge: Edge, ann: Account) -> None:
        _, token = await edge.tokens.new(ann)
        bearer = ("-H", f"Authorization: Bearer {token}")
        answer = await edge.curl(
            edge.url("", "/exec"), *bearer, "-d", "ls", "-H", "X-Forwarded-For: 6.6.6.6"
        )
        assert json.loads(answer.body) == {"email": ann.email, "line": "ls", "source": "127.0.0.1"}

    async def test_ca(self, edge: Edge, ann: Account) -> None:
        answer = await edge.curl(edge.url("", "/ca.pem"))
        assert answer.body == (edge.keys / "ca.pem").read_text()


class TestChanges:
    """Sharing takes effect at once, and survives crashes."""

    async def test_public_and_private_again(self, edge: Edge, ann: Account) -> None:
        for is_public, status in ((True, 200), (False, 401)):
            edge.cloud.change("web", openings=openings({ann.id}, is_public=is_public))
            await edge.agreed()
            assert (await edge.curl(edge.url("web"))).status == status

    async def test_grants(self, edge: Edge, ann: Account) -> None:
        bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
        jar = cookie(await edge.token(bob, "web"))
        for accounts, status in (({ann.id, bob.id}, 200), ({ann.id}, 403)):
            edge.cloud.change("web", openings=openings(accounts))
            await edge.agreed()
            assert (await edge.curl(edge.url("web"), *jar)).status == status

    async def test_a_name_given_to_another_vm(self, edge: Edge, ann: Account) -> None:
        jar = cookie(await edge.token(ann, "web"))
        assert (await edge.curl(edge.url("web"), *jar)).headers["x-upstream"] == "web"
        edge.cloud.change("web", address=OTHER)
        await edge.agreed()
        for _ in range(20):  # no kept connection leads to the old one
            assert (await edge.curl(edge.url("web"), *jar)).headers["x-upstream"] == "other"

    async def test_haproxy_killed_while_things_change(self, edge: Edge, ann: Account) -> None:
        await edge.kill_haproxy()
        edge.cloud.change("open", openings=openings({ann.id}))
        edge.cloud.remove("other")
        await edge.start_haproxy()
        await edge.agreed()
        assert (await edge.curl(edge.url("open"))).status == 401

    async def test_control_killed_while_things_change(self, edge: Edge, ann: Account) -> None:
        """A second loop that remembers nothing finds what somebody else left in HAProxy."""
        hosts = edge.files.map("hosts")
        await edge.runtime.ask(f"add map {hosts} stray.{edge.config.https.domain} {WEB}:1")
        await edge.runtime.ask(f"add map {hosts} {edge.host('web')} {WEB}:8000")  # twice
        await edge.runtime.ask(f"add map {edge.files.map('grants')} {edge.host('web')}|*| 0")
        restarted = edge.new_sync()
        await restarted.prepare()
        async with TaskGroup() as group:
            task = group.create_task(restarted.run())
            await edge.agreed()
            task.cancel()
        assert (await edge.curl(edge.url("web"))).status == 401

    async def test_five_hundred_vms(self, edge: Edge, ann: Account) -> None:
        for number in range(500):
            name = f"many-{number}-x"
            edge.cloud.vms[name] = published(name, WEB, {ann.id, "acct-zzzzzzzzzzzz"})
        edge.cloud.changes.bump()
        await edge.agreed()
        for number in range(500):
            del edge.cloud.vms[f"many-{number}-x"]
        edge.cloud.changes.bump()
        await edge.agreed()

    async def test_new_certificate_without_restart(self, edge: Edge, ann: Account) -> None:
        pid = await edge.runtime.pid()
        before = await certificate(edge)
        edge.files.certificate.unlink()
        fresh = edge.new_sync()
        async with TaskGroup() as group:
            task = group.create_task(fresh.run())
            await poll(
                lambda: changed(edge, before), seconds=10, what="HAProxy showing the certificate"
            )
            task.cancel()
        assert await edge.runtime.pid() == pid


async def certificate(edge: Edge) -> bytes:
    """What HAProxy shows now."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", edge.port, ssl=trusting(edge), server_hostname=edge.host("web")
    )
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


async def changed(edge: Edge, before: bytes) -> bool | None:
    """True when the certificate is another one."""
    return (await certificate(edge) != before) or None


class TestStreams:
    """What is not one request and one answer."""

    async def test_websocket(self, edge: Edge, ann: Account) -> None:
        async with self._echo(edge, ann) as uri:
            token = await edge.token(ann, "chat")
            own = Origin(f"https://{edge.host('chat')}:{edge.port}")
            async with self._connect(edge, uri, token, own) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
            for headers, origin in ((token, Origin("https://evil.example")), ("", own)):
                with pytest.raises(InvalidStatus) as refused:
                    async with self._connect(edge, uri, headers, origin):
                        pass
                assert refused.value.response.status_code in (401, 403)

    async def test_open_socket_ends_with_the_grant(self, edge: Edge, ann: Account) -> None:
        async with self._echo(edge, ann) as uri:
            async with self._connect(edge, uri, await edge.token(ann, "chat"), None) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                edge.cloud.change("chat", openings=frozenset())
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 10)

    async def test_answers_under_way_to_others_arrive(self, edge: Edge, ann: Account) -> None:
        bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
        argv = ["curl", "-sN", "--cacert", str(edge.keys / "ca.pem"), "--max-time", "20"]
        argv += ["--connect-to", "::127.0.0.1:", "-H", f"Cookie: {await edge.token(ann, 'busy')}"]
        for is_soon in (True, False):
            async with upstream("busy", "127.0.1.7") as server:
                edge.cloud.put(published("busy", "127.0.1.7", {ann.id, bob.id}))
                await edge.agreed()
                async with client([*argv, edge.url("busy", "/sse")]) as process:
                    assert process.stdout is not None
                    assert await process.stdout.readline() == b"data: 1\n"
                    edge.cloud.change("busy", openings=openings({ann.id}))
                    await asyncio.sleep(0.05 if is_soon else 0.8)
                    server.release.set()
                    rest = await asyncio.wait_for(process.stdout.read(), 10)
                    assert (b"data: 2" in rest) == is_soon

    async def test_a_socket_that_a_control_died_before_ending_is_ended(
        self, edge: Edge, ann: Account
    ) -> None:
        async with self._echo(edge, ann) as uri:
            async with self._connect(edge, uri, await edge.token(ann, "chat"), None) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                Cutting(edge.files, edge.runtime).owe(frozenset({SOCKET}))
                edge.cloud.change("open", openings=openings({ann.id}))
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 10)
        assert not edge.files.owed.exists()

    async def test_events_pass_unbuffered(self, edge: Edge, ann: Account) -> None:
        async with upstream("sse", "127.0.1.4") as server:
            edge.cloud.put(
                published("sse", "127.0.1.4", {ann.id}, is_public=True)
            )  # fmt: skip
            await edge.agreed()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", edge.port, ssl=trusting(edge), server_hostname=edge.host("sse")
            )
            writer.write(f"GET /sse HTTP/1.1\r\nHost: {edge.host('sse')}\r\n\r\n".encode())
            await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), 10)  # the second is not sent
            server.release.set()
            await asyncio.wait_for(reader.readuntil(b"data: 2\n\n"), 10)
            writer.close()

    @pytest.mark.parametrize("kind", ["http/1.1", "h2"])
    async def test_a_client_that_leaves_ends_what_it_asked_for(
        self, edge: Edge, ann: Account, kind: str
    ) -> None:
        """Also while nothing is sent: a command that its client gave up must not run on."""
        heard, left = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
            heard.set()
            with contextlib.suppress(OSError):
                await reader.read()
            left.set()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.1.6", 8000)
        async with server:
            edge.cloud.put(
                published("dumb", "127.0.1.6", {ann.id}, is_public=True)
            )  # fmt: skip
            await edge.agreed()
            version = "--http2" if kind == "h2" else "--http1.1"
            argv = ["curl", "-sN", version, "--cacert", str(edge.keys / "ca.pem")]
            argv += ["--connect-to", "::127.0.0.1:", edge.url("dumb")]
            async with client(argv) as process:
                assert process.stdout is not None
                async with asyncio.timeout(10):
                    assert await process.stdout.readexactly(2) == b"hi"
                    await heard.wait()
                    process.kill()
                    await left.wait()

    async def test_a_vm_says_itself_whether_it_wants_a_body(self, edge: Edge, ann: Account) -> None:
        asked, may_send = asyncio.Event(), asyncio.Event()

        async def picky(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert b"expect: 100-continue" in head
            asked.set()
            await may_send.wait()
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(5)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n" + body)
            await writer.drain()
            writer.close()

        host = edge.host("picky")
        async with await asyncio.start_server(picky, "127.0.1.6", 8000), asyncio.timeout(20):
            edge.cloud.put(published("picky", "127.0.1.6", {ann.id}, is_public=True))
            await edge.agreed()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", edge.port, ssl=trusting(edge), server_hostname=host
            )
            writer.write(
                f"POST / HTTP/1.1\r\nhost: {host}:{edge.port}\r\ncontent-length: 5\r\n"
                "expect: 100-continue\r\n\r\n".encode()
            )
            await asked.wait()
            answer = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
            done, _ = await asyncio.wait([answer], timeout=0.3)
            assert not done, "the edge answered for the VM"
            may_send.set()
            assert b" 100 " in await answer
            writer.write(b"hello")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
            writer.close()

    async def test_a_gigabyte_passes_and_is_kept_nowhere(
        self, edge: Edge, ann: Account, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        block, digest = hashlib.sha256(b"seed").digest() * 32_768, hashlib.sha256()
        with data.open("wb") as file:
            for _ in range(1024):
                file.write(block)
                digest.update(block)
        jar = cookie(await edge.token(ann, "web"))
        answer: Answer = await edge.curl(
            edge.url("web", "/upload"), *jar, "-T", str(data), seconds=120
        )
        assert answer.body == digest.hexdigest()
        assert edge.haproxy is not None
        status = Path(f"/proc/{edge.haproxy.pid}/status").read_text()
        (most,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        assert int(most) < 256 << 10

    def _connect(self, edge: Edge, uri: str, token: str, origin: Origin | None) -> connect:
        headers = {"Cookie": token} if token else {}
        return connect(
            uri, host="127.0.0.1", ssl=trusting(edge), server_hostname=edge.host("chat"),
            additional_headers=headers, origin=origin,
        )  # fmt: skip

    def _echo(self, edge: Edge, ann: Account) -> Echo:
        return Echo(edge, ann)


class Echo:
    """A VM `chat` whose server echoes messages; gives its URI."""

    def __init__(self, edge: Edge, ann: Account) -> None:
        self._edge = edge
        self._ann = ann
        self._server = serve_websocket(self._talk, SOCKET, 8000)

    async def __aenter__(self) -> str:
        await self._server.__aenter__()
        self._edge.cloud.put(
            published("chat", SOCKET, {self._ann.id})
        )  # fmt: skip
        await self._edge.agreed()
        return self._edge.url("chat").replace("https:", "wss:")

    async def __aexit__(self, *reason: object) -> None:
        await self._server.__aexit__(None, None, None)

    async def _talk(self, socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)
