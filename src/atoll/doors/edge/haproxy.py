"""HAProxy's configuration, rendered from `haproxy.cfg.in`. Pure: settings in, files out.

Works with HAProxy 2.6 (Debian 12) and 3.0 (Debian 13). What changes while it runs is in maps
(`decide`), so a new configuration, and a restart, is needed only for new settings.

Invariants of the rules, in their order: a client's identity headers never reach a VM; a token is
good for one host, one session and some hours; the token itself never reaches a VM; what is neither
public nor granted is refused; a refusal does not tell a stranger whether the VM exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from atoll.config import Config
from atoll.domain.sharing import PLAIN_PATH
from atoll.domain.web import DOOR_PATH, TOKEN_COOKIE, TOKEN_S
from atoll.doors.edge import asked, decide, name_maps, pages
from atoll.doors.edge.files import Files

_TEMPLATE = Path(__file__).with_name("haproxy.cfg.in")
_SLOT = re.compile(r"\{\{([a-z0-9_]+)\}\}")
_ASK = "ask.lua"
BODY_S = 2  # how long an answer of ours waits for the body of what it refuses
_STEP_S = 60  # a clock set back by less is forgiven
_KIND = {"html": '"text/html; charset=utf-8"', "json": "application/json"}
# Names of the reference product, for programs made for it.
_EXEDEV_LOGIN = (
    "http-request set-var(txn.login)"
    ' \'req.fhdr(x-exedev-authorization),regsub("^bearer +","",i)\''
    " if !{ var(txn.login) -m found }"
)
_EXEDEV_HEADERS = """\
http-request set-header x-exedev-userid %[var(txn.uid)] if is_signed
    http-request set-header x-exedev-email %[var(txn.email)] if is_signed
    http-request set-header x-exedev-token-ctx %[var(txn.entry),field(3,:),ub64dec] if has_context"""
_SAFE_HEADERS = (
    "hdr cache-control no-store hdr x-content-type-options nosniff"
    " hdr content-security-policy \"default-src 'none'; style-src 'unsafe-inline'\""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Per source address, but for the last. One person's browser stays far below."""

    requests_per_10s: int = 20_000
    control_per_10s: int = 300  # sign-in and /exec: guessing and hammering stop here
    visits_per_10s: int = 500  # of more than that, one request in a hundred is written down
    connections: int = 2_000
    total_connections: int = 8_000  # two descriptors each: below the usual limits of containers


@dataclass(frozen=True, slots=True, kw_only=True)
class Binds:
    """Where HTTPS and HTTP arrive: by default sockets that the starter opened and passes on.

    `inside` is HTTPS for VMs, where they cannot reach the other.
    """

    secure: str = "fd@${ATOLL_EDGE_FD}"
    plain: str = "fd@${ATOLL_PLAIN_FD}"
    inside: str = "fd@${ATOLL_INSIDE_FD}"


def render(
    config: Config, *, limits: Limits | None = None, binds: Binds | None = None
) -> dict[str, str]:
    """File name below `config.edge_run` -> text: `haproxy.cfg` and the pages it names."""
    files = Files(config.edge_run)
    values = _values(config, files, limits or Limits(), binds or Binds())
    text = _SLOT.sub(lambda slot: values[slot[1]], _TEMPLATE.read_text())
    lines = [line for source in text.splitlines() for line in _expand(source, files.pages)]
    rendered = {files.configuration.name: "\n".join(lines) + "\n", _ASK: _ask(files)}
    for answer in pages.ANSWERS:
        page, body = pages.render(answer, ssh=lobby(config))
        rendered[f"{files.pages.name}/{answer.name}.html"] = page
        rendered[f"{files.pages.name}/{answer.name}.json"] = body
    return rendered


def _ask(files: Files) -> str:
    values = {"questions": str(files.questions), "seconds": f"{asked.SECONDS:g}"}
    return _SLOT.sub(lambda slot: values[slot[1]], _TEMPLATE.with_name(f"{_ASK}.in").read_text())


def lobby(config: Config) -> str:
    """The ssh command that reaches the lobby: `ssh -p 2222 localhost`."""
    port = "" if config.ssh.port == 22 else f"-p {config.ssh.port} "
    return f"ssh {port}{config.ssh.host or 'localhost'}"


