"""Is an ID token of another provider true, for us, of this very sign-in, and in time?

Algorithms come from a fixed list, never from the token alone: `none` and HMAC with a public key are no
candidates. Keys that are too weak or meant for something else are not tried.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from atoll.base.errors import Denied

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"
)  # fmt: skip
_SKEW_S = 60.0
_RSA_BITS = 2048
_PUBLIC = {"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"}
_BYTES = 32 * 1024


class UnknownKey(Denied):
    """The token names a key that is not in the set: it may be newer than the set."""


def verify(
    token: str, jwks: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str, now: float
) -> dict[str, Any]:
    """The claims. Raises Denied, which says what is wrong; UnknownKey when a newer set may help."""
    claims = _signed(token, jwks)
    if claims.get("iss") != issuer:
        raise Denied("its ID token is of another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences or claims.get("azp", client_id) != client_id:
        raise Denied("its ID token is for another client")
    if len(audiences) > 1 and "azp" not in claims:
        raise Denied("its ID token is for several clients and says not for which")
    _check_times(claims, now)
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise Denied("its ID token is of another sign-in")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
        raise Denied("its ID token names nobody")
    return claims


def _signed(token: str, jwks: Mapping[str, Any]) -> dict[str, Any]:
    if len(token) > _BYTES:
        raise Denied(f"its ID token has more than {_BYTES >> 10} KiB")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError) as error:
        raise Denied("its ID token cannot be read") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise Denied(f"its ID token is signed by {str(algorithm)[:20]!r}, which is not taken")
    keys = [key for key in _keys(jwks) if kid is None or key.get("kid") == kid]
    if not keys:
        raise UnknownKey("its ID token is signed by a key that it does not publish")
    for key in keys:
        try:
            return dict(jwt.decode(token, key, algorithms=[str(algorithm)]).claims)
        except (JoseError, ValueError, TypeError):
            continue
    raise Denied("the signature of its ID token is wrong")


def _keys(jwks: Mapping[str, Any]) -> Iterable[RSAKey | ECKey]:
    """What of the set may verify; whatever else is in it is passed over."""
    found = jwks.get("keys")
    for data in found[:100] if isinstance(found, list) else ():
        if not isinstance(data, dict) or data.get("use", "sig") != "sig":
            continue
        public = {name: value for name, value in data.items() if name in _PUBLIC}
        try:
            if data.get("kty") == "EC":
                yield ECKey.import_key(public)
            elif data.get("kty") == "RSA" and _bits(data["n"]) >= _RSA_BITS:
                yield RSAKey.import_key(public)
        except (JoseError, ValueError, TypeError, KeyError):
            continue


def _bits(number: str) -> int:
    """The length of an RSA key, by its modulus."""
    data = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))
    return int.from_bytes(data).bit_length()


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires is None or issued is None:
        raise Denied("its ID token does not say when it was made and ends")
    if expires + _SKEW_S <= now:
        raise Denied(f"its ID token ended {now - expires:.0f} s ago; is a clock wrong?")
    begins = issued if "nbf" not in claims else _time(claims, "nbf")
    if begins is None or max(begins, issued) - _SKEW_S > now:
        raise Denied("its ID token is from the future; is a clock wrong?")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None
