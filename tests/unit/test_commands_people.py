"""Who may have an account, who is here, and where one is signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from atoll.base.aio import poll
from atoll.base.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from atoll.config import Config
from atoll.domain.account import Door
from atoll.domain.browser import browser_of
from atoll.services import joining as module
from atoll.services.joining import INVITED_S, Joining
from atoll.services.maildir import Letter
from atoll.services.sessions import SEEN_EVERY_S
from atoll.store.engine import Tx
from atoll.store.schema import sessions as table
from fakes.engine import FakeEngine
from framework.cloud import Control, control

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    config = Config.model_validate({"accounts": {"domains": ["corp.example"]}})
    async with (
        engine.serving(),
        control(tmp_path / "control", engine, config=config, loops=True) as made,
    ):
        yield made


async def letters(cloud: Control, count: int = 1) -> tuple[Letter, ...]:
    async def check() -> tuple[Letter, ...] | None:
        found = await cloud.cloud.mail.letters(50)
        return found if len(found) >= count else None

    return await poll(check, seconds=10, what="mail", every=0.005)


# -- invitations -----------------------------------------------------------------------------


async def test_an_invitation_is_mailed_listed_and_admits_once_the_address_is_proven(
    cloud: Control,
) -> None:
    reply = await cloud.run("invite Eve@Example.com --message 'Come and\\nsee'")
    assert reply.data == {
        "status": "invited",
        "email": "eve@example.com",
        "expires_at": "2027-01-22T08:00:00Z",
    }
    (letter,) = await letters(cloud)
    assert letter.to == "eve@example.com"
    assert letter.subject == "ann@example.com invites you to atoll.localhost"
    assert "https://atoll.localhost:8443/login" in letter.text
    assert "Come and" in letter.text
    (entry,) = (await cloud.data("invite ls"))["invitations"]
    assert (entry["email"], entry["invited_by"]) == ("eve@example.com", "ann@example.com")
    account = await cloud.cloud.joining.admit("EVE@example.com")
    assert (account.email, account.is_admin) == ("eve@example.com", False)
    assert await cloud.cloud.joining.admit("eve@example.com") == account
    assert (await cloud.run("invite ls")).text == "Nobody is invited"
    with pytest.raises(Conflict, match="has an account already"):
        await cloud.run("invite eve@example.com")


async def test_an_invitation_ends_and_can_be_taken_back(cloud: Control) -> None:
    await cloud.run("invite eve@example.com")
    await cloud.run("invite dan@example.com")
    await cloud.run("invite rm Dan@example.com")
    with pytest.raises(Denied, match=r"dan@example\.com has no account here"):
        await cloud.cloud.joining.admit("dan@example.com")
    cloud.clock.time += INVITED_S + 1
    assert (await cloud.data("invite ls"))["invitations"] == []
    with pytest.raises(Denied):
        await cloud.cloud.joining.admit("eve@example.com")
    with pytest.raises(NotFound):
        await cloud.run("invite rm dan@example.com")


@pytest.mark.parametrize("line", ["invite e@example.com", "invite ls", "invite rm e@x", "mail"])
async def test_only_admins_invite_and_read_mail(cloud: Control, line: str) -> None:
    with pytest.raises(Denied, match="only an admin"):
        await cloud.run(line, cloud.bob)


async def test_invitations_are_bounded_and_old_ones_make_room(
    cloud: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_INVITATIONS", 2)
    for name in ("a", "b", "b"):
        await cloud.run(f"invite {name}@example.com")
    with pytest.raises(Exhausted):
        await cloud.run("invite c@example.com")


async def test_an_invitation_stands_when_its_mail_cannot_go_out(
    cloud: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atoll.services.mail.QUEUED", 0)
    reply = await cloud.run("invite eve@example.com")
    assert "no mail goes to eve@example.com" in reply.data["problem"]
    assert (await cloud.data("invite ls"))["invitations"]


@pytest.mark.parametrize(
    "email", ["eve@example.com", "eve@corp.example.com", "eve@xcorp.example", "eve@a.corp.example"]
)
async def test_strangers_stay_outside(cloud: Control, email: str) -> None:
    assert not await cloud.cloud.joining.may_come(email)
    with pytest.raises(Denied):
        await cloud.cloud.joining.admit(email)


async def test_addresses_of_an_allowed_domain_and_those_waited_for_join(cloud: Control) -> None:
    assert await cloud.cloud.joining.may_come("eve@corp.example")
    assert (await cloud.cloud.joining.admit("Eve@CORP.example")).email == "eve@corp.example"

    async def waits(_tx: Tx, email: str) -> bool:
        return email == "dan@example.com"

    changes = cloud.cloud.changes
    joining = Joining(store=cloud.store, changes=changes, waited_for=[waits], now=cloud.clock)
    before = changes.version
    assert (await joining.admit("dan@example.com")).email == "dan@example.com"
    assert changes.version > before
    with pytest.raises(Invalid):
        await joining.admit("dan@example.com\n")


async def test_people(cloud: Control) -> None:
    await cloud.run("new --name web", cloud.bob)
    everybody = (await cloud.data("people"))["people"]
    assert [(one["email"], one["admin"]) for one in everybody] == [
        ("ann@example.com", True),
        ("bob@example.com", False),
    ]
    assert [one["last_seen"] for one in everybody] == [None, "2027-01-15T08:00:00Z"]
    own = (await cloud.data("people", cloud.bob))["people"]
    assert [one["email"] for one in own] == ["bob@example.com"]
    assert "admin" in (await cloud.run("people")).text


# -- mail ------------------------------------------------------------------------------------


async def test_mail_is_shown_as_text_that_moves_no_terminal(cloud: Control) -> None:
    assert (await cloud.run("mail")).text == "No mail"
    await cloud.cloud.mail.send(to="e@x", subject="a\x1b[2Jb", text="<b>\x1b]0;x\x07\nline")
    await letters(cloud)
    (letter,) = (await cloud.data("mail"))["letters"]
    assert (letter["to"], letter["subject"], letter["undelivered"]) == ("e@x", "a [2Jb", None)
    assert letter["text"] == "<b>]0;x\nline\n"
    assert "\x1b" not in (await cloud.run("mail")).text


# -- sessions --------------------------------------------------------------------------------


async def test_sessions_are_listed_with_what_they_are_known_by(cloud: Control) -> None:
    made = await cloud.sessions.new_session(
        cloud.ann.account.id, user_agent=FIREFOX, source="192.0.2.7", how="passkey"
    )
    await cloud.sessions.new_session(cloud.bob.account.id)
    session = await cloud.sessions.session(made)
    assert session is not None
    (entry,) = (await cloud.data("session ls"))["sessions"]
    assert entry == {
        "id": session.key[:12],
        "browser": "Firefox on Linux",
        "source": "192.0.2.7",
        "how": "passkey",
        "since": "2027-01-15T08:00:00Z",
        "last_seen": "2027-01-15T08:00:00Z",
        "expires_at": "2027-01-15T09:00:00Z",
        "current": False,
    }
    here = replace(cloud.ann, door=Door.WEB, token=f"web:{session.key[:12]}")
    (entry,) = (await cloud.data("session ls", here))["sessions"]
    assert entry["current"] is True
    assert "this one" in (await cloud.run("session ls", here)).text


async def test_last_seen_is_coarse(cloud: Control) -> None:
    session_id = await cloud.sessions.new_session(cloud.ann.account.id, source="192.0.2.7")

    async def seen() -> tuple[float, str]:
        session = await cloud.sessions.session(session_id)
        assert session is not None
        await cloud.sessions.seen(session, source="198.51.100.1")
        async with cloud.store.read() as tx:
            row = (await tx.execute(select(table.c.last_seen_at, table.c.source))).one()
        return row.last_seen_at, row.source

    start = cloud.clock()
    cloud.clock.time += SEEN_EVERY_S - 1
    assert await seen() == (start, "192.0.2.7")
    cloud.clock.time += 2
    assert await seen() == (cloud.clock(), "198.51.100.1")


async def test_sessions_end_one_by_one_others_and_all(cloud: Control) -> None:
    made = [await cloud.sessions.new_session(cloud.ann.account.id) for _ in range(4)]
    bobs = await cloud.sessions.new_session(cloud.bob.account.id)
    keys = [found.key for id_ in made if (found := await cloud.sessions.session(id_))]
    here = replace(cloud.ann, door=Door.WEB, token=f"web:{keys[0][:12]}")

    async def live() -> list[bool]:
        return [await cloud.sessions.session(id_) is not None for id_ in (*made, bobs)]

    before = cloud.cloud.changes.version
    reply = await cloud.run(f"session rm {keys[1][:12]}", here)
    assert reply.text == "signed 1 browser out"
    assert cloud.cloud.changes.version > before  # terminals, streams and the edge look again
    assert set(await cloud.sessions.revoked()) == {keys[1]}
    assert await live() == [True, False, True, True, True]
    assert (await cloud.run("session rm --others", here)).text == "signed 2 browsers out"
    assert await live() == [True, False, False, False, True]
    assert (await cloud.run("session rm --all", here)).text == "signed 1 browser out"
    assert await live() == [False] * 4 + [True]
    bob = await cloud.sessions.session(bobs)
    assert bob is not None
    with pytest.raises(NotFound, match="is no browser of yours"):
        await cloud.run(f"session rm {bob.key[:12]}")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Safari/604.1", "Safari on iPhone"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "unknown"),
        ("\n  \t", "unknown"),
        ("x" * 500, "x" * 40),
    ],
)
def test_what_browsers_are_called(said: str, shown: str) -> None:
    assert browser_of(said) == shown
