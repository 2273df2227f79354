"""Signs what others verify: JWTs by ES256, with keys that are published and change.

The keys are one file in control's folder, mode 0600. A key is published PUBLISH_S before it signs,
and its public half for LONGEST_S after it has signed its last token, so whoever keeps the set for
less than PUBLISH_S never meets a token of a key that is not in it. The private half goes earlier.

Invariant: no token lasts longer than LONGEST_S, and a claim of the caller never replaces one of ours.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from atoll.base import atomic, log
from atoll.base.errors import Invalid

ALGORITHM = "ES256"
LONGEST_S = 3600.0
PUBLISH_S = 3600.0
ROTATE_S = 30 * 86400.0
_SKEW_S = 300.0  # clocks of those who verify
_PUBLIC = ("kty", "crv", "x", "y")
_log = log.get("issuer")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """One key of the file; `retired_at` is when it stopped signing, and has no private half since."""

    jwk: Mapping[str, str]
    signs_from: float
    retired_at: float | None = None

    @property
    def public(self) -> dict[str, str]:
        key = {name: self.jwk[name] for name in _PUBLIC}
        return {**key, "use": "sig", "alg": ALGORITHM, "kid": self.jwk["kid"]}

    def retired(self, now: float) -> _Key:
        return replace(self, jwk={**self.public}, retired_at=now)


class Issuer:
    """Signs in the name of `url`, the cloud's own address; its keys are made on first use."""

    def __init__(self, *, url: str, folder: Path, now: Callable[[], float] = time.time) -> None:
        self.url = url
        self._path = folder / "issuer.json"
        self._now = now
        self._keys = _read(self._path)

    def sign(
        self, claims: Mapping[str, Any], *, audience: str, seconds: float, kind: str = "JWT"
    ) -> str:
        """A token with these claims for `audience`; `kind` is the `typ` of its header."""
        if not 0 < seconds <= LONGEST_S:
            raise ValueError(f"a token lasts up to {LONGEST_S:.0f} s, not {seconds:.0f}")
        now, key = self._now(), self._signer()
        ours = {
            "iss": self.url,
            "aud": audience,
            "iat": int(now),
            "exp": int(now + seconds),
            "jti": secrets.token_urlsafe(16),
        }
        header = {"typ": kind, "alg": ALGORITHM, "kid": key.jwk["kid"]}
        private = ECKey.import_key(dict(key.jwk))
        return jwt.encode(header, {**claims, **ours}, private, algorithms=[ALGORITHM])

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys: of what signs now, will soon, or has signed what may still be in time."""
        self._signer()
        return {"keys": [key.public for key in self._keys]}

    def rotate(self) -> None:
        """Sign with a new key from now on, and disown all others at once: one may have leaked."""
        self._keep((_new(self._now()),))
        _log.info("signing keys replaced")

    def _signer(self) -> _Key:
        """The key that signs now, after whatever is due has been done with all of them."""
        keys = _turned(self._keys, self._now())
        if keys != self._keys:
            self._keep(keys)
        return _signing(keys, self._now())

    def _keep(self, keys: tuple[_Key, ...]) -> None:
        kept = [
            {"jwk": dict(key.jwk), "signs_from": key.signs_from, "retired_at": key.retired_at}
            for key in keys
        ]
        atomic.write_json(self._path, {"keys": kept})
        self._keys = keys


def _turned(keys: tuple[_Key, ...], now: float) -> tuple[_Key, ...]:
    """What the keys should be at `now`: the next one made in time, the last ones retired, then gone."""
    if not any(key.retired_at is None for key in keys):
        keys = (*keys, _new(now))
    signer = _signing(keys, now)
    kept = [
        key.retired(now) if key.retired_at is None and key.signs_from < signer.signs_from else key
        for key in keys
        if key.retired_at is None or now < key.retired_at + LONGEST_S + _SKEW_S
    ]
    is_due = now >= signer.signs_from + ROTATE_S - PUBLISH_S
    if is_due and not any(key.signs_from > signer.signs_from for key in kept):
        kept.append(_new(now + PUBLISH_S))
    return tuple(kept)


def _signing(keys: tuple[_Key, ...], now: float) -> _Key:
    """The youngest whose time has come; when a clock was set back and none has, the oldest."""
    able = sorted((key for key in keys if key.retired_at is None), key=lambda key: key.signs_from)
    begun = [key for key in able if key.signs_from <= now]
    return begun[-1] if begun else able[0]


def _new(signs_from: float) -> _Key:
    key = ECKey.generate_key("P-256", auto_kid=True)  # the id is the thumbprint of RFC 7638
    jwk = {name: str(value) for name, value in key.as_dict(private=True).items()}
    return _Key(jwk=jwk, signs_from=signs_from)


def _read(path: Path) -> tuple[_Key, ...]:
    if not path.exists():
        return ()
    try:
        return tuple(_Key(**entry) for entry in json.loads(path.read_text())["keys"])
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid(f"{path} is damaged: {error}", hint=f"Try: rm {path}") from error
