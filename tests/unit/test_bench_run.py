"""When a goal of the benchmarks counts as met."""

from __future__ import annotations

import pytest
from bench.run import edge_is_fast_enough


@pytest.mark.parametrize(
    ("requests", "cpu", "is_met"),
    [(0.6, 0.6, True), (0.9, 0.59, False), (0.59, 0.9, False), (0.5, 0.5, False)],
)
def test_the_edge_is_fast_by_requests_and_by_cpu(requests: float, cpu: float, is_met: bool) -> None:
    said = {
        "goal": 0.6,
        "ratio_requests": {"atoll": requests, "caddy": 0.3, "nginx": 0.4},
        "ratio_cpu": {"atoll": cpu, "caddy": 0.3, "nginx": 0.4},
    }
    assert edge_is_fast_enough(said) == is_met


def test_the_edge_is_ahead_of_the_others() -> None:
    said = {
        "goal": 0.6,
        "ratio_requests": {"atoll": 0.7, "caddy": 0.3, "nginx": 0.8},
        "ratio_cpu": {"atoll": 0.7, "caddy": 0.3, "nginx": 0.8},
    }
    assert not edge_is_fast_enough(said)
