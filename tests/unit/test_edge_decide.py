"""What the edge lets through, decided purely."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.account import Published
from atoll.doors.edge import decide
from atoll.doors.edge.decide import Maps

BLOCK = IPv4Network("10.213.0.0/16")
DOMAIN = "atoll.localhost"
WEB = Published(
    vm_name="web", address="10.213.1.2", port=8000, is_public=False, accounts=frozenset({"acct-a"})
)


def maps(*published: Published, revoked: dict[str, str] | None = None) -> Maps:
    return decide.maps(published, revoked or {}, domain=DOMAIN, block=BLOCK)


def test_private_vm() -> None:
    assert maps(WEB, revoked={"5e": "acct-a"}) == Maps(
        hosts={"web.atoll.localhost": "10.213.1.2:8000:private"},
        grants={"web.atoll.localhost|acct-a": "web"},
        revoked={"5e": "acct-a"},
    )


def test_public_vm() -> None:
    shown = maps(replace(WEB, is_public=True))
    assert shown.hosts == {"web.atoll.localhost": "10.213.1.2:8000:public"}


def test_vm_that_does_not_run() -> None:
    assert maps(replace(WEB, address=None)).hosts == {"web.atoll.localhost": "-:8000:private"}


@pytest.mark.parametrize(
    "wrong",
    [
        replace(WEB, vm_name="a b"),
        replace(WEB, vm_name="a\nb"),
        replace(WEB, vm_name=""),
        replace(WEB, vm_name="a.b"),
        replace(WEB, vm_name="a|b"),
        replace(WEB, vm_name="WEB"),
        replace(WEB, address="127.0.0.1"),
        replace(WEB, address="10.214.0.1"),
        replace(WEB, address="::1"),
        replace(WEB, address="10.213.1.2:80"),
        replace(WEB, port=0),
        replace(WEB, port=65536),
    ],
)
def test_what_cannot_stand_in_a_map_is_unknown(wrong: Published) -> None:
    assert maps(wrong) == Maps()


def test_odd_account_is_left_out() -> None:
    assert maps(replace(WEB, accounts=frozenset({"a b", "c|d", ""}))).grants == {}


texts = st.text(max_size=12) | st.sampled_from(["web", "a\nb", "x y", "a|b", "*", "-"])
anything = st.builds(
    Published,
    vm_name=texts,
    address=st.none() | st.ip_addresses(v=4).map(str) | texts,
    port=st.integers(-1, 70_000),
    is_public=st.booleans(),
    accounts=st.frozensets(texts, max_size=3),
)
sound = st.builds(
    Published,
    vm_name=st.sampled_from(["web", "db", "api-x"]),
    address=st.none() | st.sampled_from(["10.213.1.2", "10.213.1.6"]),
    port=st.sampled_from([80, 8000]),
    is_public=st.booleans(),
    accounts=st.frozensets(st.sampled_from(["acct-a", "acct-b"])),
)
sound_maps = st.builds(
    lambda published, revoked: maps(*published, revoked=revoked),
    st.lists(sound, max_size=4),
    st.dictionaries(st.sampled_from(["aa", "bb"]), st.sampled_from(["acct-a", "acct-b"])),
)


@given(st.lists(anything, max_size=4))
def test_denies_by_default(published: list[Published]) -> None:
    shown = maps(*published)
    hosts = {f"{vm.vm_name}.{DOMAIN}": vm for vm in reversed(published)}
    for host, value in shown.hosts.items():
        address, port, visibility = value.split(":")
        named = [vm for vm in published if f"{vm.vm_name}.{DOMAIN}" == host]
        assert any(
            (vm.address or "-") == address
            and str(vm.port) == port
            and visibility == ("public" if vm.is_public else "private")
            for vm in named
        )
    for key in shown.grants:
        host, _, account = key.partition("|")
        assert account in hosts[host].accounts or any(account in vm.accounts for vm in published)
    for table in shown.tables().values():
        for key, value in table.items():
            assert not set(f"{key}{value}") & set(" \t\n\r")


def applied(old: Maps, steps: tuple[decide.Change, ...]) -> list[Maps]:
    """HAProxy's maps after each step."""
    tables = {name: dict(table) for name, table in old.tables().items()}
    states = []
    for step in steps:
        table = tables[step.table]
        if step.value is None:
            del table[step.key]
        else:
            assert step.replaces == (step.key in table)
            table[step.key] = step.value
        states.append(Maps(**{name: dict(table) for name, table in tables.items()}))
    return states


def opened(shown: Maps) -> set[tuple[str, str]]:
    """(who, address) pairs that pass; `*` is anybody."""
    found = set()
    for host, value in shown.hosts.items():
        address, _, visibility = value.split(":")
        if visibility == "public":
            found.add(("*", address))
        for key in shown.grants:
            if key.startswith(f"{host}|"):
                found.add((key.partition("|")[2], address))
    return found


@given(sound_maps, sound_maps)
def test_changes_lead_from_old_to_new_and_open_nothing_else(old: Maps, new: Maps) -> None:
    states = applied(old, decide.changes(old, new))
    assert (states[-1] if states else old) == new
    for state in states:
        assert opened(state) <= opened(old) | opened(new)


@given(sound_maps, sound_maps)
def test_streams_of_the_lost_are_cut(old: Maps, new: Maps) -> None:
    lost = {address for _, address in opened(old) - opened(new)} - {"-"}
    assert lost <= decide.cut(old, new)


def test_nothing_is_cut_for_nothing() -> None:
    shown = maps(WEB)
    assert decide.cut(shown, shown) == frozenset()
    assert decide.cut(shown, maps(replace(WEB, is_public=True))) == frozenset()
    assert decide.cut(Maps(), shown) == frozenset()


def test_signing_out_cuts_what_the_account_may_open() -> None:
    db = replace(WEB, vm_name="db", address="10.213.1.6", accounts=frozenset({"acct-b"}))
    old, new = maps(WEB, db), maps(WEB, db, revoked={"5e": "acct-b"})
    assert decide.cut(old, new) == {"10.213.1.6"}


def test_keys_of_tokens_come_first_and_go_first() -> None:
    old, new = Maps(keys={"a": "1", "b": "2"}), Maps(keys={"b": "2", "c": "3"})
    steps = decide.changes(old, replace(new, revoked={"5e": "acct-a"}))
    assert [(step.table, step.key, step.value) for step in steps] == [
        ("keys", "c", "3"),
        ("keys", "a", None),
        ("revoked", "5e", "acct-a"),
    ]
