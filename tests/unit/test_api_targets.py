"""Which URLs are ours: nothing that a browser reads as another host."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.web import Names, Target, own_path

NAMES = Names(domain="atoll.localhost", public_port=8443, vm_ports=range(3000, 10_000))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (
            "https://web.atoll.localhost:8443/a?b=c",
            Target(
                vm_name="web",
                host="web.atoll.localhost",
                authority="web.atoll.localhost:8443",
                path="/a?b=c",
            ),
        ),
        (
            "https://web.atoll.localhost:3001",
            Target(
                vm_name="web",
                host="web.atoll.localhost",
                authority="web.atoll.localhost:3001",
                path="/",
                port=3001,
            ),
        ),
        (
            "https://3001-web.atoll.localhost:8443/",
            Target(
                vm_name="web",
                host="3001-web.atoll.localhost",
                authority="3001-web.atoll.localhost:8443",
                path="/",
                port=3001,
            ),
        ),
    ],
)
def test_ours(url: str, target: Target) -> None:
    assert NAMES.target(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "//evil.example/",
        "http://web.atoll.localhost:8443/",
        "https://evil.example/",
        "https://web.atoll.localhost.evil.example:8443/",
        "https://web.atoll.localhost:8443@evil.example/",
        "https://evil.example#@web.atoll.localhost:8443/",
        "https://evil.example\\.atoll.localhost:8443/",
        "https://web.atoll.localhost:22/",
        "https://web.atoll.localhost/",  # 443 is not where this cloud listens
        "https://atoll.localhost:8443/",  # the cloud itself
        "https://a.b.atoll.localhost:8443/",
        "https://WEB.atoll.localhost:8443/",
        "https://web.atoll.localhost:8443x/",
        " https://web.atoll.localhost:8443/",
        "https://web.atoll.localhost:8443\n/",
        "javascript:alert(1)//https://web.atoll.localhost:8443/",
    ],
)
def test_not_ours(url: str) -> None:
    assert NAMES.target(url) is None


pieces = st.sampled_from(
    ["https://", "http:", "//", "/", "\\", "@", "#", "?", ":", "8443", "22", ".", "web", "3001-web",
     "atoll.localhost", "evil.example", "%2f", "\t", "\n", " ", "..", "javascript:"]
)  # fmt: skip


@given(st.lists(pieces, max_size=9).map("".join) | st.text(max_size=40))
def test_redirects_stay_on_our_hosts(url: str) -> None:
    target = NAMES.target(url)
    if target is not None:
        seen = urlsplit(f"https://{target.authority}{target.path}")
        assert seen.scheme == "https"
        assert seen.username is None
        assert str(seen.hostname).endswith(".atoll.localhost")
        assert NAMES.vm_of(str(seen.hostname)) == target.vm_name


@given(st.lists(pieces, max_size=6).map("".join) | st.text(max_size=40))
def test_paths_stay_on_the_host(path: str) -> None:
    safe = own_path(path)
    assert safe[0] == "/"
    assert safe[1:2] not in ("/", "\\")
    assert not set(safe) & set("\\\r\n\t ")


def test_without_vm_ports_a_number_is_part_of_the_name() -> None:
    plain = Names(domain="atoll.localhost", public_port=443, vm_ports=None)
    assert plain.vm_of("3001-web.atoll.localhost") == "3001-web"
    assert plain.target("https://web.atoll.localhost:3001/") is None
    assert plain.target("https://web.atoll.localhost/") is not None
    assert plain.url("web.atoll.localhost") == "https://web.atoll.localhost/"


def test_a_port_inside_has_an_address_where_it_is_served() -> None:
    url = NAMES.port_url("web", 3000)
    assert url == "https://3000-web.atoll.localhost:8443/"
    target = NAMES.target(url)
    assert target
    assert target.vm_name == "web"
    assert NAMES.port_url("web", 22) is None
    plain = Names(domain="atoll.localhost", public_port=443, vm_ports=None)
    assert plain.port_url("web", 3000) is None