def public_suffix(config: Config) -> str:
    """What URLs carry after the host: nothing on 443, else `:<port>`."""
    port = config.https.seen_port
    return "" if port == 443 else f":{port}"


def _values(config: Config, files: Files, limits: Limits, binds: Binds) -> dict[str, str]:
    https = config.https
    main_ports = {https.port, https.seen_port, 443}
    has_names_of_its_own = https.domain.rpartition(".")[2] != "localhost"
    return {
        "admitted": str(files.map(decide.ADMITTED)),
        "ask": str(files.root / _ASK),
        "api_port": str(config.control.api_port),
        "bind": f'"{binds.secure},{binds.inside}"' if https.is_beyond_vms else f'"{binds.secure}"',
        "crt_list": str(files.crt_list),
        "connections": str(limits.connections),
        "control_per_10s": str(limits.control_per_10s),
        "cookie": TOKEN_COOKIE,
        "domain": https.domain,
        "domains": str(files.map(name_maps.DOMAINS)),
        "domain_pattern": https.domain.replace(".", "[.]"),
        "door": f"https://{https.domain}{public_suffix(config)}",
        "door_path": DOOR_PATH,
        "exedev_headers": _EXEDEV_HEADERS if https.exedev_headers else "",
        "exedev_login": _EXEDEV_LOGIN if https.exedev_headers else "",
        # With `vm_ports = false` a range no client can name: ports have at most five digits.
        "first_port": str(https.vm_port_first if https.vm_ports else 100_000),
        "last_port": str(https.vm_port_last if https.vm_ports else 100_000),
        "grants": str(files.map(decide.GRANTS)),
        "hosts": str(files.map(decide.HOSTS)),
        "keys": str(files.map(decide.KEYS)),
        "hsts": "http-after-response set-header strict-transport-security max-age=31536000"
        if has_names_of_its_own
        else "",  # on localhost it would bind every other program of this machine
        "plain_path": PLAIN_PATH,
        "main_ports": " ".join(str(port) for port in sorted(main_ports)),
        "plain_bind": f'"{binds.plain}"',
        "public_suffix": public_suffix(config),
        "proofs": str(files.map(name_maps.PROOFS)),
        "requests_per_10s": str(limits.requests_per_10s),
        "revoked": str(files.map(decide.REVOKED)),
        "socket": str(files.socket),
        "visits": str(files.visits),
        "visits_per_10s": str(limits.visits_per_10s),
        "tokens": str(files.map(decide.TOKENS)),
        "token_s": str(int(TOKEN_S) + _STEP_S),
        "total_connections": str(limits.total_connections),
    }


def _expand(line: str, folder: Path) -> list[str]:
    """Replace our words by HAProxy's: `answer NAME if …`, `error STATUS NAME KIND`, `servers NAME AT`.

    `servers` is one for requests that ended with their head and one for the others, whose connections
    are not kept.
    """
    match line.split(None, 2):
        case ["answer", name, condition]:
            return [
                # 2.6 takes an answer back that an h2 client gets before it has sent its body.
                f"    http-request wait-for-body time {BODY_S}s {condition}",
                _answer(name, folder, "html", f"{condition} {{ var(txn.html) -m bool }}"),
                _answer(name, folder, "json", condition),
            ]
        case ["servers", name, at]:
            return [
                f"    server {name} {at}",
                f"    server {name}_once {at} pool-max-conn 0",
                f"    use-server {name} if {{ var(req.is_whole) -m bool }}",
                f"    use-server {name}_once unless {{ var(req.is_whole) -m bool }}",
            ]
        case ["error", status, rest]:
            name, kind = rest.split()
            return [
                f"    http-error status {status} content-type {_KIND[kind]}"
                f" lf-file {folder}/{name}.{kind} {_SAFE_HEADERS}"
            ]
    return [line.rstrip()] if line.strip() or not line else []


def _answer(name: str, folder: Path, kind: str, condition: str) -> str:
    status = next(answer.status for answer in pages.ANSWERS if answer.name == name)
    extra = " hdr retry-after 10" if status == 429 else ""
    return (
        f"    http-request return status {status} content-type {_KIND[kind]}"
        f" lf-file {folder}/{name}.{kind} {_SAFE_HEADERS}{extra} {condition}"
    )
