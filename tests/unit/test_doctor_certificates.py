"""What the doctor says of certificates."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from atoll.config import Config
from atoll.doctor.certificates import examine
from atoll.doctor.finding import Level
from atoll.domain.certificate import Standing, failed
from atoll.doors.edge.certs import Authority
from atoll.services.certificates.shelf import ACCOUNT, Shelf

NOW = dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC)
DIRECTORY = "https://acme.example.com/directory"


def config(folder: Path, directory: str = DIRECTORY) -> Config:
    return Config.model_validate({"paths": {"state": folder}, "acme": {"directory": directory}})


def test_the_own_ca(tmp_path: Path) -> None:
    found = examine(config(tmp_path, ""), now=NOW.timestamp())
    assert (found.level, "atoll trust" in found.found) == (Level.OK, True)


def test_a_server_that_refuses_is_said_with_the_time_of_the_next_try(tmp_path: Path) -> None:
    given, at = config(tmp_path), NOW.timestamp()
    assert examine(given, now=at).found.endswith("none yet: it is being asked for")
    Shelf(given.certificates).note(ACCOUNT, failed(Standing(), "no account", now=at, jitter=0.0))
    found = examine(given, now=at)
    assert found.level is Level.DEGRADED
    assert "no account; tried again at 2027-01-15T08:0" in found.found


def test_a_good_one(tmp_path: Path) -> None:
    given, keys = config(tmp_path), tmp_path / "keys"
    keys.mkdir()
    given.certificates.mkdir(parents=True)
    path = given.certificates / f"{given.https.domain}.pem"
    path.write_bytes(Authority(keys, given.https.domain).leaf(path, now=NOW) or b"")
    found = examine(given, now=NOW.timestamp())
    assert (found.level, found.found) == (Level.OK, f"1 by {DIRECTORY}")
