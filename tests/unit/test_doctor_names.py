"""What the doctor says of the cloud's names where nobody can be asked."""

from __future__ import annotations

from pathlib import Path

import dns.resolver
import pytest

from atoll.config import Config
from atoll.doctor.finding import Level
from atoll.doctor.names import examine


async def test_a_machine_without_resolvers_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = dns.resolver.BaseResolver.read_resolv_conf

    def of_nothing(self: dns.resolver.BaseResolver, _path: str) -> None:
        read(self, str(tmp_path / "resolv.conf"))

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", of_nothing)
    monkeypatch.setattr("atoll.doctor.names.ASK_S", 0.1)
    config = Config.model_validate(
        {"https": {"domain": "isle.example"}, "dns": {"enabled": True, "port": 1}}
    )
    found = {one.what: one for one in await examine(config)}
    assert found["DNS server"].level is Level.MISSING
    assert found["DNS delegation"].level is Level.DEGRADED
    assert "no DNS resolver is set" in found["DNS delegation"].found
