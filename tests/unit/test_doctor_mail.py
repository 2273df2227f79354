"""What the doctor says of mail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atoll.config import Config
from atoll.doctor.finding import Level
from atoll.doctor.mail import RECENT_S, examine
from atoll.services.maildir import UNDELIVERED, Maildir

AT = 1_800_000_000.0


def config(folder: Path, **mail: Any) -> Config:
    return Config.model_validate({"paths": {"state": folder}, "mail": mail})


def test_mail_that_stays_here(tmp_path: Path) -> None:
    Maildir(tmp_path / "control/mail").put(b"Subject: x\n\nx", at=AT)
    found = examine(config(tmp_path), now=AT)
    assert (found.level, "1 at /mail" in found.found) == (Level.OK, True)


def test_mail_that_a_server_did_not_take_is_said_for_a_day(tmp_path: Path) -> None:
    given = config(tmp_path, host="mx.example.com")
    assert examine(given, now=AT).level is Level.OK
    refused = f"Subject: x\n{UNDELIVERED}: 550 no\n\nx".encode()
    Maildir(tmp_path / "control/mail").put(refused, at=AT)
    found = examine(given, now=AT + 1)
    assert (found.level, "550 no" in found.found) == (Level.DEGRADED, True)
    assert examine(given, now=AT + RECENT_S + 1).level is Level.OK


def test_a_password_that_is_not_there_is_missing(tmp_path: Path) -> None:
    found = examine(config(tmp_path, host="mx.example.com", password_file=tmp_path / "none"))
    assert (found.level, str(tmp_path / "none") in found.found) == (Level.MISSING, True)
