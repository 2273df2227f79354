"""Mail to a real SMTP server and to a Maildir: delivered, refused, late, and never with a header more."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from atoll.base.aio import TaskGroup, poll
from atoll.base.errors import Exhausted, Invalid
from atoll.config import Config
from atoll.services import mail as module
from atoll.services.mail import Mail, compose
from atoll.services.maildir import KEPT, Letter, Maildir
from framework.smtp import PASSWORD, smtp
from framework.tls import own_certificate

AT = 1_800_000_000.0
HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type",
    "Content-Transfer-Encoding", "MIME-Version",
}  # fmt: skip
SEPARATORS = (
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\v",
    "\f",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
)


def settings(folder: Path, **mail: Any) -> Config:
    given = {"host": "127.0.0.1", "security": "none"} | mail if mail else {}
    return Config.model_validate({"paths": {"state": folder}, "mail": given})


@asynccontextmanager
async def mailing(
    config: Config, *retries_s: float, is_patient: bool = True
) -> AsyncIterator[Mail]:
    """Stopped when all is sent, or at once."""
    mail = Mail(config, now=lambda: AT, retries_s=retries_s)
    async with TaskGroup() as group:
        task = group.create_task(mail.run())
        yield mail
        if is_patient:
            await poll(lambda: sent(mail), seconds=10, what="mail sent", every=0.005)
        task.cancel()


async def sent(mail: Mail) -> bool | None:
    return not mail.waiting or None


async def kept(mail: Mail, count: int = 1) -> tuple[Letter, ...]:
    async def check() -> tuple[Letter, ...] | None:
        found = await mail.letters(50)
        return found if len(found) >= count else None

    return await poll(check, seconds=10, what="mail kept", every=0.005)


async def test_without_a_server_mail_stays_here(tmp_path: Path) -> None:
    async with mailing(settings(tmp_path)) as mail:
        for number in range(3):
            await mail.send(to="ann@example.com", subject=f"Hello {number}", text="One\n\nTwo ä\n")
            await kept(mail, number + 1)
        letters = await mail.letters(2)
    assert [letter.subject for letter in letters] == ["Hello 2", "Hello 1"]
    assert letters[0] == Letter(
        at=AT, to="ann@example.com", subject="Hello 2", text="One\n\nTwo ä\n", undelivered=""
    )
    folder = tmp_path / "control/mail"
    assert folder.stat().st_mode & 0o777 == 0o700
    (first, *_) = (folder / "new").iterdir()
    assert first.stat().st_mode & 0o777 == 0o600
    assert not list((folder / "tmp").iterdir())


def test_a_maildir_is_bounded_and_what_is_broken_in_it_is_shown_as_it_is(tmp_path: Path) -> None:
    box = Maildir(tmp_path / "mail")
    assert box.newest(5) == ()
    for number in range(KEPT + 5):
        box.put(b"Subject: %d\n\nx" % number, at=AT + number)
    assert len(list((tmp_path / "mail/new").iterdir())) == KEPT
    assert box.newest(1)[0].subject == str(KEPT + 4)
    (tmp_path / "mail/cur/99999999999.x:2,S").write_bytes(b"\xff\xfe\0 no headers")
    (tmp_path / "mail/cur/nonsense").write_bytes(b"")
    assert box.newest(2)[1].subject == str(KEPT + 4)


async def test_a_server_takes_it(tmp_path: Path) -> None:
    async with smtp() as server, mailing(settings(tmp_path, port=server.port)) as mail:
        await mail.send(to="Ann@Example.com", subject="Grüße", text="Zeile\n.\nEnde")
        ((to, message),) = await server.has(1)
        assert await mail.letters(9) == ()
    assert to == ["ann@example.com"]
    assert message["Subject"] == "Grüße"
    assert message["From"].addresses[0].addr_spec == "atoll@atoll.localhost"
    assert message.get_content() == "Zeile\r\n.\r\nEnde\r\n"
    assert {*message} - {"X-Peer", "X-MailFrom", "X-RcptTo"} == HEADERS


async def test_an_address_beyond_ascii(tmp_path: Path) -> None:
    async with smtp() as server, mailing(settings(tmp_path, port=server.port)) as mail:
        await mail.send(to="böb@example.com", subject="x", text="x")
        ((to, _),) = await server.has(1)
    assert to == ["böb@example.com"]


async def test_a_server_that_wants_to_be_asked_again(tmp_path: Path) -> None:
    config = settings(tmp_path, port=1)
    async with smtp() as server, mailing(settings(tmp_path, port=server.port), 0.01, 0.01) as mail:
        server.answers = ["451 greylisted", "421 busy"]
        await mail.send(to="ann@example.com", subject="x", text="x")
        await server.has(1)
        assert server.asked == 3
        server.answers = ["451 greylisted"] * 3
        await mail.send(to="ann@example.com", subject="never", text="x")
        (letter,) = await kept(mail)
        assert (letter.subject, letter.undelivered) == ("never", "451 greylisted")
    async with mailing(config) as mail:  # nobody listens there
        await mail.send(to="ann@example.com", subject="nobody", text="x")
        letter = (await kept(mail, 2))[0]
        assert "127.0.0.1" in letter.undelivered


async def test_a_server_that_says_no_is_not_asked_again(tmp_path: Path) -> None:
    async with smtp() as server, mailing(settings(tmp_path, port=server.port), 60.0) as mail:
        server.answers = ["550 no such mailbox"]
        await mail.send(to="ann@example.com", subject="x", text="kept")
        (letter,) = await kept(mail)
    assert letter.undelivered == "550 no such mailbox"
    assert letter.text == "kept\n"
    assert server.asked == 1


async def test_a_slow_server_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_S", 0.3)
    async with smtp() as server, mailing(settings(tmp_path, port=server.port)) as mail:
        server.is_slow = asyncio.Event()
        await mail.send(to="ann@example.com", subject="x", text="x")
        (letter,) = await kept(mail)
        assert "0.3 s" in letter.undelivered or "timed out" in letter.undelivered.lower()


async def test_what_is_under_way_when_control_stops_is_kept(tmp_path: Path) -> None:
    config = settings(tmp_path, port=1)
    async with mailing(config, 60.0, is_patient=False) as mail:
        await mail.send(to="ann@example.com", subject="waits", text="x")
        await asyncio.sleep(0)
        await mail.send(to="ann@example.com", subject="queued", text="x")
    letters = await mail.letters(9)
    assert {letter.subject for letter in letters} == {"waits", "queued"}
    assert all("stopped" in letter.undelivered for letter in letters)


async def test_too_much_mail_is_refused(tmp_path: Path) -> None:
    mail = Mail(settings(tmp_path))
    for _ in range(module.QUEUED):
        await mail.send(to="ann@example.com", subject="x", text="x")
    with pytest.raises(Exhausted):
        await mail.send(to="ann@example.com", subject="x", text="x")


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_tls_with_a_certificate_that_is_checked_and_a_password(
    tmp_path: Path, security: str
) -> None:
    authority, context = own_certificate(tmp_path, "localhost")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    where: dict[str, ssl.SSLContext] = {security: context}
    async with smtp(auth=True, **where) as server:
        given = {"host": "localhost", "port": server.port, "security": security, "user": "atoll"}
        secret = {"password_file": tmp_path / "password"}
        trusted = settings(tmp_path, **given, **secret, ca_file=authority)
        async with mailing(trusted) as mail:
            await mail.send(to="ann@example.com", subject="x", text="x")
            await server.has(1)
        async with mailing(settings(tmp_path, **given, **secret)) as mail:
            await mail.send(to="ann@example.com", subject="x", text="x")
            (letter,) = await kept(mail)
            assert "certificate" in letter.undelivered.lower()
        (tmp_path / "password").write_text("wrong")
        async with mailing(trusted) as mail:
            await mail.send(to="ann@example.com", subject="wrong", text="x")
            letter = (await kept(mail, 2))[0]
            assert letter.undelivered.startswith("535")
    assert len(server.took) == 1


async def test_no_tls_where_it_was_asked_for_sends_nothing(tmp_path: Path) -> None:
    async with smtp() as server:
        config = settings(tmp_path, port=server.port, security="starttls")
        async with mailing(config) as mail:
            await mail.send(to="ann@example.com", subject="x", text="x")
            await kept(mail)
    assert server.took == []


@pytest.mark.parametrize("separator", SEPARATORS)
def test_nothing_adds_a_header_or_a_recipient(separator: str) -> None:
    more = f"x{separator}Bcc: eve@evil.example{separator}{separator}<b>body</b>"
    with pytest.raises(Invalid):
        compose(
            "atoll@example.com", f"ann@example.com{separator}Bcc: e@evil.example", "x", "x", at=AT
        )
    message = compose("atoll@example.com", "ann@example.com", more, more, at=AT)
    read = message_from_bytes(message.as_bytes(), policy=policy.default)
    assert {*read} == HEADERS
    assert read["To"] == "ann@example.com"
    assert read["Bcc"] is None
    assert read["Subject"] == "x Bcc: eve@evil.example <b>body</b>"
    body = read.get_content()
    assert body.replace("\n", "").replace("\r", "") == more.replace(separator, "")
    raw = message.as_bytes()
    assert b"\0" not in raw
    assert raw.count(b"\n") == raw.count(
        b"\r\n"
    )  # a bare LF could end the message (SMTP smuggling)
    assert raw.count(b"\r") == raw.count(b"\r\n")


def test_a_text_is_plain_and_bounded() -> None:
    message = compose("a@b", "ann@example.com", "s" * 5000, "\x1b[31m\ud800x\u202e" * 50_000, at=AT)
    read = message_from_bytes(message.as_bytes(), policy=policy.default)
    assert len(read["Subject"]) == module.SUBJECT_CHARS
    assert len(read.get_content()) <= module.TEXT_CHARS
    assert set(read.get_content()) == set("[31mx\r\n")
