"""When certificates are asked for, and which answers which name."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from atoll.domain.certificate import (
    LONGEST_HELD_S,
    LONGEST_WAIT_S,
    Proof,
    Standing,
    failed,
    next_look,
    renewal,
    stem,
    wanted,
)
from atoll.doors.edge.certs import new_ca, new_leaf
from atoll.doors.edge.name_maps import DOMAINS, PROOFS, tables
from atoll.doors.edge.tls.serving import choose, crt_list
from atoll.services.certificates.refusal import wait_of
from atoll.services.certificates.shelf import Kept, Shelf

OWN = "cloud.example.com"
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def test_waits_grow_and_end() -> None:
    standing, waits = Standing(), []
    for _ in range(6):
        standing = failed(standing, "no", now=0.0, jitter=0.0)
        waits.append(standing.next_attempt)
    assert waits == [60, 240, 960, 3840, 15360, LONGEST_WAIT_S]
    assert failed(Standing(), "no", now=0, jitter=1, at_least=3600).next_attempt == 3600
    assert failed(Standing(), "no", now=0, jitter=1, at_least=1e9).next_attempt == LONGEST_HELD_S


def test_a_clock_that_is_set_back_makes_nobody_wait() -> None:
    standing = failed(Standing(), "no", now=1000.0, jitter=0.0)
    assert next_look(0.0, standing, now=1001.0) == 1060
    assert next_look(0.0, standing, now=10.0) == 0.0


def test_renewal_at_two_thirds_or_when_the_server_says() -> None:
    assert renewal(0, 90, Standing()) == 60
    assert renewal(0, 90, Standing(renew_at=30)) == 30
    assert renewal(0, 90, Standing(renew_at=1000)) == 90


def test_one_wildcard_or_one_for_each() -> None:
    (one, shop) = wanted(OWN, vms={"web"}, custom={"shop.example.net"}, has_dns=True)
    assert (one.hosts, one.proof) == ((OWN, f"*.{OWN}"), Proof.DNS)
    assert (shop.hosts, shop.proof) == (("shop.example.net",), Proof.HTTP)
    hosts = [each.hosts for each in wanted(OWN, vms={"web", "db"}, custom=(), has_dns=False)]
    assert hosts == [(OWN,), (f"db.{OWN}",), (f"web.{OWN}",)]
    assert len(stem("a." * 126 + "b")) < 200


def test_the_default_comes_back_when_nothing_better_is_good() -> None:
    wild = Kept(pem=b"w", hosts=(OWN, f"*.{OWN}"), begin=0, end=10)
    web = Kept(pem=b"v", hosts=(f"web.{OWN}",), begin=0, end=10)
    shop = Kept(pem=b"s", hosts=("shop.example.net",), begin=0, end=10)
    kept = {OWN: wild, f"web.{OWN}": web, "shop.example.net": shop}
    good = choose(kept, OWN, now=5)
    assert good.default == b"w"
    assert set(good.others) == {f"web.{OWN}.pem", "shop.example.net.pem"}
    late = choose(kept, OWN, now=11)
    assert late.default is None
    assert set(late.others) == {"shop.example.net.pem"}
    assert (
        crt_list(Path("/c"), OWN, late.others) == f"/c/edge.pem *.{OWN}\n/c/shop.example.net.pem\n"
    )


def test_no_map_redefines_a_name_of_ours() -> None:
    where = f"{OWN}/.well-known/acme-challenge/abc"
    made = tables(
        {"shop.example.net": "web", f"x.{OWN}": "web", OWN: "web", "a b": "web"},
        {where: "abc.def", f"{where} x": "abc.def", f"{where}d": "a\nb"},
        domain=OWN,
    )
    assert made[DOMAINS] == {"shop.example.net": f"web.{OWN}"}
    assert made[PROOFS] == {where: "abc.def"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120), ("", 0), ("soon", 0), ("-1", 0), ("Sat, 21 Nov 2026 00:01:00 GMT", 60)],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert wait_of(text, now=NOW) == seconds


def test_a_damaged_file_is_no_certificate(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "certificates")
    ca = new_ca(OWN, now=NOW)
    kept = shelf.keep(OWN, new_leaf(ca, OWN, now=NOW).pem())
    assert shelf.certificates() == {OWN: kept}
    mixed = new_leaf(ca, OWN, now=NOW).pem().split(b"-----BEGIN CERT")[0] + kept.pem[kept.pem.index(b"-----BEGIN CERT"):]  # fmt: skip  # noqa: E501
    (tmp_path / "certificates" / f"{OWN}.pem").write_bytes(mixed)
    assert shelf.certificate(OWN) is None
    assert shelf.certificates() == {}
    shelf.note(OWN, Standing(failures=2, problem="x", next_attempt=5.0))
    assert Shelf(tmp_path / "certificates").standing(OWN).failures == 2
    (tmp_path / "certificates" / f"{OWN}.json").write_text('{"failures": []}')
    assert shelf.standing(OWN) == Standing()
    assert shelf.forget(but=()) == [OWN]
