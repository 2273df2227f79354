"""Names the edge and the sign-in pages agree on, and which URLs are ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import quote, urlsplit

TOKEN_COOKIE = "__Host-atoll"  # noqa: S105  on a VM's host: the token HAProxy checks
TOKEN_S = 12 * 3600.0  # an open page keeps working for a working day; revoking is at once
SESSION_COOKIE = "__Host-atoll-session"  # on the cloud's host
DOOR_PATH = "/__atoll/"  # on every VM host: answered by control, never by the VM
METADATA_HOST = "metadata.int"  # inside VMs: where they ask about themselves
MAILED_PATH = "/login/mail/"  # on the cloud's host: a mailed link's secret follows
HOST_HEADER = "x-atoll-host"  # set by HAProxy for control: the host a request came for
USER_HEADER = "x-atoll-user-id"  # set by HAProxy for VMs: who is signed in
EMAIL_HEADER = "x-atoll-email"

FORM_TARGET = (
    "atoll.form-target"  # in the scope of a request: a custom domain its forms may lead to
)
STYLE_NONCE = "atoll.style-nonce"  # in the scope of a request whose page makes style elements
# WebSockets of control; every other path takes requests only.
SOCKET_PATH = re.compile(r"/terminal/[A-Za-z0-9_-]{22}/socket")

_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")  # printable, no backslash, not `//elsewhere`
_PORT_LABEL = re.compile(r"([1-9][0-9]{3,4})-(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL on one of our VM hosts. `authority` is the host with its port, as it was given.

    `port` is the one inside that the URL names; None: the VM's own. `path` has its query.
    """

    vm_name: str
    host: str
    authority: str
    path: str
    port: int | None = None

    @property
    def url(self) -> str:
        """It as a whole."""
        return f"https://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The hosts and ports this cloud answers at. `vm_ports` is None without such ports."""

    domain: str
    public_port: int
    vm_ports: range | None

    def authority(self, host: str) -> str:
        """`host` with the port users see, which is left out when it is 443."""
        return host if self.public_port == 443 else f"{host}:{self.public_port}"

    def url(self, host: str, path: str = "/") -> str:
        """The HTTPS URL of a path at `host`."""
        return f"https://{self.authority(host)}{path}"

    def port_url(self, vm_name: str, port: int) -> str | None:
        """`https://3000-web.<domain>/`, where a port inside a VM is served; None for one that is not."""
        if self.vm_ports is None or port not in self.vm_ports:
            return None
        return self.url(f"{port}-{vm_name}.{self.domain}")

    def vm_of(self, host: str) -> str | None:
        """The VM's name in `web.<domain>` or `3000-web.<domain>`; None for any other host."""
        label, dot, rest = host.partition(".")
        if not dot or rest != self.domain or not re.fullmatch(r"[a-z0-9-]+", label):
            return None
        numbered = _PORT_LABEL.fullmatch(label)
        if numbered and self.vm_ports is not None and int(numbered[1]) in self.vm_ports:
            return numbered[2]
        return label

    def page(self, url: str) -> str | None:
        """The path with its query of a URL on the cloud's own host; None for any other URL."""
        start = self.url(self.domain, "")
        path = url.removeprefix(start)
        return path if path != url and own_path(path) == path else None

    def target(self, url: str, custom: Mapping[str, str] = MappingProxyType({})) -> Target | None:
        """The VM page a URL names; None unless it is spelled exactly as one of ours.

        No user name, no other scheme, no port of something else, no backslash or blank: what this
        accepts every browser reads as the same host. `custom` are domains that stand for a VM, by name.
        """
        match = re.fullmatch(r"https://([a-z0-9.-]{1,253})(?::([1-9][0-9]{1,4}))?(/.*)?", url)
        if match is None:
            return None
        host, port, path = match[1], int(match[2] or 443), match[3] or "/"
        vm_name = self.vm_of(host) or custom.get(host)
        if vm_name is None or not self._is_ours(port):
            return None
        authority = host if match[2] is None else f"{host}:{port}"
        return Target(
            vm_name=vm_name,
            host=host,
            authority=authority,
            path=own_path(path),
            port=self._asked("" if host in custom else host, port),
        )

    def _asked(self, host: str, port: int) -> int | None:
        """The port inside that a URL names by its host or, where that names none, by its own port."""
        numbered = _PORT_LABEL.fullmatch(host)
        if self.vm_ports is None:
            return None
        if numbered and int(numbered[1]) in self.vm_ports:
            return int(numbered[1])
        is_main = port in (443, self.public_port)
        return port if port in self.vm_ports and not is_main else None

    def _is_ours(self, port: int) -> bool:
        return port == self.public_port or (self.vm_ports is not None and port in self.vm_ports)


def is_own_page(site: str | None, origin: str | None, host: str) -> bool:
    """Whether a form was sent by a page of `host`, by Sec-Fetch-Site and Origin; browsers send them.

    A program that sends neither carries no cookie that somebody else could make it use.
    """
    if site is not None:
        return site in ("same-origin", "none")
    try:
        return origin is None or urlsplit(origin).hostname == host
    except ValueError:  # no URL
        return False


def header_safe(email: str) -> str:
    """HAProxy copies this into a header; anything but printable ASCII is percent-encoded."""
    return email if email.isascii() and email.isprintable() else quote(email, safe="@+._-")


def login_path(to: str) -> str:
    """The path on the cloud's host that leads on to `to`, a URL, once somebody is signed in."""
    return f"/login?to={quote(to, safe='')}"


def own_path(path: str) -> str:
    """`path` when a redirect to it stays on the same host, else `/`."""
    return path if _PATH.fullmatch(path) else "/"


def web_port(listening: Iterable[int]) -> int | None:
    """Which of the ports that listen inside a VM serves the web: 80, else the lowest from 1024 on.

    The others below are of system services such as SSH, and no guess.
    """
    return min((port for port in listening if port == 80 or port >= 1024), default=None)
