"""Where the edge keeps what HAProxy reads, and who may write it.

    haproxy.cfg, pages/   written by root (`atoll up`)
    maps/, certs/         written by control, read by HAProxy; one map holds the keys of tokens
    run/haproxy.sock      made by HAProxy, used by control
    control/              sockets made by control, used by HAProxy
    maps/owed             control's own: whose streams it still has to end

Invariant: HAProxy runs without privileges from its first instruction, so control, which writes three
of these folders, gains nothing by pointing a file elsewhere.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from atoll.base import atomic
from atoll.doors.edge.decide import GRANTS, HOSTS, KEYS, REVOKED, TOKENS

EDGE_USER = "haproxy"  # made by Debian's package
TABLES = (HOSTS, GRANTS, REVOKED, KEYS, TOKENS)


@dataclass(frozen=True, slots=True)
class Files:
    """Paths below `config.edge_run`."""

    root: Path

    @property
    def configuration(self) -> Path:
        """root:haproxy 0640."""
        return self.root / "haproxy.cfg"

    @property
    def pages(self) -> Path:
        """Error pages; not secret."""
        return self.root / "pages"

    @property
    def maps(self) -> Path:
        """Folder of the maps."""
        return self.root / "maps"

    @property
    def certificate(self) -> Path:
        """Key and certificate chain in one PEM file."""
        return self.root / "certs" / "edge.pem"

    @property
    def certificates(self) -> Path:
        """Folder of the certificates and their list."""
        return self.root / "certs"

    @property
    def crt_list(self) -> Path:
        """Which certificates there are; the first answers whatever no other does."""
        return self.certificates / "list"

    @property
    def socket(self) -> Path:
        """HAProxy's runtime socket."""
        return self.root / "run" / "haproxy.sock"

    @property
    def questions(self) -> Path:
        """Where control says who comes with a token."""
        return self.root / "control" / "questions.sock"

    @property
    def visits(self) -> Path:
        """Where control reads who asked for what, a datagram per request."""
        return self.root / "control" / "visits.sock"

    @property
    def owed(self) -> Path:
        """Addresses of VMs, a line each, whose open streams are to end."""
        return self.maps / "owed"

    def map(self, table: str) -> Path:
        """The file of one map; HAProxy knows the map by this very path."""
        return self.maps / f"{table}.map"


def make_folders(files: Files, *, control_user: str, edge_user: str = EDGE_USER) -> None:
    """Create the folders with their owners; run as root before control and HAProxy start.

    The set-group-id bit hands each side's files to the group of the other.
    """
    control, edge = pwd.getpwnam(control_user), pwd.getpwnam(edge_user)
    files.root.mkdir(parents=True, exist_ok=True, mode=0o755)
    for folder, owner, group in (
        (files.pages, 0, 0),
        (files.maps, control.pw_uid, edge.pw_gid),
        (files.certificate.parent, control.pw_uid, edge.pw_gid),
        (files.questions.parent, control.pw_uid, edge.pw_gid),
        (files.socket.parent, edge.pw_uid, control.pw_gid),
    ):
        folder.mkdir(exist_ok=True)
        os.chown(folder, owner, group)
        os.chmod(folder, 0o755 if owner == 0 else 0o2750)


def publish(path: Path, data: bytes) -> None:
    """Replace a file that control writes for HAProxy: readable by its group under any umask."""
    ready = path.with_name(f".{path.name}.ready")
    atomic.write(ready, data, mode=0o640)
    os.chmod(ready, 0o640)
    os.rename(ready, path)
    atomic.sync_folder(path.parent)


def install(files: Files, rendered: dict[str, str], *, edge_user: str = EDGE_USER) -> bool:
    """Write what `haproxy.render` returned; True when anything is new (HAProxy must restart)."""
    is_new = False
    gid = pwd.getpwnam(edge_user).pw_gid
    for name, text in rendered.items():
        path = files.root / name
        if path.exists() and path.read_text() == text:
            continue
        atomic.write(path, text.encode(), mode=0o600)
        os.chown(path, 0, gid)
        os.chmod(path, 0o640)
        is_new = True
    return is_new
