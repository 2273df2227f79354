"""The edge's own CA and its certificates."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from atoll.base.errors import Invalid
from atoll.doors.edge.certs import LEAF_DAYS, RENEW_DAYS, Authority, new_ca, new_leaf

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
DOMAIN = "atoll.localhost"


def test_leaf_is_for_the_domain_and_one_label_below() -> None:
    leaf = new_leaf(new_ca(DOMAIN, now=NOW), DOMAIN, now=NOW).certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [DOMAIN, f"*.{DOMAIN}"]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= dt.timedelta(days=LEAF_DAYS)


def test_leaf_is_signed_by_the_ca() -> None:
    ca = new_ca(DOMAIN, now=NOW)
    leaf = new_leaf(ca, DOMAIN, now=NOW).certificate
    leaf.verify_directly_issued_by(ca.certificate)


def test_ca_vouches_for_the_domain_only() -> None:
    ca = new_ca(DOMAIN, now=NOW).certificate
    found = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    assert found.value.permitted_subtrees == [x509.DNSName(DOMAIN)]
    assert len(found.value.excluded_subtrees or []) == 2  # no address at all


def test_files_are_made_once(tmp_path: Path) -> None:
    authority, path = Authority(tmp_path, DOMAIN), tmp_path / "edge.pem"
    pem = authority.leaf(path, now=NOW)
    assert pem is not None
    path.write_bytes(pem)
    assert authority.leaf(path, now=NOW) is None
    assert (tmp_path / "edge-ca.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in authority.exported.read_bytes()


def test_leaf_is_renewed_in_time_by_the_same_ca(tmp_path: Path) -> None:
    authority, path = Authority(tmp_path, DOMAIN), tmp_path / "edge.pem"
    path.write_bytes(authority.leaf(path, now=NOW) or b"")
    trusted = authority.exported.read_bytes()
    due = NOW + dt.timedelta(days=LEAF_DAYS - RENEW_DAYS)
    assert authority.leaf(path, now=due - dt.timedelta(days=2)) is None
    assert authority.leaf(path, now=due) is not None
    assert authority.exported.read_bytes() == trusted


def test_leaf_from_the_future_is_renewed(tmp_path: Path) -> None:
    authority, path = Authority(tmp_path, DOMAIN), tmp_path / "edge.pem"
    path.write_bytes(authority.leaf(path, now=NOW) or b"")
    assert authority.leaf(path, now=NOW - dt.timedelta(days=3)) is not None


def test_another_domain_needs_another_ca(tmp_path: Path) -> None:
    path = tmp_path / "edge.pem"
    path.write_bytes(Authority(tmp_path, DOMAIN).leaf(path, now=NOW) or b"")
    before = (tmp_path / "ca.pem").read_bytes()
    pem = Authority(tmp_path, "cloud.example").leaf(path, now=NOW)
    assert pem is not None
    assert (tmp_path / "ca.pem").read_bytes() != before
    key = x509.load_pem_x509_certificate(pem).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "edge-ca.pem").write_bytes(b"nonsense")
    with pytest.raises(Invalid, match=r"edge-ca\.pem is damaged"):
        Authority(tmp_path, DOMAIN).ca(now=NOW)


def test_damaged_leaf_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "edge.pem"
    path.write_bytes(b"")
    assert Authority(tmp_path, DOMAIN).leaf(path, now=NOW) is not None
