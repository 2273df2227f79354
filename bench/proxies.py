"""The proxies that `bench/edge.py` compares: same certificate, same upstream, one thread each.

nginx is the VM and, at another path, the authority that says yes to whatever Caddy and nginx ask it.
Atoll's edge has its real rules, 500 VMs and a token that is checked. `anew` is the same without an
epoch, so that it goes through all rules each time, as for a visitor's first request; plain HAProxy only
proxies.
"""

from __future__ import annotations

import datetime as dt
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import OctKey

from atoll.config import Config
from atoll.domain.account import Published
from atoll.domain.sharing import EVERY_PORT, Opening
from atoll.domain.web import TOKEN_COOKIE
from atoll.doors.edge import decide, haproxy, name_maps
from atoll.doors.edge.certs import Authority
from atoll.doors.edge.files import Files
from atoll.doors.edge.tls.serving import crt_list

KID, KEY = "5e5e5e5e", "5e" * 32
HOST = "web.atoll.localhost"  # resolves to loopback everywhere, so clients name it in TLS, too
ACCOUNT = "acct-000000000001"
UPSTREAM, UPSTREAM_PORT = "127.0.1.1", 18000
PORTS = {"atoll": 18443, "anew": 18445, "plain": 18444, "caddy": 18446, "nginx": 18447}
PLAIN_HTTP = {"atoll": 18448, "anew": 18449}
MANY = 100_000_000  # no limit of ours is what is measured
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One that runs."""

    name: str
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://{HOST}:{self.port}/"

    def cpu_s(self) -> float:
        """What it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def memory_kib(self) -> int:
        """Its own, in RAM; what the kernel keeps for its sockets is not in it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


def cookie() -> str:
    """What the visitor sends: our token, and a cookie of the VM's."""
    claims = {
        "aud": HOST, "sub": ACCOUNT, "email": "ann@example.com", "sid": "5e" * 16,
        "iat": int(time.time()), "exp": int(time.time()) + 3600,
    }  # fmt: skip
    token = jwt.encode({"alg": "HS256", "kid": KID}, claims, OctKey.import_key(KEY.encode()))
    return f"{TOKEN_COOKIE}={token}; theme=dark"


@contextmanager
def running(root: Path) -> Iterator[dict[str, Proxy]]:
    """All of them and their upstream, while the body runs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    edge, anew = _edge(root, "atoll", epoch="1"), _edge(root, "anew", epoch="")
    certificate = Files(root / "atoll" / "edge").certificate
    commands = {
        "upstream": _nginx(root, "upstream", _upstream(root)),
        "atoll": _haproxy(root, "atoll", edge),
        "anew": _haproxy(root, "anew", anew),
        "plain": _haproxy(root, "plain", _plain(certificate)),
        "caddy": _caddy(root, certificate),
        "nginx": _nginx(root, "nginx", _auth_request(root, certificate)),
    }
    processes = {
        name: subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=(root / f"{name}.log").open("wb"),
            env={**os.environ, "GOMAXPROCS": "1", "HOME": str(root)},
        )
        for name, argv in commands.items()
    }  # fmt: skip
    try:
        proxies = {
            name: Proxy(name=name, port=port, pid=processes[name].pid)
            for name, port in PORTS.items()
        }
        for proxy in proxies.values():
            _answers(proxy, root / f"{proxy.name}.log")
        yield proxies
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()


def _answers(proxy: Proxy, log: Path) -> None:
    deadline = time.monotonic() + 10
    argv = ["curl", "-sko", "/dev/null", "-w", "%{http_code}", "-H", f"Cookie: {cookie()}"]
    argv += ["--connect-to", "::127.0.0.1:", proxy.url]
    while (said := subprocess.run(argv, capture_output=True, check=False).stdout) != b"200":
        if time.monotonic() > deadline:
            raise SystemExit(f"{proxy.name} answers {said!r}, not 200: {log.read_text()[-500:]}")
        time.sleep(0.1)


# -- HAProxy


def _haproxy(root: Path, name: str, text: str) -> list[str]:
    path = root / f"{name}.cfg"
    path.write_text(text)
    return ["haproxy", "-db", "-f", str(path)]


def _plain(certificate: Path) -> str:
    return f"""\
