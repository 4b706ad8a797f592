"""The certificate that the gateway presents: made by our own authority, or given by the user and validated.

Files in the directory (mode 0700, files 0600): `ca.key`, `ca.crt` (made from that key, so a crash between the two
loses nothing: the next call makes the certificate again from the same key) and `server.pem` (private key and
certificate in one file, so that no crash can leave a pair that does not match).

Not here: handing them to Envoy (SDS, in `gonogo.gateway`) and judging them (`gonogo.checks`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gonogo.facts.gateway import CertificateFacts
from gonogo.security.authority import (
    Authority,
    authority_due,
    issue_authority,
    issue_server,
    issued_by,
    renewal_reason,
    server_names,
)
from gonogo.security.given_certificate import GivenPair, root_of, subject_of, validate_given
from gonogo.security.pem import (
    CertificateError,
    key_matches,
    names_of,
    parse_certificates,
    parse_private_key,
)

AUTHORITY_KEY, AUTHORITY_FILE, SERVER_FILE, GIVEN_ROOT_FILE = "ca.key", "ca.crt", "server.pem", "given-ca.crt"
LOCK_TRIES, LOCK_PAUSE_S = 200, 0.05

KeySource = Callable[[], ec.EllipticCurvePrivateKey]


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key from the system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """What the gateway needs: the chain (leaf first) and its private key, both as PEM.

    `ca_file` is what clients verify with; None means the system's own trust store. The key never prints.
    """

    ca_file: Path | None
    chain_pem: str
    key_pem: str
    facts: CertificateFacts

    def __repr__(self) -> str:
        return f"CertificateFiles(ca_file={self.ca_file!s}, subject={self.facts.subject!r}, key_pem=•••)"


def ensure_certificates(
    directory: Path,
    names: Iterable[str],
    now: float,
    given: tuple[Path, Path] | None = None,
    generate: KeySource = new_key,
) -> CertificateFiles:
    """The certificate to present to clients that dial `names`, made or renewed when needed. Done twice is done once.

    `names`: host names and listen addresses; the loopback names are added. `now`: Unix seconds. `given`: the user's
    own certificate and key files, which are validated and used as they are. Renewed: fewer than 30 days left, other
    names, a clock before its first second, or anything about it that does not fit. Raises `CertificateError`.
    """
    wanted = list(names)
    with _locked(directory):
        if given is not None:
            return _use_given(directory, _read_pair(given), wanted, now)
        _close_to_others(directory)
        text = _ensure_server(directory, server_names(wanted), now, generate)
    return _files(text, directory / AUTHORITY_FILE, own=True)


def read_certificate(
    directory: Path, names: Iterable[str], now: float, given: tuple[Path, Path] | None = None
) -> CertificateFacts | None:
    """What the files say, changing nothing; None when our own authority has made none yet.

    `problem` is None when the certificate is good now for clients that dial `names` (a renewal may be due). Files
    that cannot be read give facts with no names, zero times and the problem.
    """
    try:
        if given is not None:
            pair = _read_pair(given)
            chain = validate_given(pair, list(names), now)
            return _facts(chain[0], matches=True, own=False)
        return _own_facts(directory, server_names(names), now)
    except CertificateError as error:
        readable = _leaf_of(given[0] if given is not None else directory / SERVER_FILE)
        matches = error.kind not in ("key_mismatch", "chain_order", "not_pem", "missing", "unreadable", "encrypted_key")
        return _facts(readable, matches=matches, own=given is None, problem=str(error))


def _ensure_server(directory: Path, names: tuple[str, ...], now: float, generate: KeySource) -> bytes:
    """The text of `server.pem`: as it is while it is good, otherwise made anew."""
    path = directory / SERVER_FILE
    root = _read_authority_certificate(directory)
    text = _read_own(path)
    # An authority whose key was lost cannot sign, yet what it signed goes on being good.
    settled = root is not None and not (authority_due(root, now) and (directory / AUTHORITY_KEY).exists())
    if settled and text is not None and root is not None and _own_problem(text, root, names, now) is None:
        return text
    authority = _ensure_authority(directory, root, now, generate)
    if text is not None and _own_problem(text, authority.certificate, names, now) is None:
        return text
    key = generate()
    certificate = issue_server(authority, key, names, now)
    text = _private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)
    _write(path, text)
    return text


def _own_problem(text: bytes, root: x509.Certificate, names: tuple[str, ...], now: float) -> str | None:
    try:
        leaf = parse_certificates(text, SERVER_FILE)[0]
        if not key_matches(leaf, parse_private_key(text, SERVER_FILE)):
            return "key"
    except CertificateError as error:
        return error.kind
    return renewal_reason(leaf, root, names, now)


def _ensure_authority(directory: Path, root: x509.Certificate | None, now: float, generate: KeySource) -> Authority:
    """Our authority. Its key is written first, and once; the certificate can be made from it again at any time."""
    key_path = directory / AUTHORITY_KEY
    text = _read_own(key_path)
    if text is None:
        if root is not None:
            raise CertificateError(
                "authority_key_missing",
                str(key_path),
                seen=f"the authority's key is gone while its certificate {AUTHORITY_FILE} is there, "
                "and a new server certificate is due",
                remedy=f"Put the key back from a backup; or remove {AUTHORITY_FILE}, start again to make a new "
                "authority, and give clients the new file",
            )
        fresh = generate()
        _write(key_path, _private_pem(fresh))
        return _issue_root(directory, fresh, now)
    key = parse_private_key(text, str(key_path))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (root is not None and not key_matches(root, key)):
        raise CertificateError(
            "key_mismatch",
            str(key_path),
            seen=f"this is not the private key of {AUTHORITY_FILE} beside it",
            remedy="Put the two that belong together back from a backup; or remove both, start again to make a new "
            "authority, and give clients the new certificate",
        )
    if root is None or authority_due(root, now):
        return _issue_root(directory, key, now)
    return Authority(key=key, certificate=root)


def _issue_root(directory: Path, key: ec.EllipticCurvePrivateKey, now: float) -> Authority:
    certificate = issue_authority(key, now)
    _write(directory / AUTHORITY_FILE, certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(key=key, certificate=certificate)


def _read_authority_certificate(directory: Path) -> x509.Certificate | None:
    """None when it is not there, or spoilt: it is made again from its key."""
    text = _read_own(directory / AUTHORITY_FILE)
    if text is None:
        return None
    try:
        return parse_certificates(text, AUTHORITY_FILE)[0]
    except CertificateError:
        return None


def _use_given(directory: Path, pair: GivenPair, names: Sequence[str], now: float) -> CertificateFiles:
    chain = validate_given(pair, names, now)
    root = root_of(chain)
    root_file = None
    if root is not None:
        root_file = directory / GIVEN_ROOT_FILE
        pem = root.public_bytes(serialization.Encoding.PEM)
        if _read_own(root_file) != pem:
            _write(root_file, pem)
    return _files(pair.certificate + b"\n" + pair.key, root_file, own=False)


def _files(text: bytes, ca_file: Path | None, *, own: bool) -> CertificateFiles:
    """Both halves in one canonical form: what stands between the PEM blocks of a user's file does not go to Envoy."""
    chain = parse_certificates(text, SERVER_FILE)
    return CertificateFiles(
        ca_file=ca_file,
        chain_pem=b"".join(part.public_bytes(serialization.Encoding.PEM) for part in chain).decode(),
        key_pem=_private_pem(parse_private_key(text, SERVER_FILE)).decode(),
        facts=_facts(chain[0], matches=True, own=own),
    )


