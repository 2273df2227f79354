"""What is wrong with a host's certificate, in words: for `domain ls` and `atoll doctor`."""

from __future__ import annotations

from datetime import UTC, datetime

from atoll.config import Config
from atoll.domain.certificate import Standing, next_look
from atoll.services.certificates.shelf import ACCOUNT, Kept, Shelf

NO_SERVER = (
    "none: acme.directory is not set, and Atoll's own CA may vouch for names of {domain} only"
)


def problem(config: Config, shelf: Shelf, host: str, kept: Kept | None, *, now: float) -> str:
    """Why `host` has no certificate of the ACME server, or soon will have none; empty: all is well.

    `kept` is what the shelf has for it.
    """
    if not config.acme.directory:
        return NO_SERVER.format(domain=config.https.domain)
    standing = shelf.standing(host)
    worst = standing if standing.failures else shelf.standing(ACCOUNT)
    if kept is not None and kept.end > now:
        return f"not renewed: {_again(worst, now)}" if worst.failures else ""
    if not worst.failures:
        return "none yet: it is being asked for"
    return f"none: {_again(worst, now)}" if kept is None else f"expired: {_again(worst, now)}"


def _again(standing: Standing, now: float) -> str:
    when = datetime.fromtimestamp(next_look(now, standing, now=now), UTC)
    return f"{standing.problem}; tried again at {when:%Y-%m-%dT%H:%M:%SZ}"
