"""Knot's configuration. Pure.

Nobody may transfer a zone. The one thing that can be changed over the network is TXT at
`_acme-challenge.<domain>`, a zone of its own: with our key, from this machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from atoll.config import Address, Config
from atoll.doors.names.files import Files
from atoll.doors.names.zone import CHALLENGE

# Answers per second to one network before every second one becomes "ask by TCP": a reflected attack is
# no longer worth it, and a resolver with many users still gets through.
_ANSWERS_PER_S = 200


def render(config: Config, *, listen: Sequence[Address], key: str) -> str:
    """The text of knot.conf; `key` is a line `hmac-sha256:NAME:SECRET`."""
    files, domain = Files(config.dns_run), config.https.domain
    algorithm, name, secret = key.strip().split(":")
    sockets = "\n".join(f"    listen: {address}@{config.dns.port}" for address in listen)
    return f"""\
# Written by `atoll serve dns`; change the configuration of Atoll, not this file.
server:
    rundir: "{files.socket.parent}"
    pidfile: "{files.data}/knot.pid"
    identity: ""
    version: ""
    nsid: ""
    udp-workers: 1
    tcp-workers: 2
    background-workers: 1
    tcp-max-clients: 500
{sockets}
control:
    listen: "{files.socket}"
log:
  - target: stderr
    any: warning
database:
    storage: "{files.data}"
key:
  - id: {name}
    algorithm: {algorithm}
    secret: {secret}
acl:
  - id: proofs
    address: 127.0.0.0/8
    key: {name}
    action: update
    update-type: TXT
    update-owner: name
    update-owner-match: equal
    update-owner-name: {CHALLENGE}.{domain}.
mod-rrl:
  - id: default
    rate-limit: {_ANSWERS_PER_S}
    slip: 2
template:
  - id: default
    storage: "{files.zones}"
    zonefile-sync: -1
    zonefile-load: whole
    global-module: mod-rrl/default
zone:
  - domain: {domain}.
    file: "{files.zone(domain)}"
    journal-content: none
  - domain: {CHALLENGE}.{domain}.
    file: "{files.zone(f"{CHALLENGE}.{domain}")}"
    journal-content: changes
    acl: proofs
"""
