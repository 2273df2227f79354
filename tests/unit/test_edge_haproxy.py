"""HAProxy's configuration as text: one golden file, and what settings change in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atoll.config import Config
from atoll.doors.edge import haproxy, pages, vm_ports
from atoll.engine.net.address import Layout
from atoll.engine.net.services import Services

GOLDEN = Path(__file__).with_name("golden") / "haproxy.cfg"


def rendered(**https: object) -> dict[str, str]:
    return haproxy.render(Config.model_validate({"https": https}))


def test_golden() -> None:
    """Read the difference; if it is meant, write the new text to tests/unit/golden/haproxy.cfg."""
    assert rendered()["haproxy.cfg"] == GOLDEN.read_text()


def test_every_page_the_rules_name_is_rendered() -> None:
    files = rendered()
    named = set(re.findall(r"lf-file /run/atoll/edge/(\S+)", files["haproxy.cfg"]))
    assert named <= files.keys()
    assert {name for name in files if name.startswith("pages/")} >= {
        f"pages/{answer.name}.{kind}" for answer in pages.ANSWERS for kind in ("html", "json")
    }


def test_public_port_is_in_redirects() -> None:
    assert "https://atoll.localhost:8443/login" in rendered()["haproxy.cfg"]
    behind_443 = rendered(public_port=443)["haproxy.cfg"]
    assert "https://atoll.localhost/login" in behind_443
    assert "-m str 443 8443 }" in behind_443


def test_hsts_only_for_names_of_its_own() -> None:
    assert "strict-transport-security" not in rendered()["haproxy.cfg"]
    assert "strict-transport-security" in rendered(domain="atoll.example.com")["haproxy.cfg"]


def test_without_vm_ports_no_port_can_be_asked_for() -> None:
    assert "-m int 100000:100000" in rendered(vm_ports=False)["haproxy.cfg"]


def test_pages_carry_variables_and_nothing_else_of_log_format() -> None:
    for name, text in rendered().items():
        if name.startswith("pages/"):
            known = re.sub(r"%\[var\(txn\.(host|inner|name)\)(,field\(1,\.\))?\]|%%", "", text)
            assert "%" not in known, name
            assert "{ssh}" not in text
            assert "{host}" not in text


def test_nft_table() -> None:
    assert vm_ports.render(Config()) == (
        "table ip atolledge\n"
        "delete table ip atolledge\n"
        "table ip atolledge {\n"
        "    chain ports {\n"
        "        type filter hook prerouting priority mangle; policy accept;\n"
        '        iifname "atollh*" accept\n'
        "        ip daddr 10.213.0.0/16 accept\n"
        "        fib daddr type local tcp dport 3000-9999 socket wildcard { 0, 1 } accept\n"
        "        fib daddr type local tcp dport 3000-9999 tproxy to :8443 accept\n"
        "    }\n"
        "}\n"
    )


def test_nft_table_without_vm_ports_or_on_one_address() -> None:
    off = Config.model_validate({"https": {"vm_ports": False}})
    assert vm_ports.render(off) == vm_ports.render_removal(off)
    one = Config.model_validate({"https": {"listen": "192.0.2.1"}})
    assert "ip daddr 192.0.2.1 tcp dport 3000-9999 tproxy to :8443" in vm_ports.render(one)


@pytest.mark.parametrize(
    ("listen", "at", "is_beyond", "has_vm_ports"),
    [
        ("0.0.0.0", "10.213.0.1", False, True),
        ("::", "10.213.0.1", False, True),
        ("192.0.2.7", "192.0.2.7", False, True),
        ("127.0.0.1", "10.213.0.1", True, True),
        ("2001:db8::7", "10.213.0.1", True, False),
        ("::1", "10.213.0.1", True, False),
    ],
)
def test_vms_reach_it_wherever_it_listens(
    listen: str, at: str, is_beyond: bool, has_vm_ports: bool
) -> None:
    config = Config.model_validate({"https": {"listen": listen}})
    assert str(Services.of(config).edge) == at
    assert ("ATOLL_INSIDE_FD" in rendered(listen=listen)["haproxy.cfg"]) == is_beyond
    script = vm_ports.render(config)
    assert ("tproxy" in script) == has_vm_ports


def test_services_have_one_address() -> None:
    network = Config().network
    layout = Layout(instance=network.instance, block=network.block)
    assert layout.service == network.service
