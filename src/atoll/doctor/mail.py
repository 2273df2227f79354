"""Whether mail leaves this machine."""

from __future__ import annotations

import time

from atoll.config import Config
from atoll.doctor.finding import Finding, degraded, missing, ok
from atoll.services.maildir import KEPT, Maildir

RECENT_S = 86_400.0


def examine(config: Config, *, now: float | None = None) -> Finding:
    """What is set, and what of the last day could not be sent."""
    settings = config.mail
    try:
        if settings.password_file:
            settings.password_file.read_bytes()
        letters = Maildir(config.mail_folder).newest(KEPT)
    except OSError as error:
        return missing("mail", f"{error.filename}: {error.strerror}", "atoll config show")
    if not settings.host:
        return ok("mail", f"no server is set (mail.host): it stays here, {len(letters)} at /mail")
    since = (time.time() if now is None else now) - RECENT_S
    lost = [letter.undelivered for letter in letters if letter.undelivered and letter.at > since]
    if lost:
        found = f"{settings.host} did not take {len(lost)} in a day: {lost[0][:200]}"
        return degraded("mail", found, "ssh … mail")
    return ok("mail", f"by {settings.host}")