global
    nbthread 1
    maxconn 9500
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend plain
    bind 127.0.0.1:{PORTS["plain"]} ssl crt {certificate} alpn h2,http/1.1
    default_backend vm
backend vm
    http-reuse safe
    server vm {UPSTREAM}:{UPSTREAM_PORT}
"""


def _edge(root: Path, edge: str, *, epoch: str) -> str:
    """The real rules and their files; only thread count, ports and limits are the bench's."""
    config = Config.model_validate({"paths": {"run": root / edge}, "https": {"port": PORTS[edge]}})
    files = Files(config.edge_run)
    for folder in (files.pages, files.maps, files.certificate.parent, files.socket.parent):
        folder.mkdir(parents=True)
    leaf = Authority(root, config.https.domain).leaf(files.certificate, now=dt.datetime.now(dt.UTC))
    files.certificate.write_bytes(leaf or b"")
    files.crt_list.write_text(crt_list(files.certificates, config.https.domain, {}))
    for name in (name_maps.DOMAINS, name_maps.PROOFS):
        files.map(name).write_text("")
    vms = [_vm(name) for name in ("web", *(f"vm-{n}-x" for n in range(500)))]
    maps = decide.maps(vms, {}, domain=config.https.domain, block=IPv4Network("127.0.1.0/24"),
                       keys={KID: KEY})  # fmt: skip
    for table, entries in maps.tables().items():
        files.map(table).write_text("".join(f"{k} {v}\n" for k, v in entries.items()))
    # As control names it.
    files.map(decide.ADMITTED).write_text(f"{decide.EPOCH} {epoch}\n" if epoch else "")
    rendered = haproxy.render(
        config,
        limits=haproxy.Limits(requests_per_10s=MANY, connections=MANY, total_connections=9_500),
        binds=haproxy.Binds(
            secure=f"127.0.0.1:{PORTS[edge]}", plain=f"127.0.0.1:{PLAIN_HTTP[edge]}"
        ),
    )
    for name, text in rendered.items():
        (files.root / name).write_text(text)
    return rendered["haproxy.cfg"].replace("global\n", "global\n    nbthread 1\n", 1)


def _vm(name: str) -> Published:
    return Published(
        vm_name=name,
        address=UPSTREAM,
        port=UPSTREAM_PORT,
        openings=frozenset({Opening(account=ACCOUNT, port=EVERY_PORT)}),
    )


# -- nginx: one process, no master


def _nginx(root: Path, name: str, text: str) -> list[str]:
    path = root / f"{name}.conf"
    path.write_text(text)
    return ["nginx", "-p", str(root), "-c", str(path), "-e", "stderr"]


def _http(root: Path, name: str, text: str) -> str:
    places = " ".join(
        f"{kind}_temp_path {root}/{name}-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
master_process off;
pid {root}/{name}.pid;
events {{ worker_connections 9500; }}
http {{
    access_log off;
    keepalive_requests {MANY};
    keepalive_timeout 300s;
    {places}
{text}}}
"""


def _upstream(root: Path) -> str:
    return _http(root, "upstream", f"""\
    server {{
        listen {UPSTREAM}:{UPSTREAM_PORT};
        location / {{ default_type text/plain; return 200 "hello from a VM"; }}
        location /auth {{ return 204; }}
    }}
""")  # fmt: skip


def _auth_request(root: Path, certificate: Path) -> str:
    return _http(root, "nginx", f"""\
    upstream vm {{ server {UPSTREAM}:{UPSTREAM_PORT}; keepalive 64; keepalive_requests {MANY}; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    server {{
        listen 127.0.0.1:{PORTS["nginx"]} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ auth_request /auth; proxy_pass http://vm; }}
        location = /auth {{
            internal;
            proxy_pass http://vm/auth;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
""")  # fmt: skip


def _caddy(root: Path, certificate: Path) -> list[str]:
    path = root / "Caddyfile"
    path.write_text(f"""\
{{
    admin off
    auto_https off
}}
https://{HOST}:{PORTS["caddy"]} {{
    bind 127.0.0.1
    tls {certificate} {certificate}
    forward_auth {UPSTREAM}:{UPSTREAM_PORT} {{
        uri /auth
    }}
    reverse_proxy {UPSTREAM}:{UPSTREAM_PORT}
}}
""")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]
