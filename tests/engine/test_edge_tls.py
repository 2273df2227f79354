"""TLS of the real HAProxy, asked with `openssl s_client`: what is spoken, and what is not."""

from __future__ import annotations

import re

import pytest

from atoll.base.proc import Finished, run
from framework.edge import Edge

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
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
