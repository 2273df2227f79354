"""Connections are counted by source, refused with a sentence, and forgotten when they leave."""

from __future__ import annotations

from atoll.doors.ssh.admission import Admission, Limits

TIGHT = Limits(pending_per_source=2, pending=3, source=4, total=6)


def test_one_source_cannot_take_the_logins_of_another() -> None:
    admission = Admission(TIGHT)
    refusals = [admission.enter("192.0.2.1")[1] for _ in range(3)]
    assert refusals[:2] == ["", ""]
    assert refusals[2] == "too many logins at once from 192.0.2.1; try again in a moment"


def test_the_sum_is_limited() -> None:
    admission = Admission(TIGHT)
    refusals = [admission.enter(f"192.0.2.{n}")[1] for n in range(4)]
    assert refusals == ["", "", "", "too many connections; try again in a moment"]


def test_logged_in_connections_free_their_place_among_the_pending() -> None:
    admission = Admission(TIGHT)
    for _ in range(4):
        place, refusal = admission.enter("192.0.2.1")
        assert not refusal
        place.proven()
    assert "4 connections from 192.0.2.1 are open" in admission.enter("192.0.2.1")[1]


def test_leaving_twice_counts_once() -> None:
    admission = Admission(TIGHT)
    first, _ = admission.enter("192.0.2.1")
    second, _ = admission.enter("192.0.2.1")
    first.leave()
    first.leave()
    assert not admission.enter("192.0.2.1")[1]
    assert admission.enter("192.0.2.1")[1]
    second.leave()


def test_an_ipv6_network_is_one_source_and_a_mapped_address_its_ipv4_self() -> None:
    admission = Admission(TIGHT)
    assert not admission.enter("2001:db8::1")[1]
    assert not admission.enter("2001:db8::ffff:2%eth0")[1]
    assert admission.enter("2001:db8::3")[1]
    admission = Admission(TIGHT)
    for _ in range(2):
        admission.enter("::ffff:192.0.2.1")
    assert admission.enter("192.0.2.1")[1]
