"""Judges a certificate and key that the user gave, before the gateway gets them. Pure: the bytes are passed in.

Not here: our own authority (`certificates.py`). Nothing is repaired: what is wrong is said, with what to do.
"""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from gonogo.security.pem import (
    CertificateError,
    PrivateKey,
    covers,
    is_address,
    key_matches,
    names_of,
    parse_certificates,
    parse_private_key,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPair:
    """Two files as they were read. `key` prints as •••."""

    certificate_file: str
    key_file: str
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"GivenPair(certificate_file={self.certificate_file!r}, key_file={self.key_file!r}, key=•••)"


def validate_given(pair: GivenPair, names: Sequence[str], now: float) -> tuple[x509.Certificate, ...]:
    """The chain, leaf first, when the gateway can present it to clients that dial `names`; otherwise says why not.

    `names` as the user gave them (host names and the listen address), `now` in Unix seconds. The host names must be
    covered; without any, the address (or some loopback name when it is a loopback address). `CertificateError`.
    """
    chain = parse_certificates(pair.certificate, pair.certificate_file)
    key = parse_private_key(pair.key, pair.key_file)
    _require_match(pair, chain, key)
    _require_order(pair, chain)
    for certificate in chain:
        _require_time(pair, certificate, now)
    _require_purpose(pair, chain[0])
    _require_names(pair, chain[0], names)
    return chain


def root_of(chain: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """The self-signed certificate at the end of a chain; None when the chain leaves it out, as most do."""
    last = chain[-1]
    return last if last.subject == last.issuer and _issued_by(last, last) else None


def subject_of(certificate: x509.Certificate) -> str:
    """The subject as text; some public certificates have an empty one."""
    return certificate.subject.rfc4514_string() or "(no subject)"


def _require_match(pair: GivenPair, chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    if key_matches(chain[0], key):
        return
    for place, certificate in enumerate(chain[1:], start=2):
        if key_matches(certificate, key):
            raise CertificateError(
                "chain_order",
                pair.certificate_file,
                seen=f"the server's certificate ({subject_of(certificate)}) stands at place {place} of {len(chain)}",
                remedy="Put it first, then the one that issued it, and so on",
            )
    raise CertificateError(
        "key_mismatch",
        pair.key_file,
        seen=f"this is not the private key of {subject_of(chain[0])} in {pair.certificate_file}",
        remedy="Give the key that the certificate was requested with; the two outputs of "
        f"`openssl x509 -noout -pubkey -in {pair.certificate_file}` and "
        f"`openssl pkey -pubout -in {pair.key_file}` are equal for a pair",
    )


def _require_order(pair: GivenPair, chain: Sequence[x509.Certificate]) -> None:
    for place, (certificate, issuer) in enumerate(itertools.pairwise(chain), start=1):
        if _issued_by(certificate, issuer):
            continue
        raise CertificateError(
            "chain_order",
            pair.certificate_file,
            seen=f"certificate {place} ({subject_of(certificate)}) was not issued by certificate {place + 1} "
            f"({subject_of(issuer)})",
            remedy="Order the file: the server's certificate, then each one's issuer; leave out what does not belong",
        )


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _require_time(pair: GivenPair, certificate: x509.Certificate, now: float) -> None:
    not_before, not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    moment = datetime.fromtimestamp(now, timezone.utc)
    if moment > not_after:
        raise CertificateError(
            "expired",
            pair.certificate_file,
            seen=f"{subject_of(certificate)} expired at {not_after:%Y-%m-%d %H:%M} UTC, and it is "
            f"{moment:%Y-%m-%d %H:%M} UTC",
            remedy="Give a renewed one, or leave certificate_file and key_file out to have one made",
        )
    if moment < not_before:
        raise CertificateError(
            "not_yet_valid",
            pair.certificate_file,
            seen=f"{subject_of(certificate)} is valid from {not_before:%Y-%m-%d %H:%M} UTC, and it is "
            f"{moment:%Y-%m-%d %H:%M} UTC",
            remedy="Set this machine's clock, or give a certificate that is valid already",
        )


def _require_purpose(pair: GivenPair, leaf: x509.Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return
    raise CertificateError(
        "purpose",
        pair.certificate_file,
        seen=f"{subject_of(leaf)} may not be used for servers (its extended key usage lacks serverAuth)",
        remedy="Request one with the serverAuth usage",
    )


def _require_names(pair: GivenPair, leaf: x509.Certificate, names: Sequence[str]) -> None:
    have = names_of(leaf)
    hostnames = [name for name in names if not is_address(name)]
    addresses = [name for name in names if is_address(name) and not ipaddress.ip_address(name).is_unspecified]
    lacking = [name for name in (hostnames or addresses) if not covers(have, name)]
    if not hostnames and all(ipaddress.ip_address(name).is_loopback for name in lacking):
        loopback = ("localhost", "127.0.0.1", "::1")
        lacking = [] if any(covers(have, name) for name in loopback) else lacking
    if not lacking and have:
        return
    raise CertificateError(
        "names",
        pair.certificate_file,
        seen=f"it is for {', '.join(have) or 'no name at all'}, and clients are to dial {', '.join(lacking) or 'it'}",
        remedy="Give --hostname with a name that the certificate has, or a certificate for that name "
        "(a subject alternative name; clients ignore the common name)",
    )
