"""The rules as golden text, and what must hold of every rendering."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from atoll.engine.net import rules
from atoll.engine.net.address import Layout

GOLDEN = Path(__file__).parent / "golden" / "net"
LAYOUT = Layout(instance="atoll", block=IPv4Network("10.213.0.0/16"))
LIMITS = rules.Limits(connections=4096, new_per_second=500)
ALL = rules.Features()
NONE = rules.Features(ingress=False, count=False, rate=False, reverse_path=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("root", rules.render_root(LAYOUT, LIMITS, ALL)),
        ("inner", rules.render_inner(LAYOUT, LIMITS, ALL)),
        ("root-bare", rules.render_root(LAYOUT, LIMITS, NONE)),
        ("inner-bare", rules.render_inner(LAYOUT, LIMITS, NONE)),
    ],
)
def test_golden(name: str, text: str) -> None:
    assert text == (GOLDEN / f"{name}.nft").read_text()


@pytest.mark.parametrize("features", [ALL, NONE])
def test_a_rendering_replaces_only_its_own_tables(features: rules.Features) -> None:
    for text, own in (
        (rules.render_root(LAYOUT, LIMITS, features), {"inet atoll"}),
        (rules.render_inner(LAYOUT, LIMITS, features), {"inet vm", "netdev vm"}),
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


def test_each_missing_feature_is_a_problem_of_its_own() -> None:
    assert ALL.problems() == ()
    names = [field.name for field in dataclasses.fields(rules.Features)]
    assert set(rules.PROBES) == set(names)
    for name in names:
        assert len(rules.Features(**{name: False}).problems()) == 1
    assert len(set(NONE.problems())) == len(names)


def test_without_features_no_rule_needs_them() -> None:
    text = rules.render_root(LAYOUT, LIMITS, NONE) + rules.render_inner(LAYOUT, LIMITS, NONE)
    for word in ("ct count", "limit rate", "ingress", "fib", "@"):
        assert word not in text
