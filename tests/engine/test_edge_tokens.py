"""Tokens at a VM's address with the real HAProxy: kept by the cloud, or signed by their holders."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atoll.base import ids
from atoll.base.aio import TaskGroup, poll
from atoll.base.proc import run
from atoll.domain.account import Account
from atoll.doors.edge import asked
from atoll.services.public_key import parse_key
from atoll.store import accounts, vms
from atoll.store.accounts import SshKey
from contracts.store import vm
from framework.clients import client
from framework.edge import Answer, Edge, running_edge, upstream
from framework.signing import SshKeyFile, b64url

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
WEB, OTHER = "127.0.1.1", "127.0.1.2"
NAMESPACE = "v0@web.atoll.localhost"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge, upstream("web", WEB), upstream("high", WEB, 23001):
        async with upstream("other", OTHER):
            yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="ann")
async def _ann(edge: Edge) -> Account:
    """Owns `web` and `other`, which are private, and `open`."""
    ann = await edge.account("ann@example.com")
    async with edge.store.begin() as tx:
        for number, name in enumerate(("web", "other", "open"), start=1):
            await vms.add(tx, vm(number, name=name, owner=ann.id))
    edge.publish("web", WEB, ann)
    edge.publish("other", OTHER, ann)
    edge.publish("open", OTHER, ann, is_public=True)
    await edge.agreed()
    return ann


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> SshKeyFile:
    return SshKeyFile.new(tmp_path, "key")


async def kept(edge: Edge, owner: Account, *, number: int = 1, ends: float | None = None) -> str:
    """A token for the VM of this number, which HAProxy knows."""
    _, token = await edge.tokens.new(owner, ids.new("t"), vm=f"vm-{number:012d}", expires_at=ends)
    await edge.agreed()
    return token


async def added(edge: Edge, owner: Account, key: SshKeyFile, **limits: str) -> str:
    """Make this the account's key; returns its fingerprint."""
    parsed = parse_key(key.line)
    async with edge.store.begin() as tx:
        made = SshKey(
            fingerprint=parsed.fingerprint, account=owner.id, name=ids.new("k"),
            public_key=key.line, created_at=0.0, **limits,
        )  # fmt: skip
        await accounts.add_key(tx, made)
    return parsed.fingerprint


def ours(token: str) -> tuple[str, str]:
    """curl's arguments for the header that is ours alone."""
    return "-H", f"X-Atoll-Authorization: Bearer {token}"


