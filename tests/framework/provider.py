"""An OpenID provider of somebody else's, small, with knobs that make it lie."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from framework.signing import b64url

ISSUER = "https://id.example"
CLIENT = "atoll"
SECRET = "s3cret"


@dataclass
class Provider:
    """What it says; a test changes it. `sign` makes the ID token of claims."""

    now: Callable[[], float]
    claims: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    token: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, auto_kid=True))
    sign: Callable[[dict[str, Any]], str] | None = None
    slow: str = ""  # the path that is never answered
    huge: str = ""  # the path whose answer has a megabyte
    asked: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The provider."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/keys", self._keys),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    def agrees(self, url: str) -> dict[str, str]:
        """Its visitor, who was sent to `url`, agrees: what it then tells by way of the browser."""
        where = urlsplit(url)
        assert f"{where.scheme}://{where.netloc}{where.path}" == f"{ISSUER}/authorize"
        query = dict(parse_qsl(where.query))
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT)
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        return {"code": code, "state": query["state"]}

    async def _before(self, request: Request) -> Response | None:
        self.asked.append(request.url.path)
        if request.url.path == self.slow:
            await asyncio.Event().wait()
        if request.url.path == self.huge:
            return Response(b" " * (1 << 20) + b"{}", media_type="application/json")
        return None

    async def _discovery(self, request: Request) -> Response:
        known = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
        }
        return await self._before(request) or JSONResponse({**known, **self.metadata})

    async def _keys(self, request: Request) -> Response:
        broken = [{"kty": "RSA", "n": "?"}, {"kty": "new"}, "no key", {"kty": "oct", "k": "AA"}]
        keys = [*broken, self.key.as_dict(private=False)]
        return await self._before(request) or JSONResponse({"keys": keys})

    async def _token(self, request: Request) -> Response:
        if (early := await self._before(request)) is not None:
            return early
        form = dict(parse_qsl((await request.body()).decode()))
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        assert request.headers["authorization"] == f"Basic {expected}"
        query = self._codes.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert b64url(digest) == query["code_challenge"]
        assert form["redirect_uri"] == query["redirect_uri"]
        return JSONResponse(
            {"id_token": self._id_token(query["nonce"]), **self.token}, status_code=self.status
        )

    def _id_token(self, nonce: str) -> str:
        claims = {
            "iss": ISSUER,
            "aud": CLIENT,
            "sub": "1",
            "iat": int(self.now()),
            "exp": int(self.now()) + 300,
            "nonce": nonce,
            "email": "ann&co'@example.com",
            "email_verified": True,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.sign is not None:
            return self.sign(claims)
        header = {"alg": "RS256", "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=["RS256"])


def unsigned(claims: dict[str, Any]) -> str:
    """`alg: none`."""
    return f"{_text({'alg': 'none'}, claims)}."


def by_hmac(claims: dict[str, Any], key: bytes) -> str:
    """`alg: HS256` with a key that is no secret."""
    signed = _text({"alg": "HS256"}, claims)
    return f"{signed}.{b64url(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def _text(*parts: dict[str, Any]) -> str:
    return ".".join(b64url(json.dumps(part).encode()) for part in parts)