def _own_facts(directory: Path, names: tuple[str, ...], now: float) -> CertificateFacts | None:
    path = directory / SERVER_FILE
    text = _read_own(path)
    if text is None:
        return None
    leaf = parse_certificates(text, str(path))[0]
    matches = key_matches(leaf, parse_private_key(text, str(path)))
    return _facts(leaf, matches=matches, own=True, problem=_own_fault(directory, leaf, matches, names, now))


def _own_fault(
    directory: Path, leaf: x509.Certificate, matches: bool, names: tuple[str, ...], now: float
) -> str | None:
    remedy = "It is made again when the service is started or changed next (`gonogo up`)"
    root = _read_authority_certificate(directory)
    if not matches:
        return f"{SERVER_FILE}: the private key in it is not the certificate's. {remedy}"
    if root is None:
        return f"{AUTHORITY_FILE}: it is not there or not readable, so no client can verify {SERVER_FILE}. {remedy}"
    if not issued_by(leaf, root):
        return f"{SERVER_FILE}: it was not issued by the authority in {AUTHORITY_FILE}. {remedy}"
    lacking = sorted(set(names) - set(names_of(leaf)))
    if lacking:
        return f"{SERVER_FILE}: it is not for {', '.join(lacking)}. {remedy}"
    if now > leaf.not_valid_after_utc.timestamp():
        return f"{SERVER_FILE}: it expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC. {remedy}"
    if now < leaf.not_valid_before_utc.timestamp():
        return f"{SERVER_FILE}: it is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only. {remedy}"
    return None


