"""Sign-in by a link that is mailed: who asks learns nothing of who has an account.

Invariants: `ask` does the same for every address, and all that depends on the address happens later, in
`run`. A link works once, for ten minutes, and only in the browser that asked: it has a secret in a cookie
that the mail does not have. So a link that an attacker asked for signs nobody else in, neither the one
who is made to open it nor the attacker when another opens it. Whoever reads mail elsewhere types the
short code into the browser that asked.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from atoll.base import log
from atoll.base.errors import AtollError, Denied, Exhausted
from atoll.base.limits import Limits
from atoll.base.secret import hashed, is_secret, new_secret
from atoll.base.source import count_try
from atoll.domain.account import Account
from atoll.domain.email import check_email
from atoll.store import people
from atoll.store.engine import Store
from atoll.store.people import Mailed

LINK_S = 600.0
TRIES = 5  # of the short code: 40 random bits, so that even a million browsers guess in vain
_ASKED = 100  # that wait to be looked at
_BROWSERS = 10_000  # whose tries are counted
_ADDRESS = (5.0, 20 / 86_400)  # mails to one address: at once, and per second
_SOURCE = (20.0, 1 / 30)  # questions, and codes typed, from one source
_ALL = (200.0, 1.0)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_ALIKE = str.maketrans("ilo", "110", " -\t")

_log = log.get("sign-in")


class Admitting(Protocol):
    """What is needed of atoll.services.joining.Joining."""

    async def may_come(self, email: str) -> bool:
        """Whether the address has an account or may have one."""
        ...

    async def admit(self, email: str) -> Account:
        """The account of a proven address; raises Denied."""
        ...


class Sending(Protocol):
    """What is needed of atoll.services.mail.Mail."""

    async def send(self, *, to: str, subject: str, text: str) -> None:
        """Queue a message."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    email: str
    browser: str  # the secret itself: it goes no further than this process


class MailedLinks:
    """Mails links and takes them back. `base` is the URL that a link's secret follows."""

    def __init__(
        self,
        *,
        store: Store,
        joining: Admitting,
        mail: Sending,
        base: str,
        domain: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._joining = joining
        self._mail = mail
        self._base = base
        self._domain = domain
        self._now = now
        self._queue: asyncio.Queue[_Asked] = asyncio.Queue(_ASKED)
        self._waiting = 0
        self._tries: OrderedDict[str, int] = OrderedDict()
        self._per_address = _limits(_ADDRESS, now)
        self._per_source = _limits(_SOURCE, now)
        self._of_all = _limits(_ALL, now)

    async def ask(self, email: str, *, source: str) -> str:
        """Somebody wants a link; returns the secret for the cookie of their browser.

        Raises Invalid for what is no address and Exhausted when too many ask, whoever they are.
        """
        email = check_email(email)
        count_try(self._per_source, source)
        if self._queue.full() or self._of_all.wait_s(""):
            raise Exhausted("too many want to sign in just now", hint="Try again in a minute")
        browser = new_secret()
        self._queue.put_nowait(_Asked(email, browser))
        self._waiting += 1
        return browser

    @property
    def waiting(self) -> int:
        """How many have asked and were not looked at."""
        return self._waiting

    async def run(self) -> None:
        """Look at who asked, until cancelled."""
        while True:
            asked = await self._queue.get()
            try:
                await self._answer(asked)
            except AtollError as error:
                _log.warning("no link mailed", reason=error.message)
            finally:
                self._waiting -= 1

    async def redeem(self, code: str, *, browser: str) -> Account:
        """The account of a link, once, in the browser that asked. Raises Denied."""
        async with self._store.read() as tx:
            found = await people.mailed(tx, hash_=hashed(code), now=self._now())
        if found is None or not is_secret(code):
            raise Denied("this sign-in link was used, has ended or never was one", hint="Ask again")
        if not secrets.compare_digest(found.browser, hashed(browser)):
            raise Denied(
                "this link works only in the browser that asked for it; nothing is used up",
                hint="Open it there, or type the code of the mail there",
            )
        return await self._admitted(found)

    async def redeem_typed(self, typed: str, *, browser: str, source: str) -> Account:
        """The account of the short code in the mail. Raises Denied, after TRIES for the right one too."""
        count_try(self._per_source, source)
        mark = hashed(browser)
        tries = self._tries.pop(mark, 0) + 1
        self._tries[mark] = tries
        while len(self._tries) > _BROWSERS:
            self._tries.popitem(last=False)
        async with self._store.read() as tx:
            found = await people.mailed(tx, browser=mark, now=self._now())
        wanted = found.short_hash if found is not None else ""
        is_right = secrets.compare_digest(wanted, _short_hash(browser, typed))
        if found is None or not is_right or tries > TRIES:
            raise Denied("that is not the code, or its time is over", hint="Ask for new mail")
        return await self._admitted(found)

    async def _answer(self, asked: _Asked) -> None:
        if self._per_address.wait_s(asked.email) or not await self._joining.may_come(asked.email):
            return
        code, now = new_secret(), self._now()
        short = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        mailed = Mailed(
            hash=hashed(code),
            short_hash=_short_hash(asked.browser, short),
            browser=hashed(asked.browser),
            email=asked.email,
            expires_at=now + LINK_S,
        )
        async with self._store.begin() as tx:
            await people.put_mailed(tx, mailed, now=now)
        await self._mail.send(
            to=asked.email,
            subject=f"Sign in to {self._domain}",
            text=_text(self._domain, f"{self._base}{code}", f"{short[:4]}-{short[4:]}"),
        )

    async def _admitted(self, found: Mailed) -> Account:
        async with self._store.begin() as tx:
            is_first = await people.use_mailed(tx, found.hash)
        if not is_first:
            raise Denied("this sign-in link was used", hint="Ask again")
        return await self._joining.admit(found.email)


def _text(domain: str, link: str, short: str) -> str:
    return (
        f"Somebody, you perhaps, wants to sign in to {domain} with this address.\n\n"
        f"In the browser where you asked, open this link:\n\n{link}\n\n"
        f"Or type this code there: {short}\n\n"
        f"Both work once, for {LINK_S / 60:.0f} minutes. Give the code to nobody. If it was not you,"
        " you need do nothing.\n"
    )


def _limits(rate: tuple[float, float], now: Callable[[], float]) -> Limits:
    burst, per_second = rate
    return Limits(burst=burst, per_second=per_second, monotonic=now)


def _short_hash(browser: str, typed: str) -> str:
    """Of no use without the browser's secret, which the store has not got."""
    return hashed(f"{browser}:{typed[:40].lower().translate(_ALIKE)}")