class TestKept:
    """`ssh-key generate-api-key --vm web`."""

    @pytest.mark.parametrize("version", ["--http1.1", "--http2"])
    async def test_every_way_to_show_it(self, edge: Edge, ann: Account, version: str) -> None:
        token = await kept(edge, ann)
        for way in (
            ours(token),
            ("-H", f"Authorization: Bearer {token}"),
            ("-H", f"authorization: bearer  {token}"),
            ("-u", f"git:{token}"),
            ("-u", f":{token}"),
        ):
            answer = await edge.curl(edge.url("web"), version, *way)
            assert answer.status == 200, way
            assert f"x-atoll-user-id: {ann.id}\r\n" in answer.body
            assert f"x-atoll-email: {ann.email}\r\n" in answer.body
            assert "x-atoll-token-ctx" not in answer.body
            assert "authorization" not in answer.body.lower()
            assert token not in answer.body

    async def test_all_ports_of_its_vm_and_no_other_vm(self, edge: Edge, ann: Account) -> None:
        way = ours(await kept(edge, ann))
        for url in (edge.url("web", port=23001), edge.url("23001-web")):
            assert (await edge.curl(url, *way)).headers["x-upstream"] == "high"
        for name in ("other", "open", "nosuch"):
            assert (await edge.curl(edge.url(name), *way)).status == 401

    async def test_one_for_no_vm_or_unknown_opens_nothing(self, edge: Edge, ann: Account) -> None:
        _, whole = await edge.tokens.new(ann)
        await edge.agreed()
        for token in (whole, "atoll1." + "x" * 43, "atoll1.", "", "x", "0", "atoll0.e30.e30"):
            answer = await edge.curl(edge.url("web"), *ours(token))
            assert answer.status == 401, token
            assert json.loads(answer.body)["code"] == "unauthenticated"

    async def test_a_bad_token_is_refused_where_a_cookie_is_good(
        self, edge: Edge, ann: Account
    ) -> None:
        jar = ("-H", f"Cookie: {await edge.token(ann, 'web')}")
        assert (await edge.curl(edge.url("web"), *jar)).status == 200
        assert (await edge.curl(edge.url("web"), *jar, *ours("atoll1.x"))).status == 401

    async def test_without_a_grant_it_opens_nothing(self, edge: Edge, ann: Account) -> None:
        bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
        answer = await edge.curl(edge.url("web"), *ours(await kept(edge, bob)))
        assert answer.status == 403

    async def test_it_is_who_asks_whatever_cookie_comes_along(
        self, edge: Edge, ann: Account
    ) -> None:
        bob = await edge.account(f"bob-{time.monotonic_ns()}@example.com")
        jar = ("-H", f"Cookie: {await edge.token(ann, 'web')}")
        assert (await edge.curl(edge.url("web"), *jar)).status == 200
        token = await kept(edge, bob)
        for given in (ours(token), ("-H", f"Authorization: Bearer {token}")):
            assert (await edge.curl(edge.url("web"), *jar, *given)).status == 403

    async def test_ends_with_its_time(self, edge: Edge, ann: Account) -> None:
        token = await kept(edge, ann, ends=time.time() + 1.5)
        async with Stream(edge, "web", ours(token)) as ended:
            assert (await edge.curl(edge.url("web"), *ours(token))).status == 200
            async with asyncio.timeout(5):
                await ended.wait()
        assert (await edge.curl(edge.url("web"), *ours(token))).status == 401

    async def test_removed_it_is_over_within_a_second(self, edge: Edge, ann: Account) -> None:
        made, token = await edge.tokens.new(ann, "brief", vm="vm-000000000001")
        await edge.agreed()
        async with Stream(edge, "web", ours(token)) as ended:
            await edge.tokens.remove(ann, made.label)
            async with asyncio.timeout(1):
                await ended.wait()
        assert (await edge.curl(edge.url("web"), *ours(token))).status == 401


class TestForeign:
    """Credentials that are the VM's own business."""

    async def test_pass_where_the_visitor_is_let_in_otherwise(
        self, edge: Edge, ann: Account
    ) -> None:
        jar = ("-H", f"Cookie: {await edge.token(ann, 'web')}")
        for own in ("Bearer app-token", "Basic YTpi", "Digest x", "Bearer atoll2.x"):
            header = ("-H", f"Authorization: {own}")
            for name, more in (("web", jar), ("open", ()), ("web", ours(await kept(edge, ann)))):
                answer = await edge.curl(edge.url(name), *header, *more)
                assert answer.status == 200
                assert f"authorization: {own}\r\n" in answer.body
            assert (await edge.curl(edge.url("web"), *header)).status == 401

    async def test_authorization_given_twice_is_refused(self, edge: Edge, ann: Account) -> None:
        token = await kept(edge, ann)
        twice = ("-H", f"Authorization: Bearer {token}", "-H", "Authorization: Bearer x")
        for way in (twice, (*twice[2:], *twice[:2])):
            assert (await edge.curl(edge.url("open"), *way)).status == 400

    async def test_what_a_401_asks_for(self, edge: Edge, ann: Account) -> None:
        git = await edge.curl(edge.url("web"), "-A", "git/2.39.5")
        assert git.headers["www-authenticate"] == f'Basic realm="{edge.host("web")}"'
        program = await edge.curl(edge.url("web"))
        assert program.headers["www-authenticate"] == f'Bearer realm="{edge.host("web")}"'
        page = await edge.page(edge.url("web"))
        assert "www-authenticate" not in page.headers
        form = await edge.page(edge.url("web"), "-d", "")
        assert (form.status, "www-authenticate" in form.headers) == (401, False)

    async def test_git_gets_in_by_itself(self, edge: Edge, ann: Account, tmp_path: Path) -> None:
        token = await kept(edge, ann)
        config = f"http.curloptResolve={edge.host('web')}:{edge.port}:127.0.0.1"
        url = edge.url("web", "/x.git").replace("https://", f"https://git:{token}@")
        argv = ["env", f"GIT_SSL_CAINFO={edge.keys / 'ca.pem'}", "git", "-c", config, "ls-remote"]
        done = await run([*argv, url], seconds=20, check=False)
        # The upstream is no git server: what matters is that git got its answer.
        assert b"not valid: is this a git repository" in done.err, done.err


