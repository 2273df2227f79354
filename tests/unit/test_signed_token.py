"""Tokens that users sign: what `ssh-keygen` makes passes, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.base.errors import Denied, Invalid
from atoll.domain import permission
from atoll.domain.permission import DEFAULT_CMDS, Permission
from atoll.services import signature, signed_token
from framework.signing import NAMESPACE, SshKeyFile, b64url

NOW = 1_800_000_000.0
KINDS = {
    "ed25519": ("ed25519",),
    "ecdsa-256": ("ecdsa", "-b", "256"),
    "ecdsa-384": ("ecdsa", "-b", "384"),
    "ecdsa-521": ("ecdsa", "-b", "521"),
    "rsa": ("rsa", "-b", "2048"),
}
SIGNED = b'{"exp":1800000060,"nbf":1799999999,"cmds":["ls","ssh web"],"ctx":{"a":[1]}}'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SshKeyFile]:
    """One key of every kind."""
    folder = tmp_path_factory.mktemp("keys")
    return {name: SshKeyFile.new(folder, name, *kind) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def key(keys: dict[str, SshKeyFile]) -> SshKeyFile:
    """The usual one."""
    return keys["ed25519"]


def passes(blob: bytes, message: bytes, key_line: str, *, namespace: str = NAMESPACE) -> bool:
    """The whole way of a signature, as the service goes it."""
    read = signature.parse(blob)
    return read is not None and signature.verifies(
        read, message, namespace=namespace, key_line=key_line
    )


class TestSignatures:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
    def test_of_ssh_keygen(self, keys: dict[str, SshKeyFile], kind: str, hash_name: str) -> None:
        signer, other = keys[kind], keys["rsa" if kind == "ed25519" else "ed25519"]
        blob = signer.sign(SIGNED, hash_name=hash_name)
        assert passes(blob, SIGNED, signer.line)
        assert not passes(blob, SIGNED + b" ", signer.line)
        assert not passes(blob, SIGNED, other.line)
        assert not passes(blob, SIGNED, signer.line, namespace="v0@elsewhere.example")
        assert not passes(blob, SIGNED, signer.line, namespace="file")

    def test_the_fingerprint_is_that_of_the_key_list(self, key: SshKeyFile) -> None:
        read = signature.parse(key.sign(SIGNED))
        assert read is not None
        encoded = base64.b64decode(key.line.split()[1])
        digest = base64.b64encode(hashlib.sha256(encoded).digest()).decode()
        assert read.fingerprint == f"SHA256:{digest.rstrip('=')}"

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa-256", "rsa"])
    def test_every_flipped_bit_is_noticed(self, keys: dict[str, SshKeyFile], kind: str) -> None:
        signer = keys[kind]
        blob = signer.sign(SIGNED)
        for at in range(len(blob)):
            for bit in (0, 3, 7):
                broken = bytearray(blob)
                broken[at] ^= 1 << bit
                assert not passes(bytes(broken), SIGNED, signer.line), (at, bit)

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa-256", "rsa"])
    def test_every_cut_and_extension_is_noticed(
        self, keys: dict[str, SshKeyFile], kind: str
    ) -> None:
        signer = keys[kind]
        blob = signer.sign(SIGNED)
        for length in range(len(blob)):
            assert not passes(blob[:length], SIGNED, signer.line), length
        assert not passes(blob + b"\0", SIGNED, signer.line)
        assert not passes(blob + b"\0\0\0\0", SIGNED, signer.line)

    def test_rsa_with_sha1_is_refused(self, keys: dict[str, SshKeyFile]) -> None:
        blob = keys["rsa"].sign(SIGNED)
        assert b"rsa-sha2-512" in blob
        renamed = blob.replace(wire(b"rsa-sha2-512"), wire(b"ssh-rsa"))
        head = len(renamed) - len(renamed.split(wire(b"ssh-rsa"))[-1]) - len(wire(b"ssh-rsa")) - 4
        size = int.from_bytes(renamed[head : head + 4], "big") - len("rsa-sha2-512") + 7
        renamed = renamed[:head] + size.to_bytes(4, "big") + renamed[head + 4 :]
        assert signature.parse(renamed) is not None
        assert not passes(renamed, SIGNED, keys["rsa"].line)

    @pytest.mark.parametrize(("flags", "good"), [(b"\x01", True), (b"\x00", False)])
    def test_security_keys_must_be_touched(self, flags: bytes, good: bool) -> None:
        private = Ed25519PrivateKey.generate()
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        kind = b"sk-ssh-ed25519@openssh.com"
        public = wire(kind) + wire(raw) + wire(b"ssh:")
        digest = hashlib.sha512(SIGNED).digest()
        parts = (NAMESPACE.encode(), b"", b"sha512")
        data = b"SSHSIG" + b"".join(wire(part) for part in (*parts, digest))
        counter = b"\0\0\0\x05"
        told = hashlib.sha256(b"ssh:").digest() + flags + counter + hashlib.sha256(data).digest()
        signed = wire(kind) + wire(private.sign(told)) + flags + counter
        blob = b"SSHSIG\0\0\0\x01" + wire(public) + b"".join(wire(p) for p in (*parts, signed))
        line = f"{kind.decode()} {base64.b64encode(public).decode()}"
        assert passes(blob, SIGNED, line) is good
        assert not passes(blob, SIGNED + b"x", line)

    @given(st.binary(max_size=200), st.binary(max_size=40))
    def test_noise_never_passes(self, blob: bytes, message: bytes) -> None:
        assert not passes(b"SSHSIG\0\0\0\x01" + blob, message, ED25519)
        assert signature.parse(blob) is None or blob.startswith(b"SSHSIG")


ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5RIoRwJ/q0lIXLSKF0fXJ1LgdzdGNhMbADBVzV3SBr"


def wire(data: bytes) -> bytes:
    """A string as SSH writes it."""
    return len(data).to_bytes(4, "big") + data


class TestPermissions:
    def test_everything(self) -> None:
        assert permission.parse(SIGNED) == Permission(
            expires_at=1_800_000_060,
            not_before=1_799_999_999,
            cmds=("ls", "ssh web"),
            ctx='{"a":[1]}',
        )

    def test_nothing_said_is_the_default(self) -> None:
        assert permission.parse(b"{}") == Permission(cmds=DEFAULT_CMDS)
        assert permission.parse(b'{ "cmds" : [ ] }') == Permission(cmds=())

    @pytest.mark.parametrize(
        "text",
        [
            b"", b" ", b"[]", b"null", b"0", b'"{}"', b"{", b"}", b"{}{}", b"{} ", b" {}", b"\t{}",
            b"{}\n", b"\n{}", b'{"cmds":\n[]}', b'{"cmds":\r[]}', b"{}\0", b'{"ctx":"\0"}', b"\xff{}",
            b"\xef\xbb\xbf{}", b'{"ctx":"\xff"}', b'{"ctx":"\x01"}', b"{'exp':1800000000}",
            b'{"exp":1800000000,}', b'{"ctx":1}}', b'{"exp":1800000000}//', b'{"ctx":"\\ud800"}',
            b'{"exp":1800000000,"exp":1800000000}', b'{"ctx":{"a":1,"a":2}}', b'{"ctx":1,"ctx":1}',
            b'{"\\u0065xp":1800000000,"exp":1900000000}', b'{"aud":"x"}', b'{"EXP":1800000000}',
            b'{"exp ":1800000000}', b'{"":1}', b'{"exp":1800000000.0}', b'{"exp":1.8e9}',
            b'{"exp":18E8}', b'{"ctx":0.5}', b'{"ctx":1e3}', b'{"ctx":NaN}', b'{"ctx":Infinity}',
            b'{"ctx":-Infinity}', b'{"exp":"1800000000"}', b'{"exp":null}', b'{"exp":true}',
            b'{"exp":[1800000000]}', b'{"exp":946684799}', b'{"exp":4102444801}', b'{"exp":-1}',
            b'{"exp":-0}', b'{"exp":01800000000}', b'{"exp":+1800000000}', b'{"exp":1800000000000}',
            b'{"nbf":946684799}', b'{"nbf":false}', b'{"nbf":0x7fffffff}', b'{"cmds":null}',
            b'{"cmds":"ls"}', b'{"cmds":{"ls":1}}', b'{"cmds":[1]}', b'{"cmds":[""]}',
            b'{"cmds":["ls",null]}', b'{"cmds":[" ls"]}', b'{"cmds":["ls "]}', b'{"cmds":["LS"]}',
            b'{"cmds":["ssh  web"]}', b'{"cmds":["ls\\n"]}', b'{"cmds":["*"]}', b'{"cmds":[["ls"]]}',
            b'{"ctx":' + b"[" * 3000 + b"]" * 3000 + b"}", b'{"ctx":' + b"9" * 5000 + b"}",
            b'{"cmds":[' + b",".join([b'"ls"'] * 257) + b"]}",
        ],
    )  # fmt: skip
    def test_malformed(self, text: bytes) -> None:
        with pytest.raises(Invalid):
            permission.parse(text)

    @pytest.mark.parametrize(
        ("text", "now", "said"),
        [
            (b'{"exp":1800000000}', 1_799_999_999.9, ""),
            (b'{"exp":1800000000}', 1_800_000_000.0, "it ended"),
            (b'{"nbf":1800000000}', 1_799_999_999.9, "it begins"),
            (b'{"nbf":1800000000}', 1_800_000_000.0, ""),
            (b'{"nbf":1800000009,"exp":1800000001}', 1_800_000_005.0, "it ended"),
        ],
    )
    def test_times(self, text: bytes, now: float, said: str) -> None:
        refusal = permission.parse(text).refusal(now)
        assert refusal.startswith(said)
        assert bool(refusal) is bool(said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
claims = st.dictionaries(
    st.sampled_from(["exp", "nbf", "cmds", "ctx", "aud", "EXP", ""]),
    st.integers(900_000_000, 4_200_000_000) | st.lists(st.sampled_from(["ls", "L S", ""]))
    | json_values,
)  # fmt: skip


def is_good(value: dict[str, Any]) -> bool:
    """The rules again, said another way."""
    times = [value[name] for name in ("exp", "nbf") if name in value]
    cmds = value.get("cmds", [])
    return (
        set(value) <= {"exp", "nbf", "cmds", "ctx"}
        and all(type(at) is int and 946684800 <= at <= 4102444800 for at in times)
        and isinstance(cmds, list)
        and all(cmd == "ls" for cmd in cmds)
        and not has_float(value)
    )


def has_float(value: Any) -> bool:
    """A decimal anywhere."""
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    return isinstance(value, float) or (isinstance(value, list) and any(map(has_float, value)))


@given(claims)
def test_claims_pass_by_the_rules_alone(value: dict[str, Any]) -> None:
    text = json.dumps(value).encode()
    try:
        read = permission.parse(text)
    except Invalid:
        assert not is_good(value)
        return
    assert is_good(value)
    assert (read.expires_at, read.not_before) == (value.get("exp"), value.get("nbf"))
    assert read.cmds == tuple(value.get("cmds", DEFAULT_CMDS))


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8")))
def test_noise_is_refused_in_order(text: bytes) -> None:
    try:
        permission.parse(text)
    except Invalid:
        return
    assert is_good(json.loads(text)) or set(json.loads(text)) <= {"ctx"}


class TestTokens:
    def read(self, token: str, key: SshKeyFile) -> bool:
        """As the service does it: taken apart, in its time, signed."""
        found = signed_token.read(token, now=NOW)
        return found.is_signed_by(key.line, namespace=NAMESPACE)

    @pytest.mark.parametrize("prefix", ["atoll0", "exe0"])
    def test_good(self, key: SshKeyFile, prefix: str) -> None:
        token = key.token(SIGNED.decode(), prefix=prefix)
        assert signed_token.is_signed(token)
        assert self.read(token, key)

    def test_another_namespace(self, key: SshKeyFile) -> None:
        assert not self.read(key.token(namespace="v0@exe.dev"), key)
        assert not self.read(key.token(namespace="v0@web.atoll.localhost"), key)

    def test_another_permission_under_the_signature(self, key: SshKeyFile) -> None:
        _, _, blob = key.token('{"cmds":["ls"]}').split(".")
        for other in (b'{"cmds":["rm"]}', b'{"cmds": ["ls"]}'):
            assert not self.read(f"atoll0.{b64url(other)}.{blob}", key)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_changed_character_never_passes(self, key: SshKeyFile, data: st.DataObject) -> None:
        token = _token(key)
        at = data.draw(st.integers(len("atoll0."), len(token) - 1))
        text = data.draw(st.characters(min_codepoint=0, max_codepoint=255))
        broken = token[:at] + text + token[at + 1 :]
        if broken == token:
            return
        try:
            passed = self.read(broken, key)
        except Denied:
            return
        assert not passed

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda t: t.removeprefix("atoll0."),
            lambda t: t + ".",
            lambda t: t + "=",
            lambda t: t.replace(".", "..", 1),
            lambda t: t + ".x",
            lambda t: t.rpartition(".")[0],
            lambda t: t.rpartition(".")[0] + ".",
            lambda t: t + "A",
            lambda t: t + " ",
            lambda t: t.replace("_", "/").replace("-", "+") + "/",
            lambda t: t[:-1],
            lambda t: f"atoll0.{b64url(b'{} ')}.{t.rpartition('.')[2]}",
            lambda t: "atoll0." + "A" * 8192,
        ],
    )
    def test_malformed(self, key: SshKeyFile, spoil: Any) -> None:
        with pytest.raises(Denied):
            signed_token.read(spoil(_token(key)), now=NOW)

    def test_bits_that_encode_nothing_must_be_zero(self, key: SshKeyFile) -> None:
        body = b64url(b"{}")  # two bytes in three characters: two bits left over
        token = _token(key).split(".")
        assert body == "e30"
        assert self.read(".".join([token[0], "e30", token[2]]), key)
        with pytest.raises(Denied, match="base64url"):
            signed_token.read(".".join([token[0], "e31", token[2]]), now=NOW)

    @pytest.mark.parametrize(
        ("text", "said"),
        [('{"exp":1800000000}', "it ended"), ('{"nbf":1800000001}', "it begins"),
         ('{"aud":1}', "'aud' is unknown")],
    )  # fmt: skip
    def test_says_why_not(self, key: SshKeyFile, text: str, said: str) -> None:
        with pytest.raises(Denied, match=said):
            signed_token.read(key.token(text), now=NOW)


_made: dict[Path, str] = {}


def _token(key: SshKeyFile) -> str:
    """The token `{}`, signed once: Hypothesis asks many times."""
    if key.path not in _made:
        _made[key.path] = key.token()
    return _made[key.path]
