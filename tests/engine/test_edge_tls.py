"""TLS and HTTP/2 of the real HAProxy, asked by tools for that: what is spoken, and what is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from atoll.base.proc import Finished, run
from atoll.domain.account import Account
from framework.edge import Edge
from framework.raw import Recorder

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
ANY = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"


async def ask(edge: Edge, *options: str, said: bytes = b"") -> Finished:
    """One handshake, and what was sent in it."""
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.port}"]
    argv += ["-servername", edge.host("web"), "-CAfile", str(edge.keys / "ca.pem")]
    return await run([*argv, *options], stdin=said, seconds=20, check=False)


def is_spoken(done: Finished) -> bool:
    return done.code == 0 and b"Cipher is (NONE)" not in done.out


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_spoken(edge: Edge, version: str) -> None:
    done = await ask(edge, version, "-verify_return_error", "-alpn", "h2,http/1.1")
    assert is_spoken(done), done.err
    assert b"Verify return code: 0 (ok)" in done.out
    assert b"ALPN protocol: h2" in done.out
    assert b"Compression: NONE" in done.out
    if version == "-tls1_2":
        # Those of 1.3 name a session that HAProxy keeps: no key opens them later.
        assert b"TLS session ticket:" not in done.out
    assert not re.search(rb"Max Early Data: [1-9]", done.out)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
async def test_old_versions_are_not(edge: Edge, version: str) -> None:
    done = await ask(edge, version, "-cipher", ANY)
    assert not is_spoken(done)
    assert b"alert protocol version" in done.err


@pytest.mark.parametrize(
    "ciphers",
    ["eNULL", "aNULL", "kRSA", "SHA1", "SHA256:!AESGCM:!CHACHA20", "SHA384:!AESGCM",
     "CAMELLIA", "ARIA", "AESCCM", "kDHE"],
)  # fmt: skip
async def test_weak_ciphers_are_not(edge: Edge, ciphers: str) -> None:
    done = await ask(edge, "-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0")
    assert not is_spoken(done)
    assert b"handshake failure" in done.err


async def test_every_cipher_of_1_2_that_is(edge: Edge) -> None:
    """One after the other is taken from the offer until nothing is left."""
    left, found = "ALL:COMPLEMENTOFALL", []
    while is_spoken(done := await ask(edge, "-tls1_2", "-cipher", f"{left}:@SECLEVEL=0")):
        match = re.search(rb"Cipher is (\S+)", done.out)
        assert match is not None
        found.append(match[1].decode())
        left += f":-{found[-1]}"
    assert found
    assert all(
        re.fullmatch(r"ECDHE-\w+-(AES\d+-GCM-SHA\d+|CHACHA20-POLY1305)", one) for one in found
    )


async def test_nobody_renegotiates(edge: Edge) -> None:
    done = await ask(edge, "-tls1_2", "-no_ign_eof", said=b"R\n")
    assert b"RENEGOTIATING" in done.out + done.err
    assert re.search(rb"no renegotiation|handshake failure|unexpected|write:errno", done.err)


async def test_what_a_scanner_finds(edge: Edge, tmp_path: Path) -> None:
    """testssl.sh: protocols, ciphers, the certificate, and known weaknesses from Heartbleed to ROBOT."""
    report = tmp_path / "report.json"
    argv = ["testssl", "--quiet", "--warnings", "batch", "--ip", "127.0.0.1"]
    argv += ["--jsonfile", str(report), "--add-ca", str(edge.keys / "ca.pem")]
    await run([*argv, f"{edge.host('')}:{edge.port}"], seconds=230, check=False)
    found = {entry["id"]: entry["severity"] for entry in json.loads(report.read_text())}
    assert {"heartbleed", "ROBOT", "LUCKY13", "TLS1_3", "cert_chain_of_trust"} <= found.keys()
    assert found["cert_chain_of_trust"] == "OK"
    bad = {name for name, severity in found.items() if severity in ("MEDIUM", "HIGH", "CRITICAL")}
    # A CA of one machine's own has no list of revoked certificates: a certificate is good for 13 months.
    assert bad <= {"cert_revocation"}


@pytest.mark.parametrize(
    "how",
    ["", "--padding=200", "--no-dep", "--no-rfc7540-pri", "--window-bits=10",
     "--connection-window-bits=16", "--header-table-size=0", "--max-concurrent-streams=1",
     "--multiply=50", "--expect-continue", "--no-content-length", "--trailer=x-sum:1"],
)  # fmt: skip
async def test_clients_of_http_2(
    edge: Edge, ann: Account, open_vm: Recorder, tmp_path: Path, how: str
) -> None:
    """nghttp, which says what it got of every stream."""
    sent = tmp_path / "sent"
    sent.write_bytes(b"x" * 40_000)
    has_body = any(word in how for word in ("expect", "content", "trailer"))
    argv = ["nghttp", "--no-verify-peer", "--null-out", "--stat", "--timeout=20"]
    argv += [how] if how else []
    argv += [f"--data={sent}"] if has_body else []
    argv += [f"-H:authority: {edge.host('open')}", f"https://127.0.0.1:{edge.port}/asked"]
    done = await run(argv, seconds=30)
    count = 50 if "multiply" in how else 1
    assert len(re.findall(rb" 200 +\d+ /asked", done.out)) == count, done.out + done.err
    assert [seen.target for seen in open_vm.seen] == [b"/asked"] * count
    assert [len(seen.body) for seen in open_vm.seen] == [40_000 if has_body else 0] * count
    assert not open_vm.unread
