"""Cookies of ours: sent to one very host only, and read by no script."""

from __future__ import annotations

from starlette.responses import Response


def set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    """Have the browser keep it; with 0 seconds, forget it."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )
