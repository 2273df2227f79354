"""Grants and paths, decided purely: what covers what, and which paths are read alike by all."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.sharing import (
    EVERY_PORT,
    EVERYBODY,
    Grant,
    Level,
    Opening,
    Who,
    is_below,
    is_plain,
    may_open,
    openings,
)

ACCOUNTS = {"ann@x.org": "acct-ann", "bob@x.org": "acct-bob"}
TEAMS = {"team-1": ("acct-bob", "acct-carl", "acct-ann")}


def grant(kind: Who, who: str = "", **values: object) -> Grant:
    fixed: dict[str, object] = {"id": "g", "vm": "vm-1", "created_at": 0, "created_by": "acct-ann"}
    return Grant(kind=kind, who=who, **(fixed | values))  # type: ignore[arg-type]


def opened(*grants: Grant) -> set[Opening]:
    """What they come to, without the owner's own."""
    found = openings(grants, owner="acct-ann", port=8000, accounts=ACCOUNTS, teams=TEAMS)
    return set(found) - {Opening(account="acct-ann", port=EVERY_PORT)}


def test_an_owner_opens_everything() -> None:
    found = openings((), owner="acct-ann", port=8000, accounts={}, teams={})
    assert found == {Opening(account="acct-ann", port=EVERY_PORT)}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (grant(Who.PERSON, "bob@x.org"), {Opening(account="acct-bob", port=8000)}),
        (grant(Who.PERSON, "bob@x.org", port=3000), {Opening(account="acct-bob", port=3000)}),
        (
            grant(Who.PERSON, "bob@x.org", level=Level.ROOT, expires_at=9.0),
            {Opening(account="acct-bob", port=EVERY_PORT, until=9.0)},
        ),
        (grant(Who.PERSON, "nobody@x.org"), set()),
        (grant(Who.PERSON, "ann@x.org"), set()),
        (
            grant(Who.TEAM, "team-1", path="/a"),
            {Opening(account=who, port=8000, path="/a") for who in ("acct-bob", "acct-carl")},
        ),
        (grant(Who.TEAM, "team-2"), set()),
        (grant(Who.PUBLIC, path="/hooks"), {Opening(account=EVERYBODY, port=8000, path="/hooks")}),
    ],
)
def test_what_a_grant_opens(given_: Grant, expected: set[Opening]) -> None:
    assert opened(given_) == expected


BELOW = (
    "/docs", "/docs/", "/docs/a/b.html", "/docs/caf%C3%A9", "/docs/a%20b", "/docs/...", "/docs/.hidden",
    "/docs/a'b",
)  # fmt: skip
NOT_BELOW = (
    "/", "/docs-secret", "/Docs/a", "/doc", "docs", "", "/docs//x", "/docs/../x", "/docs/..", "/docs/./x",
    "//docs/x", "/docs/%2e%2e/x", "/docs/%2E%2e/x", "/docs/..%2fx", "/docs/%5c..%5cx", "/docs/..;/x",
    "/docs/..%3b/x", "/docs/;a/../x", "/docs\\..\\x", "/docs/%252e%252e/x", "/docs/%c0%ae%c0%ae/x",
    "/docs/%00", "/docs/%0a", "/docs/%u002e", "/docs/%", "/docs/%zz", "/docs/..%20/x", "/docs/\x7f",
    "/docs/x\n", "/docs/é", "/docs/a b", "/docs/<", "/docs/|",
)  # fmt: skip


@pytest.mark.parametrize("path", BELOW)
def test_a_path_below_a_prefix(path: str) -> None:
    assert is_below(path, "/docs")


@pytest.mark.parametrize("path", NOT_BELOW)
def test_a_path_that_may_be_elsewhere(path: str) -> None:
    assert not is_below(path, "/docs")
    assert is_below(path, "/")


tricks = st.lists(
    st.sampled_from(
        [
            "/",
            "..",
            ".",
            ";",
            "%2f",
            "%2e",
            "%5c",
            "\\",
            "docs",
            "secret",
            "%25",
            "a",
            "%c0%af",
            "%20",
            "%",
            "//",
        ]
    ),
    max_size=8,
).map(lambda parts: "/docs" + "".join(parts))


@given(tricks)
def test_what_is_covered_lies_below_for_every_reader(path: str) -> None:
    if not is_below(path, "/docs"):
        return
    for read in (
        path,
        unquote(path),
        unquote(unquote(path)),
        path.replace("\\", "/"),
        unquote(path).replace("\\", "/"),
        "/".join(part.split(";")[0] for part in unquote(path).split("/")),
    ):
        normal = posixpath.normpath(read)
        assert normal == "/docs" or normal.startswith("/docs/"), read


@given(st.text(alphabet="/.%2eEfF5cab;\\", max_size=12))
def test_no_plain_path_has_a_dot_segment(text: str) -> None:
    path = f"/{text}"
    if is_plain(path):
        parts = unquote(path).rstrip("/").split("/")[1:]
        assert not {"", ".", ".."} & set(parts)


def test_time_ends_it_to_the_second() -> None:
    one = Opening(account="acct-bob", port=80, until=100.0)
    assert may_open([one], "acct-bob", port=80, path="/", now=99.9)
    assert not may_open([one], "acct-bob", port=80, path="/", now=100.0)


def test_strangers_open_what_is_public_only() -> None:
    given_ = [Opening(account=EVERYBODY, port=80), Opening(account="acct-bob", port=EVERY_PORT)]
    assert may_open(given_, None, port=80, path="/", now=0)
    assert not may_open(given_, None, port=81, path="/", now=0)
    assert may_open(given_, "acct-bob", port=81, path="/", now=0)
