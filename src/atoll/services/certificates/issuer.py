"""One certificate from an ACME server, by certbot's library `acme`.

The library blocks, so each of its requests runs in a thread with a deadline of its own, and waiting
between requests is done here: a control that stops never waits for an order. Every failure is an
Unavailable of our words, with what the server said and how long it wants to be left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from atoll.base import atomic, log
from atoll.base.aio import poll
from atoll.base.errors import AtollError, Invalid
from atoll.base.timeout import timeout
from atoll.config import Acme
from atoll.domain.certificate import Proof, Wanted
from atoll.services.certificates.proofs import Prover, Provers
from atoll.services.certificates.refusal import Answered, Refused, said

R = TypeVar("R")
REQUEST_S = 15  # one request; the library has no shorter deadline of its own
HIDE_S = 15.0
_AGENT = "atoll (acme)"
_HINTS = {
    Proof.HTTP: "Port 80 of {host} must reach this machine from outside",
    Proof.DNS: "The world must see what acme.dns_server is told of {host}",
}
_log = log.get("certificates")


class Issuer:
    """An account at one server; made there, or found again, at the first use."""

    def __init__(
        self,
        *,
        settings: Acme,
        key_path: Path,
        provers: Provers,
        every_s: float = 1.0,
        patience_s: float = 120.0,
    ) -> None:
        """`key_path`: the account's key, made when there is none. `every_s`: between two looks at the
        order; `patience_s`: until the server must have looked, and again until it must have signed.
        """
        self._settings = settings
        self._key_path = key_path
        self._provers = provers
        self._every_s = every_s
        self._patience_s = patience_s
        self._client: client.ClientV2 | None = None
        self._answered = Answered()

    async def connect(self) -> None:
        """Reach the server and log in. Raises Refused, or Invalid for settings it cannot work with."""
        if self._client is not None:
            return
        if not self._settings.agree:
            raise Invalid(
                "the terms of the ACME server are not agreed to", hint="Set acme.agree = true"
            )
        self._client = await self._call(self._logged_in)

    async def issue(self, wanted: Wanted) -> bytes:
        """A new key and the chain of its certificate in PEM. Raises Refused."""
        await self.connect()
        acme = self._acme
        key = _new_key()
        csr = crypto_util.make_csr(key, list(wanted.hosts))
        order = await self._call(acme.new_order, csr)
        async with self._proven(order, self._provers[wanted.proof], wanted.proof):
            for authorization in order.authorizations:
                await self._authorized(authorization, wanted.proof)
        return key + (await self._signed(order)).encode()

    async def renewal(self, pem: bytes) -> float | None:
        """When the server suggests to renew, in seconds since the epoch; None: it suggests nothing."""
        await self.connect()
        when, _ask_again = await self._call(self._acme.renewal_time, pem)
        return when.astimezone(dt.UTC).timestamp() if when is not None else None

    @property
    def _acme(self) -> client.ClientV2:
        assert self._client is not None, "connect first"
        return self._client

    @property
    def _key(self) -> JWK:
        key = self._acme.net.key
        assert isinstance(key, JWK), "the account has one"
        return key

    @asynccontextmanager
    async def _proven(
        self, order: messages.OrderResource, prover: Prover, proof: Proof
    ) -> AsyncIterator[None]:
        """Show what the server will look for, and hide it whatever happens."""
        shown: list[tuple[str, str, str]] = []
        try:
            for authorization in order.authorizations:
                body = authorization.body
                if body.status == messages.STATUS_VALID:  # from an order of before
                    continue
                challenge = _challenge(body, proof)
                host = body.identifier.value
                where, value = _where(challenge.chall, self._key, host)
                shown.append((host, where, value))
                await prover.show(host, where, value)
                response = challenge.chall.response(self._key)
                await self._call(self._acme.answer_challenge, challenge, response)
            yield
        finally:
            for one in shown:
                try:
                    async with timeout(HIDE_S):
                        await prover.hide(*one)
                except (AtollError, TimeoutError) as error:  # harmless: it proves nothing any more
                    _log.warning("proof not hidden", host=one[0], reason=str(error))

    async def _authorized(
        self, authorization: messages.AuthorizationResource, proof: Proof
    ) -> None:
        """Wait for the server's verdict. One that goes on looking says why it is not content yet."""
        host = authorization.body.identifier.value
        why = ""

        async def looked_at() -> bool | None:
            nonlocal why
            body = (await self._call(self._acme.poll, authorization))[0].body
            reasons = [said(one.error) for one in body.challenges if one.error is not None]
            why = "; ".join(reasons) or str(body.status)
            if body.status in (messages.STATUS_PENDING, messages.STATUS_PROCESSING):
                return None
            return bool(body.status == messages.STATUS_VALID)

        is_believed = False
        with contextlib.suppress(TimeoutError):
            async with timeout(self._patience_s):
                while (verdict := await looked_at()) is None:
                    await asyncio.sleep(self._every_s)
                is_believed = verdict
        if not is_believed:
            raise Refused(
                f"the ACME server does not believe that {host} is ours: {why}",
                hint=_HINTS[proof].format(host=host),
            )

    async def _signed(self, order: messages.OrderResource) -> str:
        acme = self._acme
        await self._call(acme.begin_finalization, order)

        async def done() -> str | None:
            soon = dt.datetime.now() + dt.timedelta(milliseconds=100)  # noqa: DTZ005  one look
            with contextlib.suppress(errors.TimeoutError):
                finished = await self._call(acme.poll_finalization, order, soon)
                return str(finished.fullchain_pem)
            return None

        return await poll(
            done, seconds=self._patience_s, what="the ACME server signing", every=self._every_s
        )

    async def _call(self, job: Callable[..., R], *arguments: Any) -> R:
        """Run one of the library's requests in a thread."""
        with self._answered.translated():
            return await asyncio.to_thread(job, *arguments)

    def _logged_in(self) -> client.ClientV2:
        net = client.ClientNetwork(
            JWKEC(key=_account_key(self._key_path)),
            alg=ES256,
            user_agent=_AGENT,
            timeout=REQUEST_S,
        )
        if self._settings.ca_file:
            net.verify_ssl = self._settings.ca_file  # type: ignore[assignment]  # requests takes a path
        net.session.hooks["response"].append(self._answered.note)
        acme = client.ClientV2(client.ClientV2.get_directory(self._settings.directory, net), net)
        if acme.external_account_required():
            raise Invalid(
                "this ACME server wants an account made elsewhere (EAB), which is not offered",
                hint="Try: acme.directory of another server",
            )
        new = messages.NewRegistration.from_data(
            email=self._settings.email or None, terms_of_service_agreed=True
        )
        try:
            acme.new_account(new)
        except errors.ConflictError as known:
            net.account = messages.RegistrationResource(
                body=messages.Registration(), uri=known.location
            )
        return acme


def _challenge(body: messages.Authorization, proof: Proof) -> messages.ChallengeBody:
    for one in body.challenges:
        if one.chall.typ == proof:
            return one
    raise Refused(f"the ACME server takes no proof of {body.identifier.value} by {proof}")


def _where(challenge: challenges.Challenge, key: JWK, host: str) -> tuple[str, str]:
    """Where the server will look, and what it must find there."""
    if isinstance(challenge, challenges.HTTP01):
        return challenge.path, challenge.validation(key)
    assert isinstance(challenge, challenges.DNS01)
    return challenge.validation_domain_name(host), challenge.validation(key)


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _account_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        atomic.write(path, _new_key())
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise Invalid(f"{path} is damaged: {error}", hint=f"Try: rm {path}") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
