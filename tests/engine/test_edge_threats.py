"""Somebody else's name, at the real edge: forged headers, tokens and cookies.

The servers behind it keep every byte they get, so what is asserted is what a VM would have seen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time

import pytest

from atoll.domain.account import Account
from atoll.domain.web import SESSION_COOKIE, TOKEN_COOKIE
from framework.edge import Edge
from framework.h2 import H2, get
from framework.published import private
from framework.raw import Recorder, Wire, said
from framework.signing import b64url

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
IDENTITY = ("x-atoll-user-id", "x-atoll-email")


@pytest.fixture(scope="module", name="open_vm")
def _open_vm(web: Recorder) -> Recorder:
    """Both VMs are one server here."""
    return web


def names_in(head: bytes) -> set[str]:
    """Of all headers, as CGI, PHP or lighttpd name them: whatever is no letter or digit becomes _."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    names = (line.partition(":")[0].lower() for line in lines)
    return {"".join(c if c.isascii() and c.isalnum() else "_" for c in name) for name in names}


class TestForgedIdentity:
    """A client says who it is."""

    @pytest.mark.parametrize(
        "line",
        [
            "X-Atoll-Email: {0}",
            "x-atoll-EMAIL:{0}",
            "X_Atoll_Email: {0}",
            "X.Atoll.Email: {0}",  # lighttpd and PHP read a dot as _, too
            "X~Atoll!Email: {0}",
            "X-Atoll-Email: a\r\nX-Atoll-Email: {0}",
            "X-Other: a\r\n X-Atoll-Email: {0}",  # a folded line is one value
            "X-Atoll-Email:\r\n {0}",
            "X-Atoll-Email: a,\r\n\t{0}",
            "X-Forwarded-Email: {0}",
            "X_Real.IP: {0}",
            "Forwarded: for={0}",
            "X-Atoll-Email: a\0{0}",
        ],
    )
    async def test_is_dropped(self, edge: Edge, ann: Account, web: Recorder, line: str) -> None:
        got = await said(edge, "open", line.format("eve@example.com"))
        assert got is not None
        assert got.status == 200
        (request,) = web.seen
        assert request.is_plain
        assert not names_in(request.head) & {"x_atoll_email", "x_forwarded_email", "x_real_ip"}
        values = [value for value in web.raw.split(b"\r\n") if b"eve@" in value]
        assert all(value.startswith(b"x-other:") for value in values), values

    @pytest.mark.parametrize(
        "line",
        ["X-Atoll-Email : eve", "X-Atoll-Email\t: eve", " X-Atoll-Email: eve", "X-Atoll-Email", ": e",
         "X-Atoll-\xc9mail: eve", "X-Atoll-Email\0: eve"],
    )  # fmt: skip
    async def test_what_is_no_header_is_refused(
        self, edge: Edge, ann: Account, web: Recorder, line: str
    ) -> None:
        async with await Wire.open(edge, name="open") as wire:
            head = f"GET / HTTP/1.1\r\nHost: {edge.host('open')}\r\nA: b\r\n"
            first = line.startswith(" ")  # after a header it would be a folded line
            head = f"GET / HTTP/1.1\r\n{line}\r\n{head[16:]}" if first else f"{head}{line}\r\n"
            await wire.send(f"{head}\r\n".encode("latin-1"))
            got = await wire.answer()
        assert got is None or got.status == 400
        assert not web.raw

    async def test_in_trailers_it_stays_behind_the_body(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        """HAProxy 2.6 can drop no trailer; servers keep them apart from the headers."""
        token = await edge.token(ann, "web")
        lines = (f"Cookie: {token}", "Transfer-Encoding: chunked", "Trailer: x-atoll-email")
        body = "1\r\na\r\n0\r\nX-Atoll-Email: eve@example.com\r\n\r\n"
        got = await said(edge, "web", *lines, body=body)
        assert got is not None
        assert got.status == 200
        (request,) = web.seen
        assert b"eve@" not in request.head
        assert request.values("x-atoll-email") == [ann.email.encode()]

    @pytest.mark.parametrize(
        "name", ["x-atoll-user-id", "x-atoll-email", "x-forwarded-for", "cookie"]
    )
    async def test_no_client_has_our_header_dropped_on_the_way(
        self, edge: Edge, ann: Account, web: Recorder, name: str
    ) -> None:
        """A proxy in the VM drops what `Connection` names: the app behind it would see nobody."""
        token = await edge.token(ann, "web")
        for value in (name, f"close, {name}", f"{name.title()},keep-alive"):
            web.clear()
            got = await said(edge, "web", f"Cookie: {token}; a=b", f"Connection: {value}")
            assert got is not None
            assert got.status == 200
            (request,) = web.seen
            assert name.encode() not in b",".join(request.values("connection")).lower()
            assert request.values("x-atoll-email") == [ann.email.encode()]

    async def test_over_h2(self, edge: Edge, ann: Account, web: Recorder) -> None:
        forged = [(name.encode(), b"eve") for name in IDENTITY]
        async with await H2.open(edge, name="open") as h2:
            await h2.request(1, get(edge.host("open"), "/", *forged, (b"x_atoll_email", b"eve")))
            assert (await h2.ended(1)).status == 200
        assert b"eve" not in web.raw

    @pytest.mark.parametrize(
        "field",
        [
            (b":x-atoll-email", b"eve"),
            (b"X-Atoll-Email", b"eve"),
            (b"a\r\nx-atoll-email", b"eve"),
            (b"a: b\r\nx-atoll-email", b"eve"),
            (b"a", b"b\r\nx-atoll-email: eve"),
            (b"a", b"b\nx-atoll-email: eve"),
            (b"a", b"b\0x-atoll-email: eve"),
            (b"x-atoll-email ", b"eve"),
            (b"connection", b"x-atoll-email"),
            (b"", b"eve"),
        ],
    )
    async def test_over_h2_what_is_no_header_is_refused(
        self, edge: Edge, ann: Account, web: Recorder, field: tuple[bytes, bytes]
    ) -> None:
        async with await H2.open(edge, name="open") as h2:
            await h2.request(1, get(edge.host("open"), "/", field))
            assert (await h2.ended(1)).is_refused
        assert not web.raw

    async def test_of_a_stranger_on_an_open_page_nothing_is_said(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        """A bad token names nobody, also where nobody needs to be named."""
        token = await edge.token(ann, "web")
        for jar in (token, f"{token[:-2]}xx", f"{TOKEN_COOKIE}=x"):
            web.clear()
            got = await said(edge, "open", f"Cookie: {jar}")
            assert got is not None
            assert got.status == 200
            (request,) = web.seen
            assert not any(request.values(name) for name in IDENTITY)
            assert TOKEN_COOKIE.encode() not in web.raw

    @pytest.mark.parametrize(
        "email",
        [
            'a","sub":"acct-000000000001","b":"@example.com',
            "a\r\nX-Atoll-User-Id: acct-000000000001\r\n@example.com",
            "a\\u0022,\\u0022sub\\u0022:\\u0022x@example.com",
            "%0d%0ax-atoll-user-id:1@example.com",
            "é@example.com",
        ],
    )
    async def test_a_hostile_address_says_nothing_else(
        self, edge: Edge, ann: Account, web: Recorder, email: str
    ) -> None:
        eve = await edge.account(f"{time.monotonic_ns()}{email}")
        edge.cloud.put(private("web", web.address, ann, eve))
        await edge.agreed()
        web.clear()
        got = await said(edge, "web", f"Cookie: {await edge.token(eve, 'web')}")
        assert got is not None
        assert got.status == 200
        (request,) = web.seen
        assert request.is_plain
        assert request.values("x-atoll-user-id") == [eve.id.encode()]
        assert len(request.values("x-atoll-email")) == 1


def unsigned(header: dict[str, object], payload: bytes, key: bytes | None = None) -> str:
    """A JWT of any header; HS256 with a key of the attacker's when one is given."""
    text = f"{b64url(json.dumps(header).encode())}.{b64url(payload)}"
    signature = hmac.digest(key, text.encode(), hashlib.sha256) if key is not None else b""
    return f"{text}.{b64url(signature)}"


class TestForgedTokens:
    """A token that control did not make for this host, this session and now."""

    async def _claims(self, edge: Edge, ann: Account) -> tuple[str, dict[str, object]]:
        token = (await edge.token(ann, "web")).partition("=")[2]
        payload = token.split(".")[1]
        claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=="))
        return token, claims

    async def _opens(self, edge: Edge, token: str) -> bool:
        got = await said(edge, "web", f"Cookie: {TOKEN_COOKIE}={token}")
        assert got is None or got.status in (200, 400, 401)
        return got is not None and got.status == 200

    @pytest.mark.parametrize(
        "header",
        [
            {"alg": "none"}, {"alg": "None"}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": "ES256"},
            {"alg": "HS256", "kid": "../../../../dev/null"}, {"alg": "HS256", "kid": "' OR 1=1 --"},
            {"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}}, {"alg": "HS256", "jku": "https://e.x/"},
            {"alg": ["HS256", "none"]}, {"alg": "HS256", "crit": ["exp"]}, {}, {"typ": "JWE"},
        ],
    )  # fmt: skip
    async def test_the_header_of_a_token_decides_nothing(
        self, edge: Edge, ann: Account, web: Recorder, header: dict[str, object]
    ) -> None:
        good, claims = await self._claims(edge, ann)
        payload = json.dumps(claims).encode()
        certificate = (edge.keys / "ca.pem").read_bytes()
        for key in (None, b"", b"\0", b"\0" * 32, certificate):  # what a confused check would use
            assert not await self._opens(edge, unsigned(header, payload, key))
        assert not await self._opens(edge, unsigned(header, payload) + good.rpartition(".")[2])
        assert not web.raw

    async def test_no_part_may_be_changed_or_left_out(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        good, claims = await self._claims(edge, ann)
        header, payload, signature = good.split(".")
        twice = json.dumps(claims)[:-1].encode() + b', "aud": "web.atoll.localhost"}'
        for forged in (
            "", ".", "..", "...", header, f"{header}.{payload}", f"{header}.{payload}.",
            f".{payload}.{signature}", f"{header}..{signature}", f"{header}.{payload}.{signature[:-4]}",
            f"{header}.{payload}.{'A' * len(signature)}", f"{header}.{b64url(twice)}.{signature}",
            f"{header}.{payload}A.{signature}", f"{header}=.{payload}.{signature}",
            f"{header}.{payload}==.{signature}", f"{header} .{payload}.{signature}",
            f"{header}.{payload}.{signature}.{signature}", f"x.{good}", good.swapcase(),
            f"%22{good}%22", good.replace(".", "%2e"), f"Bearer {good}", "A" * 8000,
        ):  # fmt: skip
            assert not await self._opens(edge, forged), forged
        assert not web.raw
        assert await self._opens(edge, good)

    @pytest.mark.parametrize(
        "changed",
        [{"aud": "web.atoll.localhost."}, {"aud": "WEB.atoll.localhost"}, {"aud": "atoll.localhost"},
         {"aud": ["web.atoll.localhost"]}, {"aud": "*"}, {"aud": ""}, {"exp": "9999999999"},
         {"exp": 1 << 63}, {"exp": -1}, {"exp": 0}, {"exp": None}, {"exp": 1e300}, {"sub": "*"},
         {"sub": "|"}, {"sub": ""}, {"sub": None}, {"sub": "x|acct"}],
    )  # fmt: skip
    async def test_even_with_our_key_only_what_control_writes_opens(
        self, edge: Edge, ann: Account, web: Recorder, changed: dict[str, object]
    ) -> None:
        """Nobody but control has it; still, no odd value may be read as a good one."""
        _, claims = await self._claims(edge, ann)
        signing = edge.ring.signing
        key = signing.text.encode()
        header: dict[str, object] = {"alg": "HS256", "kid": signing.kid}
        payload = json.dumps(claims | changed).encode()
        got = await said(edge, "web", f"Cookie: {TOKEN_COOKIE}={unsigned(header, payload, key)}")
        assert got is not None
        assert got.status in (401, 403)
        assert not web.raw
        payload = json.dumps(claims).encode()  # the same by the same means, unchanged
        assert await self._opens(edge, unsigned(header, payload, key))


class TestCookies:
    """Cookies that another host of the cloud set, or tries to read."""

    async def test_of_two_tokens_the_one_believed_is_the_one_named(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        """`__Host-` keeps browsers from sending two. Whoever does is one of the two, not a mix."""
        eve = await edge.account(f"eve-{time.monotonic_ns()}@example.com")
        edge.cloud.put(private("web", web.address, ann, eve))
        await edge.agreed()
        web.clear()
        ours, theirs = await edge.token(ann, "web"), await edge.token(eve, "web")
        for lines in (
            (f"Cookie: {ours}; {theirs}",),
            (f"Cookie: {ours}", f"Cookie: {theirs}"),
            (f"Cookie: a=b; {ours}", f"Cookie: c=d; {theirs}; e=f"),
        ):
            web.clear()
            got = await said(edge, "web", *lines)
            assert got is not None
            if got.status == 200:
                (request,) = web.seen
                who = (*request.values("x-atoll-user-id"), *request.values("x-atoll-email"))
                assert who in {(x.id.encode(), x.email.encode()) for x in (ann, eve)}
            for token in (ours, theirs):
                assert token.encode() not in web.raw
                assert token.encode().rpartition(b".")[2] not in web.raw

    @pytest.mark.parametrize(
        "jar",
        ["{0}", "a=b;{0}", "a=b;  {0}  ;c=d", 'a="b; {0}"', "a={0}", "{0}; {0}", "a=b;\t{0}",
         "$Version=1; {0}; $Path=/", "{0}\r\nCookie: {0}", "{0}\r\n ; a=b", ",{0}", "a=b, {0}"],
    )  # fmt: skip
    async def test_no_vm_is_given_a_token(
        self, edge: Edge, ann: Account, web: Recorder, jar: str
    ) -> None:
        token = await edge.token(ann, "web")
        for name in ("web", "open"):
            await said(edge, name, f"Cookie: {jar.format(token)}")
        assert token.rpartition(".")[2].encode() not in web.raw
        assert TOKEN_COOKIE.encode() not in web.raw

    async def test_session_cookie_opens_no_vm_and_never_gets_there(
        self, edge: Edge, ann: Account, web: Recorder
    ) -> None:
        """It is kept on the cloud's host by its name; even sent by hand it is worth nothing here."""
        session = await edge.sessions.new_session(ann.id)
        for value in (f"{SESSION_COOKIE}={session}", f"{TOKEN_COOKIE}={session}"):
            got = await said(edge, "web", f"Cookie: {value}")
            assert got is not None
            assert got.status == 401
            await said(edge, "open", f"Cookie: {value}")
        assert session.encode() not in web.raw

    @pytest.mark.parametrize(
        "blank",
        ["\xa0", "\xc2\xa0", "\x85", "\xe2\x80\x80", "\xe3\x80\x80", "\x1c", "\x0b", "\x0c"],
    )
    async def test_a_name_that_only_looks_like_ours_signs_nobody_in(
        self, edge: Edge, ann: Account, blank: str
    ) -> None:
        """A page of a VM may set such a name for the whole domain; only after `strip` is it ours."""
        eve = await edge.account(f"eve-{time.monotonic_ns()}@example.com")
        own = f"{SESSION_COOKIE}={await edge.sessions.new_session(ann.id)}"
        tossed = f"{blank}{SESSION_COOKIE}={await edge.sessions.new_session(eve.id)}"
        for jar in (f"{own}; {tossed}", f"{tossed}; {own}", tossed):
            got = await said(edge, "", f"Cookie: {jar}", "Accept: text/html", target="/docs")
            assert got is not None
            assert eve.email.encode() not in got.body

    async def test_signing_in_makes_a_session_of_its_own(self, edge: Edge, ann: Account) -> None:
        """No session that somebody else put into the browser before becomes the person's."""
        eve = await edge.account(f"eve-{time.monotonic_ns()}@example.com")
        fixed = await edge.sessions.new_session(eve.id)
        code = await edge.sessions.login_code(ann.id)
        answer = await edge.page(
            edge.url("", f"/login/{code}"), "-X", "POST", "-H", f"Cookie: {SESSION_COOKIE}={fixed}",
            "-c", "-",
        )  # fmt: skip
        assert answer.status == 303
        (made,) = re.findall(rf"\t{SESSION_COOKIE}\t(\S+)", answer.body)  # curl's jar is in there
        assert made != fixed
        assert await edge.sessions.account_for_session(made) == ann
        still = await edge.sessions.account_for_session(fixed)
        assert still is not None
        assert still.id == eve.id
