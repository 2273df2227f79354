"""Which machine a user name or a host name means."""

from __future__ import annotations

import pytest

from atoll.doors.ssh.target import Target, mistaken, of_host, of_user


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("web", Target("web")),
        ("vm+web", Target("web", must_exist=True)),
        ("vm+", Target("", must_exist=True)),
        ("atoll", Target(None)),
        ("lobby", Target(None)),
        ("root", Target(None)),
        ("", Target(None)),
        ("ann", Target("ann")),  # looked up; no such VM means the lobby
    ],
)
def test_user_names(user: str, wanted: Target) -> None:
    assert of_user(user) == wanted


@pytest.mark.parametrize(
    ("host", "vm"),
    [
        ("web", "web"),
        ("WEB.atoll.", "web"),
        ("web.cloud.example.org", "web"),
        ("web.cloud", "web"),
        ("web.atoll", "web"),
        ("a.b.atoll", "a.b.atoll"),
        ("169.254.169.254", "169.254.169.254"),
        ("localhost", "localhost"),
        ("cloud.example.org", "cloud.example.org"),
    ],
)
def test_host_names(host: str, vm: str) -> None:
    assert of_host(host, "cloud.example.org") == vm


@pytest.mark.parametrize(
    ("user", "meant"),
    [
        ("wbe", "web"),
        ("we", None),  # too short to tell
        ("webb", "web"),
        ("b-next", None),
        ("wb-next", "web-next"),
        ("wex", "web"),
        ("web", None),
        ("ann", None),
        ("root", None),
        ("", None),
    ],
)
def test_slips(user: str, meant: str | None) -> None:
    assert mistaken(user, ["web", "web-next", "roots"]) == meant
