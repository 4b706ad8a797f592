"""Condition 5, security: certificates that the user gave, good for too short a time or for nobody."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gonogo.spec import Spec
from tests.drills.harness import Yard, assert_only, blocking, spec, until, wrong

BRIEF_S = 10.0
WEDGED_AFTER = 2


@pytest.fixture
def folder(tmp_path: Path, yard: Yard) -> Iterator[Path]:
    """Where a drill puts its certificates; the services that were given them go with the drill."""
    yard.well()
    yield tmp_path
    yard.remove("given")
    yard.well()


@pytest.mark.parametrize(
    ("lifetime_s", "names", "reason"),
    [
        ((-86400.0, -1.0), ("127.0.0.1",), "CertificateExpired"),
        ((3600.0, 86400.0), ("127.0.0.1",), "CertificateNotYetValid"),
        ((-60.0, 86400.0), ("elsewhere.example.com",), "CertificateMismatched"),
    ],
)
def test_given_certificate(
    yard: Yard, folder: Path, lifetime_s: tuple[float, float], names: tuple[str, ...], reason: str
) -> None:
    """Without the check the service is never up: the gateway gets no configuration, and nobody else gets one either."""
    certificate, key = issue(yard, folder, lifetime_s, names)
    asked = given(yard, certificate, key)
    assert_only(yard.refused(asked), "given_certificate", reason, "certificate")
    if reason != "CertificateExpired":
        return
    after = yard.last_event()
    with yard.faults.broken(without=["given_certificate"]):
        yard.submit(asked)
        until(lambda: yard.failed_actions(after) >= WEDGED_AFTER, "publishing fails, round after round", limit_s=40)
        entry = yard.entry("given")
        assert entry is not None
        assert entry["phase"] == "starting", "and `up` would wait for its five minutes"


def test_certificate_lasts_and_certificate_valid(yard: Yard, folder: Path) -> None:
    """A certificate of seconds: advice first, then the verdict, and on that second every client is turned away."""
    certificate, key = issue(yard, folder, (-60.0, BRIEF_S), ("127.0.0.1",))
    ends_at = time.time() + BRIEF_S
    asked = given(yard, certificate, key)
    assert blocking(yard.preflight(asked)) == set(), "it is good now"
    yard.submit(asked)
    answers = yard.wait_known("certificate_lasts", "CertificateExpiring")
    assert_only(answers, "certificate_lasts", "CertificateExpiring", "certificate")
    assert not any(one["blocks"] for one in answers if one["check"] == "certificate_lasts")
    assert yard.ask_once().status_code == 200
    answers = yard.wait_known("certificate_valid", "CertificateExpired", limit_s=BRIEF_S + 30)
    assert_only(answers, "certificate_valid", "CertificateExpired", "certificate")
    time.sleep(max(0.0, ends_at - time.time()))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        _handshake_of_a_careful_client(yard)
    # Nothing else tells: what is asked without a look at the certificate is still answered.
    assert set(wrong(yard.known())) == {"certificate_lasts", "certificate_valid"}


def given(yard: Yard, certificate: Path, key: Path) -> Spec:
    """A service whose gateway is to present this certificate; it is one for all services."""
    gateway = {"port": yard.port, "certificate_file": str(certificate), "key_file": str(key)}
    return spec(service="given", replicas={"min": 1, "max": 1}, gateway=gateway)


def issue(yard: Yard, folder: Path, lifetime_s: tuple[float, float], names: tuple[str, ...]) -> tuple[Path, Path]:
    """A certificate from this deployment's own authority, so that its clients trust it, and its key."""
    tls = yard.state_dir / "tls"
    authority = x509.load_pem_x509_certificate((tls / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((tls / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    own, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    alternatives = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a given one")]))
        .issuer_name(authority.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=lifetime_s[0]))
        .not_valid_after(now + timedelta(seconds=lifetime_s[1]))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    certificate, key = folder / "given.pem", folder / "given.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key


def _handshake_of_a_careful_client(yard: Yard) -> None:
    context = ssl.create_default_context(cafile=str(yard.state_dir / "tls" / "ca.crt"))
    with socket.create_connection(("127.0.0.1", yard.port), timeout=5) as plain:
        context.wrap_socket(plain, server_hostname="127.0.0.1").close()