class TestSigned:
    """`atoll0.<permission>.<signature>` for the namespace of the VM's address."""

    async def test_asked_once_then_in_the_map(
        self, edge: Edge, ann: Account, key: SshKeyFile
    ) -> None:
        await added(edge, ann, key)
        token = key.token('{"ctx":{"role":"ci","n":[1, 2],"é":"\\n"}}', namespace=NAMESPACE)
        first = await edge.curl(edge.url("web"), *ours(token))
        await edge.agreed()
        second = await edge.curl(edge.url("23001-web"), "-u", f"x:{token}")
        for answer in (first, second):
            assert answer.status == 200
            assert f"x-atoll-user-id: {ann.id}\r\n" in answer.body
            ctx = 'x-atoll-token-ctx: {"role":"ci","n":[1,2],"\\u00e9":"\\n"}\r\n'
            assert ctx in answer.body
            assert token not in answer.body
        assert any(name.startswith(f"{edge.host('web')}|") for name in (await edge.shown()).tokens)

    async def test_another_vm_or_the_cloud_is_another_namespace(
        self, edge: Edge, ann: Account, key: SshKeyFile
    ) -> None:
        await added(edge, ann, key)
        for namespace in ("v0@atoll.localhost", "v0@other.atoll.localhost", "file"):
            token = key.token(namespace=namespace)
            assert (await edge.curl(edge.url("web"), *ours(token))).status == 401

    @pytest.mark.parametrize(
        ("permission", "status"),
        [
            ('{"exp":4000000000}', 200),
            ('{"exp":1000000000}', 401),
            ('{"nbf":4000000000}', 401),
            ('{"ctx":"' + "x" * 1022 + '"}', 200),
            ('{"ctx":"' + "x" * 1023 + '"}', 401),
            ('{"x":1}', 401),
        ],
    )
    async def test_permission(
        self, edge: Edge, ann: Account, key: SshKeyFile, permission: str, status: int
    ) -> None:
        await added(edge, ann, key)
        token = key.token(permission, namespace=NAMESPACE)
        assert (await edge.curl(edge.url("web"), *ours(token))).status == status

    async def test_limits_of_the_key(self, edge: Edge, ann: Account, tmp_path: Path) -> None:
        for number, (limits, status) in enumerate(
            (
                ({"vm": "vm-000000000001"}, 200),
                ({"vm": "vm-000000000002"}, 401),
                ({"tag": "ci"}, 401),
                ({"vm": "vm-000000000001", "user": "deploy"}, 401),
            )
        ):
            key = SshKeyFile.new(tmp_path, f"key{number}")
            await added(edge, ann, key, **limits)
            token = key.token(namespace=NAMESPACE)
            assert (await edge.curl(edge.url("web"), *ours(token))).status == status, limits

    async def test_a_key_nobody_added(self, edge: Edge, ann: Account, key: SshKeyFile) -> None:
        token = key.token(namespace=NAMESPACE)
        assert (await edge.curl(edge.url("web"), *ours(token))).status == 401

    async def test_ends_with_its_key_within_a_second(
        self, edge: Edge, ann: Account, key: SshKeyFile
    ) -> None:
        fingerprint = await added(edge, ann, key)
        token = key.token(namespace=NAMESPACE)
        async with Stream(edge, "web", ours(token)) as ended:
            await edge.agreed()
            async with edge.store.begin() as tx:
                await accounts.remove_key(tx, fingerprint)
            edge.cloud.changes.bump()
            async with asyncio.timeout(1):
                await ended.wait()
        assert (await edge.curl(edge.url("web"), *ours(token))).status == 401

    async def test_control_away_opens_nothing_new(
        self, edge: Edge, ann: Account, key: SshKeyFile
    ) -> None:
        await added(edge, ann, key)
        known, unknown = (key.token(f'{{"ctx":{n}}}', namespace=NAMESPACE) for n in (1, 2))
        assert (await edge.curl(edge.url("web"), *ours(known))).status == 200
        await edge.agreed()
        path = edge.files.questions
        path.rename(path.with_suffix(".away"))
        try:
            assert (await edge.curl(edge.url("web"), *ours(known))).status == 200
            assert (await edge.curl(edge.url("web"), *ours(unknown))).status == 503
            server = await asyncio.start_unix_server(says_nothing, path)
            path.chmod(0o666)
            async with server:
                began = time.monotonic()
                assert (await edge.curl(edge.url("web"), *ours(unknown))).status == 503
                assert time.monotonic() - began < asked.SECONDS + 2
        finally:
            path.with_suffix(".away").rename(path)
        assert (await edge.curl(edge.url("web"), *ours(unknown))).status == 200

    async def test_questions_end_in_a_refusal_when_they_are_many(self, key: SshKeyFile) -> None:
        async with running_edge() as edge:
            ann = await edge.account("ann@example.com")
            edge.publish("web", WEB, ann)
            await edge.agreed()
            forged = "atoll0.e30." + b64url(bytes(300))
            argv = ["curl", "-sZ", "--cacert", str(edge.keys / "ca.pem"), *ours(forged)]
            argv += ["-o", "/dev/null", "-w", "%{http_code}\n", "--connect-to", "::127.0.0.1:"]
            out = (await run([*argv, edge.url("web", "/?[1-500]")], seconds=60)).out.split()
            assert out.count(b"401") <= 300
            assert out.count(b"429") == len(out) - out.count(b"401") > 0


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A control that hangs."""
    await reader.read()
    writer.close()


class TestExedevNames:
    """`https.exedev_headers`."""

    async def test_both_names_and_neither_forged(self, key: SshKeyFile) -> None:
        async with running_edge(exedev_headers=True) as edge, upstream("web", "127.0.1.5"):
            ann = await edge.account("ann@example.com")
            async with edge.store.begin() as tx:
                await vms.add(tx, vm(1, name="web", owner=ann.id))
            edge.publish("web", "127.0.1.5", ann, is_public=True)
            await added(edge, ann, key)
            await edge.agreed()
            token = key.token('{"ctx":1}', namespace=NAMESPACE)
            answer = await edge.curl(
                edge.url("web"), "-H", f"X-ExeDev-Authorization: Bearer {token}"
            )
            self._named(answer, ann)
            forged = ("-H", "X-ExeDev-UserID: x", "-H", "X-ExeDev-Token-Ctx: x")
            assert "exedev" not in (await edge.curl(edge.url("web"), *forged)).body

    def _named(self, answer: Answer, ann: Account) -> None:
        for prefix, id_ in (("x-atoll", "user-id"), ("x-exedev", "userid")):
            assert f"{prefix}-{id_}: {ann.id}\r\n" in answer.body
            assert f"{prefix}-email: {ann.email}\r\n" in answer.body
            assert f"{prefix}-token-ctx: 1\r\n" in answer.body


class Stream:
    """An open `/sse` of a VM; gives an event that is set when it ends."""

    def __init__(self, edge: Edge, name: str, way: tuple[str, ...]) -> None:
        argv = ["curl", "-sN", "--cacert", str(edge.keys / "ca.pem"), *way]
        self._client = client([*argv, "--connect-to", "::127.0.0.1:", edge.url(name, "/sse")])
        self._group = TaskGroup()
        self._ended = asyncio.Event()

    async def __aenter__(self) -> asyncio.Event:
        process = await self._client.__aenter__()
        assert process.stdout is not None
        assert await process.stdout.readexactly(7) == b"data: 1"
        await self._group.__aenter__()

        async def watch() -> None:
            await process.wait()
            self._ended.set()

        self._task = self._group.create_task(watch())
        return self._ended

    async def __aexit__(self, *reason: object) -> None:
        self._task.cancel()
        await self._group.__aexit__(None, None, None)
        await self._client.__aexit__(None, None, None)


async def test_questions_are_answered_on_their_socket_alone(edge: Edge, ann: Account) -> None:
    """Whatever else is said there gets an empty line."""

    async def ask(line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(edge.files.questions)
        writer.write(line)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    for line in (
        b"",
        b"\n",
        b"web.atoll.localhost\n",
        b"web.evil x\n",
        b"\xff\xff x\n",
        b"a b c\n",
    ):
        assert await ask(line) == b"\n"
    assert await ask(b"x" * 30_000) in (b"", b"\n")

    async def is_there() -> bool | None:
        return edge.files.questions.exists() or None

    await poll(is_there, seconds=1, what="the socket")
