"""Where Knot's files are, and who may write them.

    knot.conf        written by root; holds the key for updates
    addresses.json   written by root: the machine's addresses, which control may not ask the kernel for
    zones/           written by control, read by Knot
    data/            Knot's own: updates of the challenge zone
    run/knot.sock    made by Knot, used by control

As with the edge: Knot runs without privileges, so control gains nothing by pointing a zone elsewhere.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
from base64 import b64encode
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from atoll.base import atomic
from atoll.config import Config

DNS_USER = "knot"  # made by Debian's package
_KEY_NAME = "atoll-acme"


@dataclass(frozen=True, slots=True)
class Files:
    """Paths below `config.dns_run`."""

    root: Path

    @property
    def configuration(self) -> Path:
        """root:knot 0640."""
        return self.root / "knot.conf"

    @property
    def addresses(self) -> Path:
        """What `write_addresses` wrote."""
        return self.root / "addresses.json"

    @property
    def zones(self) -> Path:
        """Folder of the zone files."""
        return self.root / "zones"

    @property
    def data(self) -> Path:
        """Knot's databases."""
        return self.root / "data"

    @property
    def socket(self) -> Path:
        """Knot's control socket."""
        return self.root / "run" / "knot.sock"

    @property
    def route(self) -> Path:
        """The network that was routed to this machine, for who takes it away."""
        return self.root / "route"

    def zone(self, domain: str) -> Path:
        """The file of one zone."""
        return self.zones / f"{domain}.zone"


def make_folders(files: Files, *, control_user: str, dns_user: str = DNS_USER) -> None:
    """Create the folders with their owners, as root."""
    control, knot = pwd.getpwnam(control_user), pwd.getpwnam(dns_user)
    files.root.mkdir(parents=True, exist_ok=True, mode=0o755)
    for folder, owner, group in (
        (files.zones, control.pw_uid, knot.pw_gid),
        (files.data, knot.pw_uid, knot.pw_gid),
        (files.socket.parent, knot.pw_uid, control.pw_gid),
    ):
        folder.mkdir(exist_ok=True)
        os.chown(folder, owner, group)
        os.chmod(folder, 0o2750)  # noqa: S103  the group is the other side's


def write_for(path: Path, text: str, user: str) -> None:
    """Write a file of root's that one other user may read."""
    atomic.write(path, text.encode(), mode=0o600)
    os.chown(path, 0, pwd.getpwnam(user).pw_gid)
    os.chmod(path, 0o640)


def update_key(config: Config) -> Path:
    """Where the key for updates is, `hmac-sha256:NAME:SECRET`; control makes and uses it."""
    return config.control_state / "keys" / "acme_tsig"


def ensure_update_key(config: Config) -> None:
    """Make the key once."""
    if not (path := update_key(config)).exists():
        secret = b64encode(secrets.token_bytes(32)).decode()
        atomic.write(path, f"hmac-sha256:{_KEY_NAME}:{secret}\n".encode())


def read_addresses(files: Files) -> tuple[IPv4Address | IPv6Address, ...]:
    """The machine's addresses as root saw them; none before it has looked."""
    try:
        return tuple(ip_address(one) for one in json.loads(files.addresses.read_bytes()))
    except (FileNotFoundError, ValueError):
        return ()
