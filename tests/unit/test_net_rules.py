"""The rules as golden text, and what must hold of every rendering."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from atoll.config import Config
from atoll.engine.net import rules
from atoll.engine.net.address import Layout
from atoll.engine.net.services import Services

GOLDEN = Path(__file__).parent / "golden" / "net"
LAYOUT = Layout(instance="atoll", block=IPv4Network("10.213.0.0/16"))
LIMITS = rules.Limits(connections=4096, new_per_second=500)
SERVICES = Services.of(Config())
ALL = rules.Features()
NONE = rules.Features(ingress=False, count=False, rate=False, reverse_path=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("root", rules.render_root(LAYOUT, LIMITS, ALL, SERVICES)),
        ("inner", rules.render_inner(LAYOUT, LIMITS, ALL, SERVICES)),
        ("root-bare", rules.render_root(LAYOUT, LIMITS, NONE, SERVICES)),
        ("inner-bare", rules.render_inner(LAYOUT, LIMITS, NONE, SERVICES)),
    ],
)
def test_golden(name: str, text: str) -> None:
    assert text == (GOLDEN / f"{name}.nft").read_text()


@pytest.mark.parametrize("features", [ALL, NONE])
def test_a_rendering_replaces_only_its_own_tables(features: rules.Features) -> None:
    for text, own in (
        (rules.render_root(LAYOUT, LIMITS, features, SERVICES), {"inet atoll"}),
        (rules.render_inner(LAYOUT, LIMITS, features, SERVICES), {"inet vm", "netdev vm"}),
        (rules.remove_root(LAYOUT), {"inet atoll"}),
    ):
        lines = text.splitlines()
        tables = {
            line.removeprefix("table ").removesuffix(" {")
            for line in lines
            if line.startswith("table ")
        }
        deleted = {
            line.removeprefix("delete table ") for line in lines if line.startswith("delete ")
        }
        assert tables == deleted <= own
        assert "flush" not in text


def test_the_edge_is_where_it_listens() -> None:
    config = Config.model_validate({"https": {"listen": "192.0.2.7", "public_port": 443}})
    services = Services.of(config)
    assert "ip daddr 192.0.2.7 tcp dport 8443 accept" in rules.render_root(
        LAYOUT, LIMITS, ALL, services
    )
    assert "tcp dport 443 dnat ip to 192.0.2.7:8443" in rules.render_inner(
        LAYOUT, LIMITS, ALL, services
    )


def test_each_missing_feature_is_a_problem_of_its_own() -> None:
    assert ALL.problems() == ()
    names = [field.name for field in dataclasses.fields(rules.Features)]
    assert set(rules.PROBES) == set(names)
    for name in names:
        assert len(rules.Features(**{name: False}).problems()) == 1
    assert len(set(NONE.problems())) == len(names)


def test_without_features_no_rule_needs_them() -> None:
    text = rules.render_root(LAYOUT, LIMITS, NONE, SERVICES) + rules.render_inner(
        LAYOUT, LIMITS, NONE, SERVICES
    )
    for word in ("ct count", "limit rate", "ingress", "fib", "@"):
        assert word not in text
