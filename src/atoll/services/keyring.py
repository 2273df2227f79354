"""The keys that sign the tokens HAProxy checks, and their rotation.

One key signs, the one that signs after it is shown to HAProxy already, and those that signed before
verify until every token of theirs is over. So a rotation signs nobody out: no token is ever made by a
key that HAProxy does not have. Invariant: the file holds a rotation before the rotation counts.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from atoll.base import atomic
from atoll.base.errors import Invalid
from atoll.domain.web import TOKEN_S

AGE_S = 30 * 86400.0  # a key signs that long
_OVER_S = TOKEN_S + 60.0  # and verifies that much longer: HAProxy forgives a clock a minute
NAMELESS = "-"  # the key of releases that named none in their tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """One key. `text` is the HMAC key as both sides read it: 64 hex digits, not the bytes they mean."""

    kid: str
    text: str
    signs_since: float | None = None  # None: not yet
    retired_at: float | None = None

    def __repr__(self) -> str:
        return f"TokenKey({self.kid!r})"


class KeyRing:
    """The keys in the file `path`; made there on first use.

    `nameless` is the key that an earlier release signed with: its tokens stay good to their end.
    """

    def __init__(
        self,
        path: Path,
        *,
        nameless: bytes | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._now = now
        if path.exists():
            self._keys = _read(path)
        else:
            old = [] if nameless is None else [_nameless(nameless, now())]
            self._keep([*old, _new(signs_since=now()), _new()])

    @property
    def signing(self) -> TokenKey:
        """The key that signs now."""
        return next(key for key in self._keys if key.signs_since is not None and not key.retired_at)

    def get(self, kid: str) -> TokenKey | None:
        """A key that verifies, by its id."""
        return next((key for key in self._good() if key.kid == kid), None)

    def table(self) -> dict[str, str]:
        """Key id -> key text, for HAProxy; rotates first when the key that signs is too old."""
        since = self.signing.signs_since or 0.0
        if self._now() - since > AGE_S:
            self.rotate()
        elif len(self._good()) < len(self._keys):
            self._keep(self._good())
        return {key.kid: key.text for key in self._keys}

    def rotate(self, *, revoke: bool = False) -> TokenKey:
        """Sign with the next key from now on; with `revoke` forget all others, and their tokens end.

        Returns the key that signs now.
        """
        now = self._now()
        if revoke:
            self._keep([_new(signs_since=now), _new()])
            return self.signing
        signing = self.signing
        upcoming = self._keys[-1]
        kept = [
            replace(key, retired_at=now) if key is signing else key
            for key in self._good()
            if key is not upcoming
        ]
        self._keep([*kept, replace(upcoming, signs_since=now), _new()])
        return self.signing

    def _good(self) -> list[TokenKey]:
        over = self._now() - _OVER_S
        return [key for key in self._keys if key.retired_at is None or key.retired_at > over]

    def _keep(self, keys: list[TokenKey]) -> None:
        atomic.write_json(self._path, [asdict(key) for key in keys])
        self._keys = keys


def _new(*, signs_since: float | None = None) -> TokenKey:
    return TokenKey(kid=secrets.token_hex(4), text=secrets.token_hex(32), signs_since=signs_since)


def _nameless(key: bytes, now: float) -> TokenKey:
    return TokenKey(kid=NAMELESS, text=key.hex(), signs_since=0.0, retired_at=now)


def _read(path: Path) -> list[TokenKey]:
    try:
        keys = [TokenKey(**entry) for entry in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise Invalid(f"{path} is damaged: {error}", hint=f"Try: rm {path}") from error
    is_whole = len(keys) >= 2 and keys[-1].signs_since is None
    if not is_whole or sum(key.retired_at is None for key in keys) != 2:
        raise Invalid(
            f"{path} holds no key that signs and one that follows", hint=f"Try: rm {path}"
        )
    return keys
