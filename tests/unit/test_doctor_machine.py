"""What the doctor says of the ports Atoll wants."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from atoll.config import Config
from atoll.doctor.finding import Level
from atoll.doctor.machine import examine

PORTS = (("ssh", "port"), ("https", "port"), ("https", "http_port"), ("control", "api_port"))
HAS_IPV6 = Path("/proc/net/if_inet6").exists()


@pytest.mark.parametrize("listen", ["0.0.0.0", *(["::"] if HAS_IPV6 else [])])
async def test_ports_are_free_until_somebody_has_one(listen: str) -> None:
    wanted: dict[str, dict[str, object]] = {"ssh": {}, "https": {}, "control": {}}
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    for (section, key), sock in zip(PORTS, socks, strict=True):
        wanted[section][key] = sock.getsockname()[1]
    wanted["ssh"]["listen"] = wanted["https"]["listen"] = listen
    config = Config.model_validate(wanted)
    said = [one.found for one in await examine(config, is_running=False) if one.what == "ports"]
    assert [text.partition(":")[0] for text in said] == [".".join(each) for each in PORTS]
    for sock in socks:
        sock.close()
    found = [one for one in await examine(config, is_running=False) if one.what == "ports"]
    assert [one.level for one in found] == [Level.OK], found
