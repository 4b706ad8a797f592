"""PEM text into certificates and keys, and what a certificate says. Pure: the text is passed in.

Not here: making certificates (`certificates.py`) and judging one that the user gave (`given_certificate.py`).
"""

from __future__ import annotations

import ipaddress
from typing import Iterable, Union

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
CURVES = ("secp256r1", "secp384r1", "secp521r1")
RSA_BITS_MIN = 2048


class CertificateError(Exception):
    """A certificate or key that cannot be used. `kind` is stable; the text is file, what was seen, and what to do.

    Kinds: missing, unreadable, unwritable, busy, not_pem, encrypted_key, unsupported_key, key_mismatch, chain_order,
    expired, not_yet_valid, names, purpose, authority_key_missing.
    """

    def __init__(self, kind: str, file: str, *, seen: str, remedy: str) -> None:
        super().__init__(f"{file}: {seen}. {remedy}")
        self.kind = kind
        self.file = file
        self.seen = seen
        self.remedy = remedy


def parse_certificates(text: bytes, file: str) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM file, in its order; at least one. `CertificateError` not_pem otherwise."""
    try:
        return tuple(x509.load_pem_x509_certificates(text))
    except ValueError as error:
        raise CertificateError(
            "not_pem",
            file,
            seen=f"holds no readable PEM certificate ({len(text)} bytes)",
            remedy="A file that begins with -----BEGIN CERTIFICATE----- is needed; a DER file becomes one with "
            "`openssl x509 -inform der -in FILE -out FILE.pem`",
        ) from error


def parse_private_key(text: bytes, file: str) -> PrivateKey:
    """The private key of a PEM file. Errors: not_pem, encrypted_key, unsupported_key. The key never stands in one."""
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError as error:
        raise CertificateError(
            "encrypted_key",
            file,
            seen="the private key is encrypted with a passphrase",
            remedy="The gateway starts unattended: write an unencrypted copy with "
            f"`openssl pkey -in {file} -out KEY.pem && chmod 600 KEY.pem` and give that one",
        ) from error
    except Exception as error:  # the library raises ValueError, UnsupportedAlgorithm and more for bytes of strangers
        raise CertificateError(
            "not_pem",
            file,
            seen=f"holds no readable PEM private key ({len(text)} bytes)",
            remedy="A file that begins with -----BEGIN PRIVATE KEY----- is needed",
        ) from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= RSA_BITS_MIN:
        return key
    raise CertificateError(
        "unsupported_key",
        file,
        seen=f"the private key is of a kind that the gateway does not take ({_key_kind(key)})",
        remedy=f"Give ECDSA on {', '.join(CURVES)}, or RSA of at least {RSA_BITS_MIN} bits",
    )


def key_matches(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether this is the private key of this certificate."""
    try:
        return public_bytes(certificate.public_key()) == public_bytes(key.public_key())
    except Exception:  # noqa: BLE001 - a public key that the library cannot even read is not ours
        return False


def public_bytes(key: object) -> bytes:
    """One canonical form of a public key, to compare."""
    kind, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_bytes(kind, form)  # type: ignore[attr-defined]
    return encoded


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names it may be reached by (subject alternative names): DNS names and addresses, sorted."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    dns = {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}
    addresses = {str(address) for address in extension.value.get_values_for_type(x509.IPAddress)}
    return tuple(sorted(dns | addresses))


def covers(names: Iterable[str], wanted: str) -> bool:
    """Whether a certificate with these names is right for a client that dials `wanted`.

    A wildcard stands for one label, the leftmost, as clients judge it.
    """
    have = set(names)
    wanted = canonical_name(wanted)
    if wanted in have:
        return True
    _, dot, parent = wanted.partition(".")
    return bool(dot) and not is_address(wanted) and f"*.{parent}" in have


def canonical_name(name: str) -> str:
    """A host name in lower case without a last dot; an address in its shortest form, without brackets."""
    bare = name.strip().removeprefix("[").removesuffix("]")
    if is_address(bare):
        return str(ipaddress.ip_address(bare))
    return name.strip().lower().removesuffix(".")


def is_address(name: str) -> bool:
    """Whether the name is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _key_kind(key: object) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return f"RSA, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return f"ECDSA on {key.curve.name}"
    return type(key).__name__.removesuffix("PrivateKey").lstrip("_")
