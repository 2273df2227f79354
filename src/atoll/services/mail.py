"""Mail that this cloud sends: invitations and sign-in links, by an SMTP server or to a local Maildir.

Invariants: what `send` accepted is delivered or is found in the Maildir with the reason; no text of
anybody's adds a header or a recipient. `send` never waits for a server.
"""

from __future__ import annotations

import asyncio
import copy
import email.utils
import re
import ssl
import time
import unicodedata
from collections.abc import Callable, Sequence
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib

from atoll.base import log
from atoll.base.aio import TaskGroup
from atoll.base.errors import Exhausted, Unavailable
from atoll.base.timeout import timeout
from atoll.config import Config
from atoll.domain.email import check_email, domain_of
from atoll.services.maildir import UNDELIVERED, Letter, Maildir

QUEUED = 200  # messages on their way; more are refused
AT_ONCE = 4  # connections to the server
ATTEMPT_S = 30.0  # for one conversation with the server
# A server that greylists wants to be asked again after some minutes; a sign-in link is good for ten.
RETRIES_S = (5.0, 30.0, 120.0, 300.0)
SUBJECT_CHARS = 200
TEXT_CHARS = 20_000
_REASON_CHARS = 300

_log = log.get("mail")


class Mail:
    """Sends; `run` owns the deliveries."""

    def __init__(
        self,
        config: Config,
        *,
        now: Callable[[], float] = time.time,
        retries_s: Sequence[float] = RETRIES_S,
    ) -> None:
        self._settings = config.mail
        self._sender = config.mail_sender
        self._maildir = Maildir(config.mail_folder)
        self._now = now
        self._retries_s = tuple(retries_s)
        self._queue: asyncio.Queue[EmailMessage] = asyncio.Queue(QUEUED)
        self._under_way: set[EmailMessage] = set()
        self._connections = asyncio.Semaphore(AT_ONCE)

    @property
    def waiting(self) -> int:
        """Messages on their way."""
        return len(self._under_way) + self._queue.qsize()

    async def send(self, *, to: str, subject: str, text: str) -> None:
        """Queue a message. Raises Invalid (the address) or Exhausted."""
        message = compose(self._sender, to, subject, text, at=self._now())
        if self.waiting >= QUEUED:
            raise Exhausted(f"{QUEUED} messages wait to be sent", hint="Try again in a minute")
        self._queue.put_nowait(message)

    async def run(self) -> None:
        """Deliver until cancelled; what is not delivered by then is kept."""
        try:
            async with TaskGroup() as group:
                while True:
                    message = await self._queue.get()
                    self._under_way.add(message)
                    group.create_task(self._deliver(message))
        finally:
            while not self._queue.empty():
                self._under_way.add(self._queue.get_nowait())
            for message in self._under_way:
                self._put(message, "Atoll was stopped before it was sent")

    async def letters(self, most: int) -> tuple[Letter, ...]:
        """What stays here, newest first. Raises Unavailable."""
        try:
            return await asyncio.to_thread(self._maildir.newest, most)
        except OSError as error:
            raise Unavailable(f"the mail kept here cannot be read: {error.strerror}") from error

    async def _deliver(self, message: EmailMessage) -> None:
        reason = "" if not self._settings.host else await self._refused(message)
        if reason is None:
            _log.info("mail sent")
        else:
            await asyncio.to_thread(self._put, message, reason)
        self._under_way.discard(message)

    async def _refused(self, message: EmailMessage) -> str | None:
        """Why the server did not take it, after all attempts; None when it did."""
        for pause in (*self._retries_s, None):
            try:
                async with self._connections, timeout(ATTEMPT_S):
                    await self._transmit(message)
                return None
            except (aiosmtplib.SMTPException, OSError, ValueError, TimeoutError) as error:
                reason = _reason(error)
                if pause is None or _is_final(error):
                    return reason
            _log.warning("mail not sent yet", reason=reason, again_in_s=pause)
            await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def _transmit(self, message: EmailMessage) -> None:
        settings = self._settings
        context = None
        if settings.security != "none":
            context = await asyncio.to_thread(
                ssl.create_default_context, cafile=settings.ca_file or None
            )
        password = await asyncio.to_thread(_password, settings.password_file or None)
        await aiosmtplib.send(
            message,
            sender=self._sender,
            recipients=[message["To"].addresses[0].addr_spec],
            hostname=settings.host,
            port=settings.port,
            username=settings.user or None,
            password=password if settings.user else None,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=context,
            local_hostname=domain_of(self._sender),
            timeout=ATTEMPT_S,
        )

    def _put(self, message: EmailMessage, reason: str) -> None:
        kept = copy.deepcopy(message)
        if reason:
            kept[UNDELIVERED] = _one_line(reason, _REASON_CHARS)
        try:
            self._maildir.put(kept.as_bytes(policy=_unix(kept)), at=self._now())
        except OSError as error:
            _log.error("mail lost", reason=reason, kept=str(error))
            return
        if reason:
            _log.error("mail not sent", reason=reason)


def _unix(message: EmailMessage) -> policy.EmailPolicy:
    """Lines as files have them."""
    assert isinstance(message.policy, policy.EmailPolicy)
    return message.policy.clone(linesep="\n")


def compose(sender: str, to: str, subject: str, text: str, *, at: float) -> EmailMessage:
    """A message of plain text. Raises Invalid for what is no address."""
    to = check_email(to)
    form = policy.SMTP if to.isascii() else policy.SMTPUTF8
    message = EmailMessage(policy=form)
    message["From"] = Address("Atoll", addr_spec=sender)
    message["To"] = Address(username=to.rpartition("@")[0], domain=domain_of(to))
    message["Subject"] = _one_line(subject, SUBJECT_CHARS)
    message["Date"] = email.utils.formatdate(at)
    message["Message-ID"] = email.utils.make_msgid(domain=domain_of(sender))
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes in return
    message.set_content(_plain(text))
    return message


def _one_line(text: str, most: int) -> str:
    """Fit for a header: control and format characters and every separator become a blank."""
    chars = (" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: 4 * most])
    return " ".join("".join(chars).split())[:most]


def _plain(text: str) -> str:
    """Fit for a body: lines without control characters."""
    lines = re.split("\r\n|[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", text[:TEXT_CHARS])
    kept = (
        "".join(char for char in line if char == "\t" or unicodedata.category(char)[0] != "C")
        for line in lines
    )
    return "\n".join(kept).rstrip("\n") + "\n"


def _password(path: Path | None) -> str | None:
    return path.read_text().strip("\r\n") if path is not None else None


def _is_final(error: Exception) -> bool:
    """Whether the server has said no for good (RFC 5321, 4.2.1), and asking again is of no use."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(500 <= each.code < 600 for each in error.recipients)
    return isinstance(error, aiosmtplib.SMTPResponseException) and 500 <= error.code < 600


def _reason(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return "; ".join(f"{each.code} {each.message}" for each in error.recipients)
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    if isinstance(error.__cause__, OSError):
        return f"{error} {error.__cause__}"
    return str(error) or f"the server took over {ATTEMPT_S:g} s"  # a bare TimeoutError says nothing
