"""Which names may be a VM's own, and what DNS must say of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.domain.custom_domain import Found, check, verdict

OWN = "cloud.example.net"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM.", "www.example.com"),
        ("example.com", "example.com"),
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        ("BÜCHER.Example.com", "xn--bcher-kva.example.com"),
        ("straße.de", "xn--strae-oqa.de"),
        ("例え.jp", "xn--r8jz45g.jp"),
        ("xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
        ("3000-web.example.com", "3000-web.example.com"),
        ("example.net", None),  # ours is below it
        ("net", None),
        ("cloud.example.net", None),
        ("web.cloud.example.net", None),
        ("web.CLOUD.example.net.", None),
        ("xcloud.example.net", "xcloud.example.net"),
        ("localhost", None),
        ("a.localhost", None),
        ("printer.local", None),
        ("co.uk", None),
        ("shop.co.uk", "shop.co.uk"),
        ("192.0.2.1", None),
        ("127.1", None),
        ("0x7f.1", None),
        ("[::1]", None),
        ("::1", None),
        ("", None),
        (".", None),
        ("a..b.com", None),
        ("-a.com", None),
        ("a_b.com", None),
        ("a b.com", None),
        ("a.com/x", None),
        ("a.com:443", None),
        ("user@a.com", None),
        ("*.example.com", None),
        ("xn--zzzzzz--.com", None),
        (f"{'a' * 64}.com", None),
        (f"{'a.' * 130}com", None),
        ("a\n.com", None),
        ("a.com|x", None),
    ],
)
def test_names(text: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(Invalid) as caught:
            check(text, own=OWN)
        assert caught.value.hint
    else:
        assert check(text, own=OWN) == name


@given(st.text(max_size=40))
def test_whatever_is_typed_is_a_plain_name_or_refused(text: str) -> None:
    try:
        name = check(f"{text}.com", own=OWN)
    except Invalid:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert check(name, own=OWN) == name


def test_a_private_cloud_may_use_private_names() -> None:
    assert check("shop.localhost", own="atoll.localhost") == "shop.localhost"


TARGET = f"web.{OWN}"
OURS = frozenset({"192.0.2.1", "2001:db8::1"})


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (Found((TARGET,)), ""),
        (Found(("a.example.com", TARGET), frozenset({"198.51.100.1"})), ""),
        (Found((), frozenset({"192.0.2.1"})), ""),
        (Found((), OURS), ""),
        (Found(), "DNS has no shop.example.com"),
        (
            Found((), frozenset({"192.0.2.1", "198.51.100.1"})),
            "shop.example.com also leads to 198.51.100.1, which is not this cloud",
        ),
        (
            Found(("x.example.com",), frozenset({"198.51.100.1"})),
            "shop.example.com is a CNAME to x.example.com",
        ),
        (Found((f"other.{OWN}",)), f"shop.example.com is a CNAME to other.{OWN}"),
        (Found((), frozenset({"198.51.100.1"})), "shop.example.com leads to 198.51.100.1"),
    ],
)
def test_dns(found: Found, problem: str) -> None:
    said, expected = verdict("shop.example.com", found, target=TARGET, ours=OURS)
    assert said == problem
    assert bool(expected) == bool(problem)
    if problem:
        assert expected.startswith(f"shop.example.com CNAME {TARGET} (or")


def test_nowhere_is_not_here() -> None:
    """The cloud's own domain has no address: then no address is its."""
    assert verdict("shop.example.com", Found(), target=TARGET, ours=())[0]
