"""Certificates: what is made, when it is made anew, what survives a crash, and what is refused with a remedy."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gonogo.security.authority import server_names
from gonogo.security.certificates import CertificateFiles, ensure_certificates, new_key, read_certificate
from gonogo.security.pem import CertificateError, covers, parse_certificates, parse_private_key

DAY = 86400.0
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc).timestamp()
NAMES = ("llm.example.com", "127.0.0.1")


def leaf(files: CertificateFiles) -> x509.Certificate:
    return parse_certificates(files.chain_pem.encode(), "chain")[0]


def root(directory: Path) -> x509.Certificate:
    return parse_certificates((directory / "ca.crt").read_bytes(), "ca.crt")[0]


def assert_good(directory: Path, files: CertificateFiles, now: float) -> None:
    """The pair belongs together, the authority signed it, and it is valid at `now`."""
    certificate = leaf(files)
    certificate.verify_directly_issued_by(root(directory))
    key = parse_private_key(files.key_pem.encode(), "key")
    assert key.public_key() == certificate.public_key()
    assert certificate.not_valid_before_utc.timestamp() <= now < certificate.not_valid_after_utc.timestamp()
    facts = read_certificate(directory, NAMES, now)
    assert facts == files.facts
    assert facts.problem is None


def test_a_server_certificate_for_every_name_is_made_and_the_files_are_the_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "tls"
    files = ensure_certificates(directory, [*NAMES, "10.1.2.3"], NOW)
    assert_good(directory, files, NOW)
    assert files.facts.names == ("10.1.2.3", "127.0.0.1", "::1", "llm.example.com", "localhost")
    assert files.facts.own_ca
    assert files.facts.matches_key
    assert files.facts.not_after - NOW == 90 * DAY
    assert root(directory).not_valid_after_utc.timestamp() - NOW == 3650 * DAY
    assert sorted(path.name for path in directory.iterdir()) == ["ca.crt", "ca.key", "server.pem"]
    assert {oct(path.stat().st_mode & 0o777) for path in directory.iterdir()} == {"0o600"}
    assert oct(directory.stat().st_mode & 0o777) == "0o700"


def test_files_that_others_may_read_are_closed_to_them(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NAMES, NOW)
    (tmp_path / "ca.key").chmod(0o644)
    ensure_certificates(tmp_path, NAMES, NOW)
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_the_private_key_never_prints(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES, NOW)
    assert "PRIVATE" not in repr(files)
    assert files.key_pem[40:80] not in repr(files)


def test_done_twice_is_done_once(tmp_path: Path) -> None:
    first = ensure_certificates(tmp_path, NAMES, NOW)
    seen = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert ensure_certificates(tmp_path, reversed(NAMES), NOW + 59 * DAY) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == seen


@pytest.mark.parametrize(
    ("days", "names", "renewed"),
    [
        (59.9, NAMES, False),
        (60.1, NAMES, True),
        (200, NAMES, True),
        (-0.03, NAMES, False),  # 43 minutes before: the backdating covers it
        (-2, NAMES, True),
        (1, ("LLM.Example.com.", "127.0.0.1"), False),
        (1, ("llm.example.com", "0.0.0.0", "::"), False),
        (1, ("other.example.com",), True),
        (1, (*NAMES, "10.0.0.9"), True),
        (1, (), True),
    ],
)
def test_it_is_renewed_before_expiry_for_other_names_and_when_the_clock_was_set_back(
    tmp_path: Path, days: float, names: tuple[str, ...], renewed: bool
) -> None:
    first = ensure_certificates(tmp_path, NAMES, NOW)
    later = NOW + days * DAY
    second = ensure_certificates(tmp_path, names, later)
    assert (second.chain_pem != first.chain_pem) == renewed
    assert (second.key_pem != first.key_pem) == renewed
    assert second.facts.names == server_names(names)
    assert second.facts.not_before <= later < second.facts.not_after - 29 * DAY
    leaf(second).verify_directly_issued_by(root(tmp_path))


@pytest.mark.parametrize("years", [9.5, 12, -5])
def test_an_authority_near_its_end_is_made_again_with_the_same_key(tmp_path: Path, years: float) -> None:
    ensure_certificates(tmp_path, NAMES, NOW)
    old, key = root(tmp_path), (tmp_path / "ca.key").read_bytes()
    later = NOW + years * 365 * DAY
    files = ensure_certificates(tmp_path, NAMES, later)
    assert_good(tmp_path, files, later)
    assert root(tmp_path) != old
    assert (tmp_path / "ca.key").read_bytes() == key
    # Clients that still hold the old file verify the new server certificate for as long as the old file is valid.
    leaf(files).verify_directly_issued_by(old)


class PowerLoss(BaseException):
    """The machine stops here."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The process dies at the `step`-th time that something is about to reach the disk."""
    left = [step]

    def guarded(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **named: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise PowerLoss
            return call(*args, **named)

        return wrapper

    monkeypatch.setattr(os, "fsync", guarded(os.fsync))
    monkeypatch.setattr(os, "open", guarded(os.open))
    monkeypatch.setattr(Path, "replace", guarded(Path.replace))
    monkeypatch.setattr(Path, "unlink", guarded(Path.unlink))


def prepare_nothing(directory: Path) -> float:
    return NOW


def prepare_expired(directory: Path) -> float:
    ensure_certificates(directory, NAMES, NOW)
    return NOW + 100 * DAY


def prepare_old_authority(directory: Path) -> float:
    ensure_certificates(directory, NAMES, NOW)
    return NOW + 3600 * DAY


@pytest.mark.parametrize("prepare", [prepare_nothing, prepare_expired, prepare_old_authority])
def test_a_crash_at_any_point_leaves_nothing_that_the_next_start_does_not_mend(
    tmp_path: Path, prepare: Callable[[Path], float]
) -> None:
    for step in range(60):
        directory = tmp_path / str(step)
        directory.mkdir()
        now = prepare(directory)
        authority = (directory / "ca.key").read_bytes() if (directory / "ca.key").exists() else None
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, step)
            try:
                ensure_certificates(directory, NAMES, now)
                crashed = False
            except PowerLoss:
                crashed = True
        if (directory / "server.pem").exists() and crashed:
            between = (directory / "server.pem").read_bytes()
            pair = parse_certificates(between, "server.pem")[0], parse_private_key(between, "server.pem")
            assert pair[0].public_key() == pair[1].public_key(), f"a torn pair after a crash at step {step}"
        files = ensure_certificates(directory, NAMES, now)
        assert_good(directory, files, now)
        assert authority is None or (directory / "ca.key").read_bytes() == authority
        assert sorted(path.name for path in directory.iterdir()) == ["ca.crt", "ca.key", "server.pem"]
        if not crashed:
            assert step > 3, "nothing was ever interrupted"
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("spoil", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_spoilt_server_file_or_authority_certificate_is_made_again(tmp_path: Path, spoil: str) -> None:
    ensure_certificates(tmp_path, NAMES, NOW)
    for name in ("server.pem", "ca.crt"):
        (tmp_path / name).write_text(spoil)
        facts = read_certificate(tmp_path, NAMES, NOW)
        assert facts is not None
        assert facts.problem is not None
        assert name in facts.problem
        assert_good(tmp_path, ensure_certificates(tmp_path, NAMES, NOW), NOW)


def test_a_server_file_with_another_key_is_told_and_made_again(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NAMES, NOW)
    (tmp_path / "server.pem").write_text(pem_key(new_key()).decode() + files.chain_pem)
    facts = read_certificate(tmp_path, NAMES, NOW)
    assert facts is not None
    assert not facts.matches_key
    assert_good(tmp_path, ensure_certificates(tmp_path, NAMES, NOW), NOW)


def test_reading_tells_what_a_client_would_refuse_and_changes_nothing(tmp_path: Path) -> None:
    assert read_certificate(tmp_path, NAMES, NOW) is None
    assert list(tmp_path.iterdir()) == []
    ensure_certificates(tmp_path, NAMES, NOW)
    seen = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for now, names, word in [
        (NOW + 91 * DAY, NAMES, "expired"),
        (NOW - 1 * DAY, NAMES, "valid from"),
        (NOW, ("other.example.com",), "not for other.example.com"),
    ]:
        facts = read_certificate(tmp_path, names, now)
        assert facts is not None
        assert facts.problem is not None
        assert word in facts.problem
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == seen


def test_without_the_authority_key_a_good_certificate_goes_on_and_a_due_one_is_refused(tmp_path: Path) -> None:
    first = ensure_certificates(tmp_path, NAMES, NOW)
    (tmp_path / "ca.key").unlink()
    assert ensure_certificates(tmp_path, NAMES, NOW) == first
    with pytest.raises(CertificateError) as caught:
        ensure_certificates(tmp_path, NAMES, NOW + 80 * DAY)
    assert caught.value.kind == "authority_key_missing"
    assert "backup" in caught.value.remedy
    (tmp_path / "ca.crt").unlink()
    assert_good(tmp_path, ensure_certificates(tmp_path, NAMES, NOW + 80 * DAY), NOW + 80 * DAY)


def test_an_authority_key_of_another_authority_is_never_overwritten(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NAMES, NOW)
    other = pem_key(new_key())
    (tmp_path / "ca.key").write_bytes(other)
    with pytest.raises(CertificateError) as caught:
        ensure_certificates(tmp_path, NAMES, NOW + 80 * DAY)
    assert caught.value.kind == "key_mismatch"
    assert (tmp_path / "ca.key").read_bytes() == other


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError) as caught:
        ensure_certificates(tmp_path / "file" / "tls", NAMES, NOW)
    assert caught.value.kind == "unwritable"
    assert str(tmp_path / "file") in str(caught.value)


