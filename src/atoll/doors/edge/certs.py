"""The edge's certificate from a CA of our own, for names no public CA signs (`*.localhost`).

Invariants: the CA's key never leaves `control/keys` (0600); the CA can vouch for the cloud's domain
and nothing else (a critical name constraint), so trusting it risks no other site; the leaf is
replaced 30 days before it ends.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from atoll.base import atomic
from atoll.base.errors import Invalid

CA_DAYS = 3650
LEAF_DAYS = 397  # browsers refuse certificates that last longer
RENEW_DAYS = 30
_SKEW = dt.timedelta(days=1)  # clocks of clients that run behind
_EVERY_IP = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def pem(self) -> bytes:
        """Key and certificate, as HAProxy reads them."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return key + self.certificate_pem()


def new_ca(domain: str, *, now: dt.datetime) -> Pair:
    """A CA for `domain` and the names below it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Atoll CA of {domain}"[:64])])
    builder = (
        _builder(name, name, key, now=now, days=CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints(
                permitted_subtrees=[x509.DNSName(domain)],
                excluded_subtrees=[x509.IPAddress(ipaddress.ip_network(ip)) for ip in _EVERY_IP],
            ),
            critical=True,
        )
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def new_leaf(ca: Pair, domain: str, *, now: dt.datetime) -> Pair:
    """A certificate for `domain` and `*.domain`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain[:64])])
    names = [x509.DNSName(domain), x509.DNSName(f"*.{domain}")]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = (
        _builder(subject, ca.certificate.subject, key, now=now, days=LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer_key, critical=False)
    )
    return Pair(builder.sign(ca.key, hashes.SHA256()), key)


def is_due(pair: Pair, ca: Pair, domain: str, *, now: dt.datetime) -> bool:
    """Whether the leaf must be made anew: not in time, ending soon, for another domain or CA."""
    names = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    wanted = {domain, f"*.{domain}"}
    return (
        pair.certificate.not_valid_after_utc - now < dt.timedelta(days=RENEW_DAYS)
        or pair.certificate.not_valid_before_utc > now  # the clock was ahead when it was made
        or set(names.get_values_for_type(x509.DNSName)) != wanted
        or pair.certificate.issuer != ca.certificate.subject
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA as files: `edge-ca.pem` (key and certificate) and `ca.pem`, which users trust."""

    folder: Path
    domain: str

    @property
    def exported(self) -> Path:
        """The CA's certificate for browsers and curl."""
        return self.folder / "ca.pem"

    def ca(self, *, now: dt.datetime) -> Pair:
        """The CA, made on first use or when the domain is another one."""
        path = self.folder / "edge-ca.pem"
        pair = _load(path) if path.exists() else None
        if pair is None or not _vouches_for(pair, self.domain):
            pair = new_ca(self.domain, now=now)
            atomic.write(path, pair.pem(), mode=0o600)
        if not self.exported.exists() or self.exported.read_bytes() != pair.certificate_pem():
            atomic.write(self.exported, pair.certificate_pem(), mode=0o644)
        return pair

    def leaf(self, path: Path, *, now: dt.datetime) -> bytes | None:
        """A new leaf with its key in PEM when `path` holds none that is good, else None."""
        ca = self.ca(now=now)
        with contextlib.suppress(Invalid):  # a damaged leaf is made anew
            if path.exists() and not is_due(_load(path), ca, self.domain, now=now):
                return None
        return new_leaf(ca, self.domain, now=now).pem()


def _load(path: Path) -> Pair:
    raw = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(raw, password=None)
        certificate = x509.load_pem_x509_certificate(raw)
    except ValueError as error:
        raise Invalid(f"{path} is damaged: {error}", hint=f"Try: rm {path}") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Pair(certificate, key)


def _vouches_for(ca: Pair, domain: str) -> bool:
    limits = ca.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    return [x509.DNSName(domain)] == (limits.permitted_subtrees or [])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    own_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=days) - _SKEW)
        .add_extension(own_key, critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
