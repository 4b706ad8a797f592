"""Our own certificate authority: what its certificates hold and when one is due. Pure but for serial numbers.

Not here: files (`certificates.py`), and certificates that the user gave (`given_certificate.py`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gonogo.security.pem import canonical_name, is_address, names_of

AUTHORITY_DAYS, RENEW_AUTHORITY_DAYS = 3650, 365
SERVER_DAYS, RENEW_SERVER_DAYS = 90, 30
BACKDATE = timedelta(hours=1)
LOOPBACK_NAMES = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One key and its self-signed certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def server_names(names: Iterable[str]) -> tuple[str, ...]:
    """Canonical names of the certificate: those asked for and the loopback ones; "any address" is nobody's name."""
    canonical = {canonical_name(name) for name in names} | set(LOOPBACK_NAMES)
    return tuple(sorted(name for name in canonical if name and not _unspecified(name)))


def issue_authority(key: ec.EllipticCurvePrivateKey, now: float) -> x509.Certificate:
    """A self-signed authority of ten years (`now` in Unix seconds).

    Its name holds eight digits of the key, so that clients and people tell two of ours apart.
    """
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "gonogo"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"gonogo authority {identifier.digest.hex()[:8]}"),
        ]
    )
    return (
        _dated(x509.CertificateBuilder(), now, AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def issue_server(
    authority: Authority, key: ec.EllipticCurvePrivateKey, names: tuple[str, ...], now: float
) -> x509.Certificate:
    """A server certificate of 90 days for these names, of which at least one is needed."""
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name) for name in names
    ]
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _dated(x509.CertificateBuilder(), now, SERVER_DAYS)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gonogo gateway")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def renewal_reason(
    certificate: x509.Certificate, authority: x509.Certificate, names: tuple[str, ...], now: float
) -> str | None:
    """Why this server certificate must be made anew: authority, names, clock or expiry; None while it is good."""
    if not issued_by(certificate, authority):
        return "authority"
    if names_of(certificate) != names:
        return "names"
    if now < certificate.not_valid_before_utc.timestamp():
        return "clock"
    if certificate.not_valid_after_utc.timestamp() - now < RENEW_SERVER_DAYS * 86400:
        return "expiry"
    return None


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed it and it names the authority as its issuer."""
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - whatever is wrong with the signature, it is not one of this authority
        return False
    return True


def authority_due(certificate: x509.Certificate, now: float) -> bool:
    """Whether the authority's certificate is to be made anew from its key: a year is left, or its time is to come."""
    left_s = certificate.not_valid_after_utc.timestamp() - now
    return left_s < RENEW_AUTHORITY_DAYS * 86400 or now < certificate.not_valid_before_utc.timestamp()


def _dated(builder: x509.CertificateBuilder, now: float, days: int) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(int(now), timezone.utc)
    serial = x509.random_serial_number()
    # Backdated: a client whose clock is a little behind must not refuse a certificate of this minute.
    return (
        builder.serial_number(serial).not_valid_before(moment - BACKDATE).not_valid_after(moment + timedelta(days=days))
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


def _unspecified(name: str) -> bool:
    return is_address(name) and ipaddress.ip_address(name).is_unspecified
