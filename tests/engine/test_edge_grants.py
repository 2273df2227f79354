"""Grants at the real HAProxy: who may open which port and path, until when, and what ends with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.domain.account import Account
from atoll.domain.sharing import EVERY_PORT, EVERYBODY, Opening, may_open
from framework.edge import Edge, running_edge, upstream
from framework.published import published

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
WEB = "127.0.1.1"
HIGH = 23001


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="edge")
async def _edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        async with upstream("web", WEB), upstream("high", WEB, HIGH):
            yield edge


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="bob")
async def _bob(edge: Edge) -> Account:
    """Somebody who owns nothing."""
    return await edge.account("bob@example.com")


async def shared(edge: Edge, *openings: Opening) -> None:
    """The VM `web` with these openings."""
    edge.cloud.put(published("web", WEB, {"acct-owner"}))
    edge.cloud.change("web", openings=frozenset(openings))
    await edge.agreed()


def opening(account: Account | None, **values: object) -> Opening:
    """Of an account, or of everybody."""
    who = EVERYBODY if account is None else account.id
    return Opening(account=who, **({"port": 8000} | values))  # type: ignore[arg-type]


async def status(
    edge: Edge, account: Account | None, path: str = "/", port: int | None = None
) -> int:
    """What a program gets."""
    cookie = () if account is None else ("-H", f"Cookie: {await edge.token(account, 'web')}")
    answer = await edge.curl(edge.url("web", path, port), *cookie, "--path-as-is")
    return answer.status


async def test_one_port_is_not_all(edge: Edge, bob: Account) -> None:
    await shared(edge, opening(bob, port=HIGH))
    assert await status(edge, bob) == 403
    assert await status(edge, bob, port=HIGH) == 200
    await shared(edge, opening(bob))
    assert await status(edge, bob) == 200
    assert await status(edge, bob, port=HIGH) == 403
    await shared(edge, opening(bob, port=EVERY_PORT))
    assert [await status(edge, bob), await status(edge, bob, port=HIGH)] == [200, 200]


async def test_several_public_ports_and_a_path_for_webhooks(edge: Edge, bob: Account) -> None:
    await shared(edge, opening(None, port=HIGH), opening(None, path="/hooks"))
    assert await status(edge, None, port=HIGH) == 200
    assert await status(edge, None, "/hooks/github?a=b") == 200
    for path in (
        "/",
        "/hook",
        "/hooks-secret",
        "/hooks/../admin",
        "/hooks/..;/admin",
        "/hooks%2f..%2fadmin",
    ):
        assert await status(edge, None, path) == 401
        assert await status(edge, bob, path) == 403
    assert await status(edge, bob, "/hooks") == 200


async def test_where_everybody_may_send_another_sites_page_sends_for_nobody(
    edge: Edge, bob: Account
) -> None:
    """A page of another VM is of the same site for a browser: cookies come along."""
    await shared(edge, opening(bob), opening(None, path="/hooks"))
    cookie = ("-H", f"Cookie: {await edge.token(bob, 'web')}")
    own, other = (f"https://{edge.host(name)}:{edge.port}" for name in ("web", "other"))
    for how, is_known in (
        ((), True),
        (("-X", "POST"), True),
        (("-X", "POST", "-H", f"Origin: {own}"), True),
        (("-H", f"Origin: {other}"), True),
        (("-X", "POST", "-H", f"Origin: {other}"), False),
        (("-X", "DELETE", "-H", "Origin: null"), False),
        (
            ("-H", f"Origin: {other}", "-H", "Connection: upgrade", "-H", "Upgrade: x"),
            False,
        ),
    ):
        answer = await edge.curl(edge.url("web", "/hooks/x"), "--http1.1", *cookie, *how)
        assert answer.status == 200
        assert (bob.email in answer.body) == is_known, how
        assert (bob.id in answer.body) == is_known, how


async def test_the_longest_that_covers_counts(edge: Edge, bob: Account) -> None:
    now = time.time()
    await shared(edge, opening(bob, until=now - 10), opening(bob, path="/a"))
    assert await status(edge, bob, "/a/b") == 200
    assert await status(edge, bob, "/b") == 403
    await shared(edge, opening(bob), opening(bob, path="/a", until=now - 10))
    assert await status(edge, bob, "/a/b") == 200


async def test_it_ends_by_itself_although_control_is_away(edge: Edge, bob: Account) -> None:
    """HAProxy has the end in its map, and a clock."""
    await shared(
        edge, opening(bob, until=time.time() + 2), opening(None, path="/p", until=time.time() + 2)
    )
    assert [await status(edge, bob), await status(edge, None, "/p")] == [200, 200]
    async with asyncio.timeout(10):
        while await status(edge, bob) == 200:
            pass
    assert [await status(edge, bob), await status(edge, None, "/p")] == [403, 401]


async def test_people_without_a_grant_are_led_to_control(edge: Edge, bob: Account) -> None:
    await shared(edge)
    jar = ("-H", f"Cookie: {await edge.token(bob, 'web')}")
    page = await edge.page(edge.url("web", "/x?y=z"), *jar)
    assert page.status == 302
    assert page.headers["location"].startswith(f"{edge.url('', '')}/login?to=https%3A%2F%2Fweb.")
    session_id = await edge.sessions.new_session(bob.id)
    told = await edge.page(
        page.headers["location"], "-H", f"Cookie: __Host-atoll-session={session_id}"
    )
    assert told.status == 403
    assert "share ask" in told.body
    assert "it is not shared with bob@example.com" in told.body


paths = st.lists(
    st.sampled_from(
        [
            "/",
            "..",
            ".",
            ";",
            "%2f",
            "%2e",
            "%5c",
            "docs",
            "a",
            "%25",
            "%c0%af",
            "%20",
            "%",
            "~",
            "%C3%A9",
        ]
    ),
    max_size=7,
).map(lambda parts: "/docs" + "".join(parts))


@given(path=paths)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_the_rules_say_what_the_domain_says(edge: Edge, bob: Account, path: str) -> None:
    limited = opening(bob, path="/docs")
    if edge.cloud.vms.get("web") is None or limited not in edge.cloud.vms["web"].openings:
        await shared(edge, limited)
    expected = may_open([limited], bob.id, port=8000, path=path, now=time.time())
    assert await status(edge, bob, path) == (200 if expected else 403), path
