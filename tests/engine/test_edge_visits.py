"""What a VM's owner is told of its visitors, with the real HAProxy; traffic never waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atoll.base.aio import poll
from atoll.base.proc import run
from atoll.domain.account import Account
from atoll.domain.visit import Visit
from atoll.store import vms
from contracts.store import vm
from framework.edge import Edge, running_edge, upstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
WEB, OPEN, MUTE = "127.0.1.1", "127.0.1.2", "127.0.1.3"


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge, upstream("web", WEB), upstream("open", OPEN):
        yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="ann")
async def _ann(edge: Edge) -> Account:
    """Owns `web`, which is private, and `open`."""
    ann = await edge.account("ann@example.com")
    async with edge.store.begin() as tx:
        for number, name in enumerate(("web", "open"), start=1):
            await vms.add(tx, vm(number, name=name, owner=ann.id))
    edge.publish("web", WEB, ann)
    edge.publish("open", OPEN, ann, is_public=True)
    await edge.agreed()
    return ann


async def visit(edge: Edge, number: int, path: str) -> Visit:
    """The visit of this path, once it is written down."""

    async def look() -> Visit | None:
        await edge.visits.write()
        seen, _ = await edge.visits.latest(f"vm-{number:012d}", limit=1000)
        return next((one.visit for one in seen if one.visit.path == path), None)

    return await poll(look, seconds=5, what=f"the visit of {path}")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_who_what_and_how_much(edge: Edge, ann: Account, version: str) -> None:
    jar = ("-H", f"Cookie: {await edge.token(ann, 'web')}", version)
    path = f"/by-cookie{version}"
    began = time.time()
    await edge.curl(edge.url("web", f"{path}?secret=1"), *jar)
    seen = await visit(edge, 1, path)
    assert (seen.account, seen.by, seen.method, seen.status) == (ann.id, "cookie", "GET", 200)
    assert (seen.port, seen.source, seen.count, seen.is_let_in) == (8000, "127.0.0.1", 1, True)
    assert seen.bytes > 100
    assert abs(seen.at - began) < 5
    _, token = await edge.tokens.new(ann, f"t{version}", vm="vm-000000000001")
    await edge.agreed()
    await edge.curl(edge.url("web", f"/by-token{version}"), "-u", f"x:{token}", version)
    seen = await visit(edge, 1, f"/by-token{version}")
    assert (seen.account, seen.by) == (ann.id, "token")


async def test_refused_and_anonymous(edge: Edge, ann: Account) -> None:
    await edge.curl(edge.url("web", "/refused"))
    await edge.curl(edge.url("open", "/open"))
    refused, opened = await visit(edge, 1, "/refused"), await visit(edge, 2, "/open")
    assert (refused.account, refused.status, refused.is_let_in) == ("", 401, False)
    assert (opened.account, opened.status, opened.is_let_in) == ("", 200, True)
    assert "" in await edge.visits.last_opened("vm-000000000002")
    assert "" not in await edge.visits.last_opened("vm-000000000001")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_where_nothing_listens_is_told_and_nothing_else_is(
    edge: Edge, ann: Account, version: str
) -> None:
    for name, address in (("mute", MUTE), ("off", None)):
        edge.publish(name, address, ann)
    await edge.agreed()
    jars = {name: await edge.token(ann, name) for name in ("web", "mute", "off")}

    async def asked(name: str, path: str, *arguments: str) -> int:
        jar = ("-H", f"Cookie: {jars[name]}")
        return (await edge.curl(edge.url(name, path), *jar, *arguments, version)).status

    edge.misses.clear()
    assert await asked("off", "/") == 503  # it does not run
    assert await asked("web", f"/busy{version}") == 503  # its own server's word
    assert (await edge.curl(edge.url("mute"))).status == 401  # not let in
    assert await asked("mute", "/") == 503
    assert await asked("mute", "/", "-H", "Accept: text/html") == 503
    assert await asked("mute", "/", "-H", "Content-Type: application/grpc", "-d", "") == 503

    async def told() -> bool | None:
        return len(edge.misses) >= 3 or None

    await poll(told, seconds=5, what="the lines of what nothing listened to")
    assert (await visit(edge, 1, f"/busy{version}")).status == 503
    assert edge.misses == [("mute", 8000)] * 3


async def test_paths_are_bounded_and_escaped(edge: Edge, ann: Account) -> None:
    await edge.curl(edge.url("open", "/" + "x" * 5000))
    assert len((await visit(edge, 2, "/" + "x" * 199)).path) == 200
    await edge.curl(edge.url("open", '/a"b\\c%0a%22%20'), "--path-as-is", "-g")
    await visit(edge, 2, '/a"b\\c%0a%22%20')


async def test_sign_in_paths_are_not_written_down(edge: Edge, ann: Account) -> None:
    await edge.page(edge.url("web", "/__atoll/auth?code=secret"))
    await edge.page(edge.url("", "/login/secret"))
    await edge.curl(edge.url("open", "/after"))
    await visit(edge, 2, "/after")
    for number in (1, 2):
        seen, _ = await edge.visits.latest(f"vm-{number:012d}", limit=1000)
        assert not [one for one in seen if "atoll" in one.visit.path or "secret" in one.visit.path]


async def test_a_flood_is_sampled_and_loses_nothing_of_the_traffic(ann: Account) -> None:
    async with running_edge() as edge, upstream("open", "127.0.1.7"):
        bob = await edge.account("bob@example.com")
        async with edge.store.begin() as tx:
            await vms.add(tx, vm(1, name="open", owner=bob.id))
        edge.publish("open", "127.0.1.7", bob, is_public=True)
        await edge.agreed()
        argv = ["curl", "-sZ", "--cacert", str(edge.keys / "ca.pem"), "-o", "/dev/null"]
        argv += ["-w", "%{http_code}\n", "--connect-to", "::127.0.0.1:"]
        out = (await run([*argv, edge.url("open", "/?[1-3000]")], seconds=60)).out.split()
        assert out.count(b"200") == 3000
        await edge.visits.write()
        seen, _ = await edge.visits.latest("vm-000000000001", limit=1000)
        assert len(seen) < 50
        assert sum(one.visit.count for one in seen) >= 300  # exactly 3,000 by good luck only


async def test_nobody_reads_and_nobody_waits(edge: Edge, ann: Account) -> None:
    path = edge.files.visits
    path.rename(path.with_suffix(".away"))
    try:
        began = asyncio.get_running_loop().time()
        for _ in range(5):
            assert (await edge.curl(edge.url("open", "/unseen"))).status == 200
        assert asyncio.get_running_loop().time() - began < 5
    finally:
        path.with_suffix(".away").rename(path)
    await edge.curl(edge.url("open", "/seen-again"))
    await visit(edge, 2, "/seen-again")
