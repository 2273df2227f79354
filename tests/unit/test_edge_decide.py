"""What the edge lets through, decided purely."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.account import Published
from atoll.domain.sharing import EVERY_PORT, EVERYBODY, Opening, is_plain
from atoll.doors.edge import decide
from atoll.doors.edge.decide import Maps
from framework.published import published

BLOCK = IPv4Network("10.213.0.0/16")
DOMAIN = "atoll.localhost"
WEB = published("web", "10.213.1.2", {"acct-a"})


def maps(*published: Published, revoked: dict[str, str] | None = None) -> Maps:
    return decide.maps(published, revoked or {}, domain=DOMAIN, block=BLOCK)


def test_private_vm() -> None:
    assert maps(WEB, revoked={"5e": "acct-a"}) == Maps(
        hosts={"web.atoll.localhost": "10.213.1.2:8000"},
        grants={"web.atoll.localhost|acct-a|": "0"},
        revoked={"5e": "acct-a"},
    )


def test_public_vm() -> None:
    assert maps(published("web", "10.213.1.2", is_public=True)).grants == {
        "web.atoll.localhost|*|8000|/": "0"
    }


def test_vm_that_does_not_run() -> None:
    assert maps(replace(WEB, address=None)).hosts == {"web.atoll.localhost": "-:8000"}


def test_a_port_and_a_path_until_then() -> None:
    one = Opening(account="acct-b", port=3000, path="/docs", until=1234.9)
    shown = maps(replace(WEB, openings=frozenset({one})))
    assert shown.grants == {"web.atoll.localhost|acct-b|3000|/docs/": "1234"}


def test_an_entry_within_another_stays_only_if_it_lasts_longer() -> None:
    whole = Opening(account="acct-b", port=8000, until=100.0)
    short = Opening(account="acct-b", port=8000, path="/a", until=50.0)
    long = Opening(account="acct-b", port=8000, path="/b")
    shown = maps(replace(WEB, openings=frozenset({whole, short, long})))
    assert shown.grants == {
        "web.atoll.localhost|acct-b|8000|/": "100",
        "web.atoll.localhost|acct-b|8000|/b/": "0",
    }


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
    assert maps(published("web", None, {"a b", "c|d", ""})).grants == {}


@pytest.mark.parametrize("path", ["/a b", "/a\nb", "a", "/a|b", "/a//b", "/..", "/%2f", ""])
def test_odd_path_is_left_out(path: str) -> None:
    odd = Opening(account="acct-b", port=80, path=path)
    assert maps(replace(WEB, openings=frozenset({odd}))).grants == {}


texts = st.text(max_size=12) | st.sampled_from(["web", "a\nb", "x y", "a|b", "*", "-"])
anything = st.builds(
    Published,
    vm_name=texts,
    address=st.none() | st.ip_addresses(v=4).map(str) | texts,
    port=st.integers(-1, 70_000),
    openings=st.frozensets(
        st.builds(
            Opening,
            account=texts,
            port=st.integers(1, 70_000),
            path=texts,
            until=st.none() | st.floats(0, 4e9),
        ),
        max_size=3,
    ),
)
ACCOUNTS = ("acct-a", "acct-b", EVERYBODY)
PORTS = (80, 3000, 8000)
PATHS = ("/", "/a", "/a/b", "/ab", "/a/b/c", "/%2e", "/a/../b", "/a/", "//a")
ends = st.none() | st.sampled_from([100.0, 200.0])
opening = st.builds(
    Opening,
    account=st.sampled_from(ACCOUNTS),
    port=st.sampled_from(PORTS),
    path=st.sampled_from(PATHS[:5]),
    until=ends,
) | st.builds(Opening, account=st.sampled_from(ACCOUNTS), port=st.just(EVERY_PORT), until=ends)
sound = st.builds(
    Published,
    vm_name=st.sampled_from(["web", "db", "api-x"]),
    address=st.none() | st.sampled_from(["10.213.1.2", "10.213.1.6"]),
    port=st.sampled_from([80, 8000]),
    openings=st.frozensets(opening, max_size=6),
)
sound_maps = st.builds(
    lambda published, revoked: maps(*published, revoked=revoked),
    st.lists(sound, max_size=4),
    st.dictionaries(st.sampled_from(["aa", "bb"]), st.sampled_from(["acct-a", "acct-b"])),
)


@given(st.lists(anything, max_size=4))
def test_what_is_in_a_map_is_one_word_and_was_published(published: list[Published]) -> None:
    shown = maps(*published)
    for host, value in shown.hosts.items():
        address, port = value.split(":")
        named = [vm for vm in published if f"{vm.vm_name}.{DOMAIN}" == host]
        assert any((vm.address or "-") == address and str(vm.port) == port for vm in named)
    for key in shown.grants:
        host, account, _ = key.split("|", 2)
        named = [vm for vm in published if f"{vm.vm_name}.{DOMAIN}" == host]
        assert any(one.account == account for vm in named for one in vm.openings)
    for table in shown.tables().values():
        for key, value in table.items():
            assert key
            assert value
            assert not set(f"{key}{value}") & set(" \t\n\r")


def passes(shown: Maps, host: str, account: str, port: int, path: str, *, now: float) -> bool:
    """What HAProxy makes of the map: the longest key that begins what is asked for."""
    asked = f"{host}|{account}|{port}|{path if is_plain(path) else ''}/"
    keys = [key for key in shown.grants if asked.startswith(key)]
    end = int(shown.grants[max(keys, key=len)]) if keys else -1
    return end == 0 or end > now


@given(sound, st.sampled_from(ACCOUNTS), st.sampled_from(PORTS), st.sampled_from(PATHS))
def test_the_map_says_what_the_domain_says(
    vm: Published, account: str, port: int, path: str
) -> None:
    host = f"{vm.vm_name}.{DOMAIN}"
    for now in (50.0, 150.0, 250.0):
        opened = [one for one in vm.openings if one.account == account]
        expected = any(one.covers(port=port, path=path, now=now) for one in opened)
        assert passes(maps(vm), host, account, port, path, now=now) == expected


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


def opened(shown: Maps) -> set[tuple[str, str, int, str]]:
    """(who, address, port, path) that pass."""
    return {
        (account, value.split(":")[0], port, path)
        for host, value in shown.hosts.items()
        for account in ACCOUNTS
        for port in PORTS
        for path in PATHS
        if passes(shown, host, account, port, path, now=50.0)
    }


@given(sound_maps, sound_maps)
def test_changes_lead_from_old_to_new_and_open_nothing_else(old: Maps, new: Maps) -> None:
    states = applied(old, decide.changes(old, new))
    assert (states[-1] if states else old) == new
    for state in states:
        assert opened(state) <= opened(old) | opened(new)


@given(sound_maps, sound_maps)
def test_streams_of_the_lost_are_cut(old: Maps, new: Maps) -> None:
    lost = {address for _, address, _, _ in opened(old) - opened(new)} - {"-"}
    assert lost <= decide.cut(old, new)


def test_nothing_is_cut_for_nothing() -> None:
    shown = maps(WEB)
    assert decide.cut(shown, shown) == frozenset()
    more = published("web", "10.213.1.2", {"acct-a"}, is_public=True)
    assert decide.cut(shown, maps(more)) == frozenset()
    assert decide.cut(Maps(), shown) == frozenset()


def test_signing_out_cuts_what_the_account_may_open() -> None:
    db = published("db", "10.213.1.6", {"acct-b"})
    old, new = maps(WEB, db), maps(WEB, db, revoked={"5e": "acct-b"})
    assert decide.cut(old, new) == {"10.213.1.6"}


def test_a_token_that_ends_cuts_what_its_account_was_granted() -> None:
    for vm, account, cuts in (
        (WEB, "acct-a", True),
        (WEB, "acct-b", False),
        (published("web", "10.213.1.2", is_public=True), "acct-b", False),
    ):
        shown = maps(vm)
        old = replace(shown, tokens={"web.atoll.localhost|ab": f"{account}:0:0:YQ"})
        assert decide.cut(old, shown) == ({"10.213.1.2"} if cuts else set())


def test_more_in_place_of_less_cuts_nothing() -> None:
    web = replace(WEB, openings=frozenset({Opening(account="acct-b", port=8000, path="/a")}))
    root = replace(WEB, openings=frozenset({Opening(account="acct-b", port=EVERY_PORT)}))
    assert decide.cut(maps(web), maps(root)) == frozenset()
    assert decide.cut(maps(root), maps(web)) == {"10.213.1.2"}


def test_keys_of_tokens_come_first_and_go_first() -> None:
    old, new = Maps(keys={"a": "1", "b": "2"}), Maps(keys={"b": "2", "c": "3"})
    steps = decide.changes(old, replace(new, revoked={"5e": "acct-a"}))
    assert [(step.table, step.key, step.value) for step in steps] == [
        ("keys", "c", "3"),
        ("keys", "a", None),
        ("revoked", "5e", "acct-a"),
    ]