# A certificate that the user gives


def pem_key(key: object, password: bytes | None = None) -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))  # type: ignore[attr-defined]


class Issuer:
    """A foreign authority: what a company or a public one would be."""

    def __init__(self, name: str, issuer: Issuer | None = None) -> None:
        self.key = new_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above = issuer or self
        self.certificate = (
            build(self.name, above.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(above.key, hashes.SHA256())
        )

    def issue(
        self,
        key: object,
        names: tuple[str, ...] = ("llm.example.com",),
        *,
        days: tuple[float, float] = (-1, 30),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "given")])
        builder = build(subject, self.name, key, days).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def build(
    subject: x509.Name, issuer: x509.Name, key: object, days: tuple[float, float] = (-1, 3000)
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(NOW, timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())  # type: ignore[attr-defined]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


ROOT = Issuer("Example root")
MIDDLE = Issuer("Example intermediate", ROOT)
KEY = new_key()


def given(tmp_path: Path, certificate: bytes, key: bytes) -> tuple[Path, Path]:
    pair = tmp_path / "given.crt", tmp_path / "given.key"
    pair[0].write_bytes(certificate)
    pair[1].write_bytes(key)
    return pair


@pytest.mark.parametrize("key", [KEY, rsa.generate_private_key(65537, 2048)], ids=["ecdsa", "rsa"])
def test_a_given_certificate_is_used_as_it_is(tmp_path: Path, key: object) -> None:
    chain = pem(MIDDLE.issue(key), MIDDLE.certificate)
    pair = given(tmp_path, b"a line of text before it\n" + chain, pem_key(key))
    files = ensure_certificates(tmp_path / "tls", ["llm.example.com", "0.0.0.0"], NOW, given=pair)
    assert files.chain_pem.encode() == chain
    assert files.key_pem.encode() == pem_key(key)
    assert files.ca_file is None, "clients verify it with the authorities that their system trusts"
    assert not files.facts.own_ca
    assert files.facts.problem is None
    assert list((tmp_path / "tls").iterdir()) == []
    assert read_certificate(tmp_path / "tls", ["llm.example.com"], NOW, given=pair) == files.facts


def test_a_given_chain_with_its_root_gives_clients_that_root(tmp_path: Path) -> None:
    chain = pem(MIDDLE.issue(KEY), MIDDLE.certificate, ROOT.certificate)
    pair = given(tmp_path, chain, pem_key(KEY))
    files = ensure_certificates(tmp_path / "tls", ["llm.example.com"], NOW, given=pair)
    assert files.ca_file is not None
    assert files.ca_file.read_bytes() == pem(ROOT.certificate)


REFUSED = {
    "key of another certificate": ("key_mismatch", lambda: (pem(MIDDLE.issue(KEY)), pem_key(new_key())), "openssl"),
    "garbage certificate": ("not_pem", lambda: (b"\x30\x82garbage", pem_key(KEY)), "BEGIN CERTIFICATE"),
    "garbage in a PEM block": (
        "not_pem",
        lambda: (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pem_key(KEY)),
        "BEGIN CERTIFICATE",
    ),
    "garbage key": ("not_pem", lambda: (pem(MIDDLE.issue(KEY)), b"garbage"), "BEGIN PRIVATE KEY"),
    "empty files": ("not_pem", lambda: (b"", b""), "BEGIN CERTIFICATE"),
    "files swapped": ("not_pem", lambda: (pem_key(KEY), pem(MIDDLE.issue(KEY))), "BEGIN CERTIFICATE"),
    "encrypted key": ("encrypted_key", lambda: (pem(MIDDLE.issue(KEY)), pem_key(KEY, b"x")), "openssl pkey"),
    "small RSA key": ("unsupported_key", lambda: (pem(MIDDLE.issue(SMALL)), pem_key(SMALL)), "2048"),
    "Ed25519 key": ("unsupported_key", lambda: (pem(MIDDLE.issue(KEY)), pem_key(ED)), "ECDSA"),
    "foreign curve": ("unsupported_key", lambda: (pem(MIDDLE.issue(K1)), pem_key(K1)), "secp256r1"),
    "issuer first": ("chain_order", lambda: (pem(MIDDLE.certificate, MIDDLE.issue(KEY)), pem_key(KEY)), "first"),
    "gap in the chain": ("chain_order", lambda: (pem(MIDDLE.issue(KEY), ROOT.certificate), pem_key(KEY)), "Order"),
    "expired": ("expired", lambda: (pem(MIDDLE.issue(KEY, days=(-9, -1))), pem_key(KEY)), "renewed"),
    "not valid yet": ("not_yet_valid", lambda: (pem(MIDDLE.issue(KEY, days=(2, 9))), pem_key(KEY)), "clock"),
    "for clients only": (
        "purpose",
        lambda: (pem(MIDDLE.issue(KEY, usage=ExtendedKeyUsageOID.CLIENT_AUTH)), pem_key(KEY)),
        "serverAuth",
    ),
    "another name": ("names", lambda: (pem(MIDDLE.issue(KEY, ("x.example.com",))), pem_key(KEY)), "--hostname"),
    "no name": ("names", lambda: (pem(MIDDLE.issue(KEY, ())), pem_key(KEY)), "--hostname"),
}
SMALL = rsa.generate_private_key(65537, 1024)
ED = ed25519.Ed25519PrivateKey.generate()
K1 = ec.generate_private_key(ec.SECP256K1())


@pytest.mark.parametrize("case", REFUSED)
def test_a_given_pair_that_cannot_work_is_refused_with_file_and_remedy(tmp_path: Path, case: str) -> None:
    kind, make, remedy = REFUSED[case]
    pair = given(tmp_path, *make())
    with pytest.raises(CertificateError) as caught:
        ensure_certificates(tmp_path / "tls", ["llm.example.com", "127.0.0.1"], NOW, given=pair)
    assert caught.value.kind == kind
    assert caught.value.file in {str(path) for path in pair}
    assert remedy in caught.value.remedy
    facts = read_certificate(tmp_path / "tls", ["llm.example.com", "127.0.0.1"], NOW, given=pair)
    assert facts is not None
    assert facts.problem == str(caught.value)
    assert not (tmp_path / "tls" / "server.pem").exists()


def test_a_given_file_that_is_missing_is_named(tmp_path: Path) -> None:
    pair = given(tmp_path, pem(MIDDLE.issue(KEY)), pem_key(KEY))
    pair[1].unlink()
    with pytest.raises(CertificateError) as caught:
        ensure_certificates(tmp_path / "tls", [], NOW, given=pair)
    assert (caught.value.kind, caught.value.file) == ("missing", str(pair[1]))


@pytest.mark.parametrize(
    ("names", "wanted", "good"),
    [
        (("llm.example.com",), ("llm.example.com", "10.0.0.1"), True),
        (("*.example.com",), ("llm.example.com",), True),
        (("*.example.com",), ("a.b.example.com",), False),
        (("localhost",), ("127.0.0.1",), True),
        (("llm.example.com",), ("127.0.0.1",), False),
        (("llm.example.com",), ("10.0.0.1",), False),
        (("llm.example.com",), ("0.0.0.0",), True),
        (("llm.example.com",), ("llm.example.com", "other.example.com"), False),
    ],
)
def test_a_given_certificate_must_have_the_names_that_clients_dial(
    tmp_path: Path, names: tuple[str, ...], wanted: tuple[str, ...], good: bool
) -> None:
    pair = given(tmp_path, pem(MIDDLE.issue(KEY, names)), pem_key(KEY))
    facts = read_certificate(tmp_path, wanted, NOW, given=pair)
    assert facts is not None
    assert (facts.problem is None) == good
    assert facts == replace(facts, names=tuple(sorted(names)), matches_key=True, own_ca=False)


def test_names_are_compared_as_clients_compare_them() -> None:
    assert covers(("::1",), "[0:0::1]")
    assert covers(("llm.example.com",), "LLM.example.COM.")
    assert not covers(("*.1.2.3",), "0.1.2.3")
    assert not covers(("*.com",), "com")
