"""Whether HTTPS has certificates that browsers trust, where they are asked of an ACME server."""

from __future__ import annotations

import time

from atoll.config import Config
from atoll.doctor.finding import Finding, degraded, ok
from atoll.services.certificates import report
from atoll.services.certificates.shelf import Shelf


def examine(config: Config, *, now: float | None = None) -> Finding:
    """What the files of control say; a name of its own has its problem in `domain ls`."""
    domain, shelf = config.https.domain, Shelf(config.certificates)
    if not config.acme.directory:
        return ok("certificates", f"of the own CA, for names of {domain}: atoll trust")
    at = time.time() if now is None else now
    if problem := report.problem(config, shelf, domain, shelf.certificate(domain), now=at):
        return degraded("certificates", f"{domain}: {problem}", "ssh … domain ls -a")
    count = len(shelf.certificates())
    return ok("certificates", f"{count} by {config.acme.directory}")
