"""ACME servers that refuse, limit, talk nonsense or say nothing: what is said of it, and what waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from atoll.base.errors import AtollError
from atoll.config import Acme
from atoll.domain.certificate import Proof, Wanted
from atoll.services.certificates import issuer as module
from atoll.services.certificates.issuer import Issuer
from atoll.services.certificates.proofs import HttpProofs
from atoll.services.certificates.renewing import Names, Renewing
from atoll.services.certificates.shelf import ACCOUNT, Shelf
from atoll.services.changes import Changes
from fakes.unwilling_acme import Says, UnwillingAcme, problem

SHOP, BLOG = "shop.test", "blog.test"


@pytest.fixture(name="server")
async def _server() -> AsyncIterator[UnwillingAcme]:
    server = UnwillingAcme()
    async with server.serving():
        yield server


class Wish:
    """A shelf, and what is wanted of the server."""

    def __init__(self, server: UnwillingAcme, folder: Path) -> None:
        self.time = 1_800_000_000.0
        self.shelf = Shelf(folder / "certificates")
        self.changes = Changes()
        self.issuer = Issuer(
            settings=Acme(directory=f"{server.url}/directory", agree=True),
            key_path=folder / "account",
            provers={Proof.HTTP: HttpProofs(changes=self.changes)},
            every_s=0.01,
            patience_s=0.2,
        )
        self.renewing = Renewing(
            shelf=self.shelf, issuer=self.issuer, names=self.names, changes=self.changes,
            now=lambda: self.time, chance=lambda: 0.0,
        )  # fmt: skip

    async def names(self) -> Names:
        """Two."""
        wanted = tuple(Wanted(hosts=(one,), proof=Proof.HTTP) for one in (SHOP, BLOG))
        return Names(wanted=wanted, kept=frozenset())


@pytest.fixture(name="wish")
def _wish(server: UnwillingAcme, tmp_path: Path) -> Wish:
    return Wish(server, tmp_path)


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ({"directory": Says(200, b"<html>")}, "not understood"),
        ({"directory": Says(200, {})}, "not understood"),
        ({"directory": Says(503, b"")}, "the ACME server"),
        ({"new-nonce": Says(500, b"")}, "the ACME server"),
        ({"new-nonce": Says()}, "does not answer"),
        ({"new-acct": problem(403, "unauthorized", "no more accounts")}, "no more accounts"),
        ({"new-order": problem(403, "rejectedIdentifier", "not that one")}, "not that one"),
        ({"new-order": Says(201, {"status": 7})}, "not understood"),
        ({"new-order": Says(201, b"\xff" * 5000)}, "not understood"),
        ({"authz": problem(500, "serverInternal", "oh")}, "serverInternal: oh"),
        ({}, "takes no proof of shop.test by http-01"),
        ({"directory": Says(302, b"", {"Location": "http://127.0.0.1:1/"})}, "does not answer"),
    ],
)
async def test_every_refusal_is_said_in_a_line(
    server: UnwillingAcme, wish: Wish, says: Mapping[str, Says], said: str
) -> None:
    server.says.update(says)
    with pytest.raises(AtollError) as refused:
        await wish.issuer.issue(Wanted(hosts=(SHOP,), proof=Proof.HTTP))
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 500


async def test_a_server_that_says_nothing_is_left(
    server: UnwillingAcme, wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.3)
    server.says["directory"] = Says(hangs=True)
    with pytest.raises(AtollError, match="does not answer"):
        await wish.issuer.connect()


async def test_a_server_that_wants_an_account_made_elsewhere(
    server: UnwillingAcme, wish: Wish
) -> None:
    found = server._willing("directory")
    server.says["directory"] = Says(200, {**found.body, "meta": {"externalAccountRequired": True}})
    with pytest.raises(AtollError, match="EAB"):
        await wish.issuer.connect()


async def test_a_limit_holds_for_all_names_and_as_long_as_the_server_says(
    server: UnwillingAcme, wish: Wish
) -> None:
    server.says["new-order"] = problem(429, "rateLimited", "too many", Retry_After="7200")
    due = await wish.renewing.once()
    assert server.asked["new-order"] == 1, "the second name is not even asked for"
    assert due >= wish.time + 7200
    assert "rateLimited: too many" in wish.shelf.standing(SHOP).problem
    assert wish.shelf.standing(ACCOUNT).failures == 1
    wish.time += 7100
    await wish.renewing.once()
    assert server.asked["new-order"] == 1
    wish.time += 200
    await wish.renewing.once()
    assert server.asked["new-order"] == 2


async def test_a_refused_name_holds_up_no_other_and_waits_longer_each_time(
    server: UnwillingAcme, wish: Wish
) -> None:
    server.says["new-order"] = problem(403, "rejectedIdentifier", "not that one")
    waits = []
    for attempt in range(1, 5):
        due = await wish.renewing.once()
        assert server.asked["new-order"] == 2 * attempt, "both names"
        waits.append(due - wish.time)
        wish.time = due
    assert waits == sorted(set(waits)), waits
    assert wish.shelf.standing(ACCOUNT).failures == 0
