"""Our certificates in the hands of others: the openssl program and a real TLS 1.3 handshake."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from gonogo.security.certificates import CertificateFiles, ensure_certificates

NAMES = ("llm.example.com", "10.9.8.7")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program is not installed")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tls"


@pytest.fixture
def files(directory: Path) -> CertificateFiles:
    return ensure_certificates(directory, NAMES, time.time())


def openssl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=30, check=False)


def shake_hands(files: CertificateFiles, ca_file: Path, dialled: str) -> str:
    """One handshake with a server that has these files; the version agreed on. Raises what the client raises."""
    chain = ca_file.parent / "chain-and-key.pem"
    chain.write_text(files.key_pem + files.chain_pem)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.minimum_version = ssl.TLSVersion.TLSv1_3
    server_side.load_cert_chain(chain)
    chain.unlink()
    client_side = ssl.create_default_context(cafile=str(ca_file))
    # What Python 3.13 turned on: a certificate that only lenient clients take is no good.
    client_side.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)

    def serve() -> None:
        try:
            server_side.wrap_socket(far, server_side=True).sendall(b"x")
        except (ssl.SSLError, OSError):
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client_side.wrap_socket(near, server_hostname=dialled) as wrapped:
            assert wrapped.recv(1) == b"x"
            return str(wrapped.version())
    finally:
        near.close()
        thread.join(10)
        far.close()


@needs_openssl
def test_openssl_verifies_it_for_each_name_and_for_no_other(directory: Path, files: CertificateFiles) -> None:
    leaf = directory / "leaf.pem"
    leaf.write_text(files.chain_pem)
    base = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(files.ca_file))
    for words in (
        ("-verify_hostname", "llm.example.com"),
        ("-verify_hostname", "localhost"),
        ("-verify_ip", "10.9.8.7"),
        ("-verify_ip", "127.0.0.1"),
        ("-verify_ip", "::1"),
    ):
        done = openssl(*base, *words, str(leaf))
        assert done.returncode == 0, (words, done.stderr)
    for words in (("-verify_hostname", "evil.example.com"), ("-verify_ip", "10.0.0.1")):
        assert openssl(*base, *words, str(leaf)).returncode != 0, words
    assert openssl("verify", "-purpose", "sslclient", "-CAfile", str(files.ca_file), str(leaf)).returncode != 0


@needs_openssl
def test_openssl_reads_the_authority_as_one_that_may_sign_servers_only_directly(files: CertificateFiles) -> None:
    text = openssl("x509", "-in", str(files.ca_file), "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text
    assert "NIST CURVE: P-256" in text


@pytest.mark.parametrize("dialled", ["llm.example.com", "localhost", "127.0.0.1", "::1", "10.9.8.7"])
def test_a_client_with_the_ca_file_shakes_hands_over_tls_1_3(files: CertificateFiles, dialled: str) -> None:
    assert files.ca_file is not None
    assert shake_hands(files, files.ca_file, dialled) == "TLSv1.3"


def test_a_client_that_dials_another_name_refuses_it(files: CertificateFiles) -> None:
    assert files.ca_file is not None
    with pytest.raises(ssl.SSLCertVerificationError, match="evil"):
        shake_hands(files, files.ca_file, "evil.example.com")


def test_a_client_with_another_deployments_authority_refuses_it(files: CertificateFiles, tmp_path: Path) -> None:
    other = ensure_certificates(tmp_path / "other", NAMES, time.time())
    assert other.ca_file is not None
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands(files, other.ca_file, "localhost")


def test_a_client_refuses_one_that_ended_yesterday_and_takes_the_renewed_one(directory: Path) -> None:
    now = time.time()
    old = ensure_certificates(directory, NAMES, now - 91 * 86400)
    assert old.ca_file is not None
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(old, old.ca_file, "localhost")
    kept = directory / "kept-by-a-client.crt"
    kept.write_bytes(old.ca_file.read_bytes())
    assert shake_hands(ensure_certificates(directory, NAMES, now), kept, "localhost") == "TLSv1.3"


def test_a_client_that_kept_the_old_authority_takes_what_the_renewed_one_signed(directory: Path) -> None:
    now = time.time()
    first = ensure_certificates(directory, NAMES, now - 3400 * 86400)
    assert first.ca_file is not None
    kept = directory / "kept-by-a-client.crt"
    kept.write_bytes(first.ca_file.read_bytes())
    second = ensure_certificates(directory, NAMES, now)
    assert second.ca_file is not None
    assert second.ca_file.read_bytes() != kept.read_bytes()
    assert shake_hands(second, kept, "localhost") == "TLSv1.3"
    assert shake_hands(second, second.ca_file, "localhost") == "TLSv1.3"


@needs_openssl
def test_a_pair_made_with_openssl_is_taken_and_its_encrypted_key_is_not(directory: Path, tmp_path: Path) -> None:
    made = openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5", "-subj", "/CN=given"),
        *("-addext", "subjectAltName=DNS:llm.example.com,IP:127.0.0.1"),
        *("-keyout", str(tmp_path / "k.pem"), "-out", str(tmp_path / "c.pem")),
    )
    assert made.returncode == 0, made.stderr
    given = tmp_path / "c.pem", tmp_path / "k.pem"
    files = ensure_certificates(directory, ["llm.example.com"], time.time(), given=given)
    assert files.ca_file is not None, "it signed itself, so clients need it"
    assert files.facts.problem is None
    assert files.facts.names == ("127.0.0.1", "llm.example.com")
    closed = tmp_path / "closed.pem"
    done = openssl("pkey", "-in", str(given[1]), "-aes256", "-passout", "pass:x", "-out", str(closed))
    assert done.returncode == 0, done.stderr
    with pytest.raises(Exception, match=r"encrypted with a passphrase.*openssl pkey"):
        ensure_certificates(directory, ["llm.example.com"], time.time(), given=(given[0], closed))
