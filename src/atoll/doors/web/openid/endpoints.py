"""What programs ask of the provider: discovery, keys, tokens, who a token is about.

Clients are public: an app in a VM has no secret that its VM's users could not read. What makes a code
safe is that it goes to the VM's own host alone, and PKCE. No cookie counts here, so any page may ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from atoll.base.errors import AtollError
from atoll.domain.openid import TOLD, Refused
from atoll.doors.web.sent import read_form

DISCOVERY = "/.well-known/openid-configuration"
AUTHORIZE, TOKEN, USERINFO, JWKS = (
    "/oauth/authorize", "/oauth/token", "/oauth/userinfo", "/oauth/jwks.json"
)  # fmt: skip
_KEEP = {"cache-control": "public, max-age=300"}  # shorter than a key is published before it signs
_ANY_PAGE = {"access-control-allow-origin": "*"}
_ASKING = {
    **_ANY_PAGE,
    "access-control-allow-headers": "authorization, content-type",
    "access-control-allow-methods": "GET, POST",
    "access-control-max-age": "600",
}


class Telling(Protocol):
    """What is needed of atoll.services.openid.OpenId."""

    async def redeem(
        self, code: str, *, client_id: str, redirect_uri: str, verifier: str
    ) -> dict[str, Any]:
        """Tokens for a code; raises Refused."""
        ...

    async def userinfo(self, token: str) -> dict[str, Any] | None:
        """What an access token tells."""
        ...


class Keys(Protocol):
    """What is needed of atoll.services.issuer.Issuer."""

    @property
    def url(self) -> str:
        """The issuer's name."""
        ...

    def jwks(self) -> Mapping[str, Any]:
        """The public keys."""
        ...


class Endpoints:
    """The routes. `back` is where apps reach them, if not at the issuer's own address.

    VMs do not reach the machine they run on; what they ask of it they ask at `http://metadata.int`.
    """

    def __init__(self, *, openid: Telling, issuer: Keys, back: str = "") -> None:
        self._openid = openid
        self._issuer = issuer
        self._back = back

    def routes(self) -> tuple[BaseRoute, ...]:
        """For the cloud's own host."""
        return (
            Route(DISCOVERY, self.discovery, methods=["GET"]),
            Route(JWKS, self.jwks, methods=["GET"]),
            Route(TOKEN, self.token, methods=["POST"]),
            Route(USERINFO, self.userinfo, methods=["GET", "POST"]),
            Route(TOKEN, self.may_ask, methods=["OPTIONS"]),
            Route(USERINFO, self.may_ask, methods=["OPTIONS"]),
        )

    async def discovery(self, _request: Request) -> Response:
        """OpenID Connect Discovery 1.0."""
        return JSONResponse(
            metadata(self._issuer.url, self._back or self._issuer.url),
            headers={**_KEEP, **_ANY_PAGE},
        )

    async def jwks(self, _request: Request) -> Response:
        """The keys that tokens are verified with."""
        return JSONResponse(self._issuer.jwks(), headers={**_KEEP, **_ANY_PAGE})

    async def may_ask(self, _request: Request) -> Response:
        """What a page's script asks before it asks."""
        return Response(status_code=204, headers=_ASKING)

    async def token(self, request: Request) -> Response:
        """Trade a code for tokens (RFC 6749 4.1.3)."""
        headers = {**_ANY_PAGE, "pragma": "no-cache"}
        try:
            return JSONResponse(await self._redeemed(request), headers=headers)
        except Refused as refused:
            said = {"error": refused.code, "error_description": refused.text}
        status = 400
        if said["error"] == "invalid_client":
            status, headers = 401, {**headers, "www-authenticate": "Basic"}
        return JSONResponse(said, status_code=status, headers=headers)

    async def _redeemed(self, request: Request) -> dict[str, Any]:
        try:
            form = await read_form(request)
        except AtollError as error:
            raise Refused("invalid_request", error.message) from error
        if repeated := sorted(name for name, values in form.items() if len(values) > 1):
            raise Refused("invalid_request", f"{repeated[0][:40]} is there more than once")
        if "authorization" in request.headers or any(form.get("client_secret", ())):
            raise Refused("invalid_client", "clients have no secret here: send client_id alone")
        if form.get("grant_type") != ["authorization_code"]:
            raise Refused("unsupported_grant_type", "only grant_type=authorization_code")
        needed = ("code", "client_id", "redirect_uri", "code_verifier")
        if missing := [name for name in needed if name not in form]:
            raise Refused("invalid_request", f"{missing[0]} is missing")
        return await self._openid.redeem(
            form["code"][0],
            client_id=form["client_id"][0],
            redirect_uri=form["redirect_uri"][0],
            verifier=form["code_verifier"][0],
        )

    async def userinfo(self, request: Request) -> Response:
        """Who an access token is about (RFC 6750: in the header, nowhere else)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = await self._openid.userinfo(token.strip()) if scheme.lower() == "bearer" else None
        if known is None:
            said = "the access token has ended or never was one"
            return JSONResponse(
                {"error": "invalid_token", "error_description": said},
                status_code=401,
                headers={**_ANY_PAGE, "www-authenticate": 'Bearer error="invalid_token"'},
            )
        return JSONResponse(known, headers=_ANY_PAGE)


def metadata(url: str, back: str) -> dict[str, Any]:
    """What this provider can do; browsers go to `url`, apps ask at `back`."""
    return {
        "issuer": url,
        "authorization_endpoint": url + AUTHORIZE,
        "token_endpoint": back + TOKEN,
        "userinfo_endpoint": back + USERINFO,
        "jwks_uri": back + JWKS,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": list(TOLD),
        "claims_supported": ["sub", "email", "email_verified", "auth_time", "nonce", "sid"],
        "token_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": False,
    }
