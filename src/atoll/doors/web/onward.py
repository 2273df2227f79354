"""Where somebody was going who must sign in first: a page of a VM, or a path of the cloud's own host.

Kept in a cookie of the browser's, which nobody else can set (`__Host-`), and checked when it is read
all the same: what leads elsewhere is not kept and not followed.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from atoll.domain.web import Names, Target, own_path

_COOKIE = "__Host-atoll-to"
_SECONDS = 900
_BYTES = 3_000  # a browser keeps cookies of 4 KiB


class Onward:
    """Reads and keeps such places."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def target(self, to: str) -> Target | None:
        """The page of a VM that `to` names."""
        return self._names.target(to)

    def path(self, to: str) -> str | None:
        """The path of the cloud's own host that `to` is."""
        return to if to and own_path(to) == to else None

    def is_ours(self, to: str) -> bool:
        """Whether it may be followed."""
        return self.target(to) is not None or self.path(to) is not None

    def keep(self, response: Response, to: str) -> None:
        """Have the browser remember it until somebody has signed in."""
        if self.is_ours(to) and len(to) <= _BYTES:
            set_cookie(response, _COOKIE, to, _SECONDS)

    def kept(self, request: Request) -> str:
        """The path to go to after signing in; `/` when nothing is kept."""
        to = request.cookies.get(_COOKIE, "")
        target = self.target(to)
        if target is not None:
            return f"/login?to={quote(f'https://{target.authority}{target.path}', safe='')}"
        return self.path(to) or "/"

    def forget(self, response: Response) -> None:
        """It was followed."""
        set_cookie(response, _COOKIE, "", 0)


def set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    """One that is sent to this very host only, and read by no script."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )
