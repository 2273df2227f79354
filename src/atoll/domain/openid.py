"""A request of an app to know who somebody is: OpenID Connect's, with PKCE, as values. Pure.

An app in a VM needs no registration: its `client_id` is the VM's web host, and where the answer may
go is a URL on the hosts of that very VM. `proven` says where an answer may go at all; only then
may anything that is wrong be said there (`Refused`), as RFC 6749 4.1.2.1 wants it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, urlencode

from atoll.base.errors import Invalid
from atoll.base.secret import base64url
from atoll.domain.web import DOOR_PATH, Names, Target

Query: TypeAlias = Mapping[str, Sequence[str]]

TOLD = ("openid", "email")  # scopes that mean something here
_PRINTABLE = re.compile(r"[ -~]{0,1000}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7636: SHA-256 in base64url
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})
_SEE = "Try: docs/openid.md of this cloud"


class Refused(Exception):
    """An error that goes back to the app. `code` is one of RFC 6749 or OpenID Connect."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Which VM's app asks, and where the answer goes."""

    client_id: str
    vm_name: str
    port: int | None  # inside the VM; None: its own web port
    path: str
    redirect_uri: str
    state: str | None

    def url(self, issuer: str, **answer: str) -> str:
        """Where the browser goes with this answer; `iss` guards against mix-ups (RFC 9207)."""
        state = {} if self.state is None else {"state": self.state}
        query = urlencode({**answer, **state, "iss": issuer}, quote_via=quote)
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{query}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The rest of a request. `signed_in_since` is when its person must have signed in at the earliest."""

    scope: frozenset[str]
    nonce: str | None
    challenge: str
    prompt: frozenset[str]
    max_age: int | None

    @property
    def told(self) -> tuple[str, ...]:
        """What of `scope` means something here."""
        return tuple(word for word in TOLD if word in self.scope)


def proven(query: Query, names: Names) -> Return:
    """Whom a request is from and where the answer may go. Raises Invalid, to be shown to the person."""
    client_id, redirect_uri = _once(query, "client_id"), _once(query, "redirect_uri")
    if client_id is None or redirect_uri is None:
        missing = "client_id" if client_id is None else "redirect_uri"
        raise Invalid(f"the app's request has not one {missing}", hint=_SEE)
    vm_name = client_id.removesuffix(f".{names.domain}")
    if names.vm_of(client_id) != vm_name:
        raise Invalid(
            f"client_id {client_id[:80]!r} is not the web host of a VM",
            hint=f"Try: client_id=<vm>.{names.domain}",
        )
    target = _page_of(redirect_uri, vm_name, names)
    if target is None:
        raise Invalid(
            f"redirect_uri {redirect_uri[:80]!r} is not a page of {client_id}",
            hint=f"Try: redirect_uri={names.url(client_id, '/callback')}",
        )
    state = _once(query, "state")
    if (state is None) != ("state" not in query) or not _PRINTABLE.fullmatch(state or ""):
        raise Invalid("the app's request has no usable state: at most 1000 printable characters")
    return Return(
        client_id=client_id,
        vm_name=vm_name,
        port=target.port,
        path=target.path.partition("?")[0],
        redirect_uri=redirect_uri,
        state=state,
    )


def asked(query: Query) -> Asked:
    """What a proven request wants. Raises Refused."""
    if repeated := sorted(name for name, values in query.items() if len(values) > 1):
        raise Refused("invalid_request", f"{repeated[0][:40]} is there more than once")
    for name in ("request", "request_uri"):
        if name in query:
            raise Refused(f"{name}_not_supported", f"{name} is not taken here")
    if _once(query, "response_type") != "code":
        raise Refused("unsupported_response_type", "only response_type=code")
    if _once(query, "response_mode") not in (None, "query"):
        raise Refused("invalid_request", "only response_mode=query")
    scope = frozenset((_once(query, "scope") or "").split())
    if "openid" not in scope:
        raise Refused("invalid_scope", "scope must contain openid")
    return Asked(
        scope=scope,
        nonce=_nonce(query),
        challenge=_challenge(query),
        prompt=_prompt(query),
        max_age=_max_age(query),
    )


def again(query: Query) -> dict[str, str]:
    """The same request for when its person has just signed in again, which it asked for."""
    prompt = " ".join(sorted(_prompt(query) - {"login"}))
    kept = {name: values[0] for name, values in query.items() if name not in ("prompt", "max_age")}
    return {**kept, **({"prompt": prompt} if prompt else {})}


def fits(verifier: str, challenge: str) -> bool:
    """Whether this is what the challenge was made from (PKCE, S256)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    return hmac.compare_digest(base64url(digest), challenge)


def half_hash(token: str) -> str:
    """OpenID Connect's `at_hash`: ties an access token to its ID token."""
    digest = hashlib.sha256(token.encode()).digest()
    return base64url(digest[:16])


def _once(query: Query, name: str) -> str | None:
    values = query.get(name, ())
    return values[0] if len(values) == 1 else None


def _page_of(uri: str, vm_name: str, names: Names) -> Target | None:
    """Exactly as a browser will read it, on a host of this VM, and not a path of ours there."""
    target = names.target(uri)
    if target is None or target.vm_name != vm_name or len(uri) > 1000:
        return None
    if uri.removeprefix(f"https://{target.authority}") not in ("", target.path):
        return None  # own_path has replaced it
    path = target.path.partition("?")[0]
    is_plain = not re.search(r"/\.|%2e", path, re.IGNORECASE)
    is_apps = is_plain and "#" not in uri and not f"{path}/".startswith(DOOR_PATH)
    return target if is_apps else None


def _nonce(query: Query) -> str | None:
    nonce = _once(query, "nonce")
    if nonce is not None and not _PRINTABLE.fullmatch(nonce):
        raise Refused("invalid_request", "nonce has at most 1000 printable characters")
    return nonce


def _challenge(query: Query) -> str:
    if _once(query, "code_challenge_method") != "S256":
        raise Refused("invalid_request", "PKCE is required: code_challenge_method=S256")
    challenge = _once(query, "code_challenge") or ""
    if not _CHALLENGE.fullmatch(challenge):
        raise Refused("invalid_request", "PKCE is required: code_challenge has 43 characters")
    return challenge


def _prompt(query: Query) -> frozenset[str]:
    prompt = frozenset((_once(query, "prompt") or "").split())
    if not prompt <= _PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise Refused("invalid_request", f"prompt is none, or of {', '.join(sorted(_PROMPTS))}")
    return prompt


def _max_age(query: Query) -> int | None:
    text = _once(query, "max_age")
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text):
        raise Refused("invalid_request", "max_age is a number of seconds")
    return None if text is None else int(text)
