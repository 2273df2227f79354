"""Where a request comes from: the client's address, and whose page sent a form."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from atoll.base.errors import Denied
from atoll.base.source import plain
from atoll.domain.web import is_own_page


def check_origin(request: HTTPConnection, host: str) -> None:
    """Refuse a form sent by another site's page; browsers say where it came from.

    Raises Denied. The page of a VM is another site, though browsers call it the same one.
    """
    said = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if not is_own_page(*said, host):
        raise Denied("this form was sent by a page of another site")


def source_of(request: HTTPConnection) -> str:
    """The client's address: HAProxy replaces whatever a client says about it."""
    forwarded = request.headers.get("x-forwarded-for", "")
    return plain(forwarded or (request.client.host if request.client else ""))