def _facts(leaf: x509.Certificate | None, *, matches: bool, own: bool, problem: str | None = None) -> CertificateFacts:
    return CertificateFacts(
        subject=subject_of(leaf) if leaf is not None else "",
        names=names_of(leaf) if leaf is not None else (),
        not_before=leaf.not_valid_before_utc.timestamp() if leaf is not None else 0.0,
        not_after=leaf.not_valid_after_utc.timestamp() if leaf is not None else 0.0,
        matches_key=matches,
        own_ca=own,
        problem=problem,
    )


def _leaf_of(path: Path) -> x509.Certificate | None:
    try:
        return parse_certificates(_read(path), str(path))[0]
    except CertificateError:
        return None


def _private_pem(key: object) -> bytes:
    encoded: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded


def _read_pair(given: tuple[Path, Path]) -> GivenPair:
    certificate, key = given
    return GivenPair(
        certificate_file=str(certificate), key_file=str(key), certificate=_read(certificate), key=_read(key)
    )


def _read_own(path: Path) -> bytes | None:
    """One of our files; None when it is not there."""
    try:
        return _read(path)
    except CertificateError as error:
        if error.kind == "missing":
            return None
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CertificateError("missing", str(path), seen="there is no such file", remedy="Check the path") from error
    except OSError as error:
        raise CertificateError(
            "unreadable",
            str(path),
            seen=f"it could not be read ({error.strerror})",
            remedy=f"Give user {os.getuid()} the right to read it",
        ) from error


def _close_to_others(directory: Path) -> None:
    for path in (directory / name for name in (AUTHORITY_KEY, AUTHORITY_FILE, SERVER_FILE)):
        try:
            if path.exists() and path.stat().st_mode & 0o077:
                path.chmod(0o600)
        except OSError as error:
            raise _unwritable(path, error) from error


def _write(path: Path, text: bytes) -> None:
    """All of it or nothing, for the owner alone. The lock makes one temporary name enough."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One writer at a time; the kernel lets go of a dead one's lock. Bounded: 10 s, then `CertificateError` busy."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        for _ in range(LOCK_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_PAUSE_S)
        else:
            raise CertificateError(
                "busy",
                str(directory),
                seen=f"another process has held it for {LOCK_TRIES * LOCK_PAUSE_S:.0f} s",
                remedy=f"See who with `fuser {directory}`, and try again when it is done",
            )
        yield
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> CertificateError:
    return CertificateError(
        "unwritable",
        str(path),
        seen=f"it could not be written ({error.strerror})",
        remedy="Free space on that file system, or make the directory writable for the user that runs this",
    )
