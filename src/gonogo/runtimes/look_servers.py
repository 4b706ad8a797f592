"""Asks external servers directly: do they answer, and which models do they list? Bounded in time and size.

Not here: whether they are well while they serve, which the gateway's own health checks say.
"""

from __future__ import annotations

import os
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Iterable, Mapping

import httpx

from gonogo.facts.server import HEALTH, MODEL_LIST, ServerFacts, ServerKey, read_model_list

LIMIT_S = 4.0
"""For one server, both questions together."""
MOST_BYTES = 1024 * 1024
AT_ONCE = 16
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Red Hat and its kin
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)


def system_ca_file() -> str:
    """The file with the CAs that this system trusts, which Envoy must be told; where there is none, the usual path."""
    known = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *BUNDLES)
    return next((path for path in known if path and os.path.isfile(path)), BUNDLES[0])


def look_at_servers(keys: Iterable[ServerKey]) -> Mapping[ServerKey, ServerFacts]:
    """What each of them says now, several asked at a time."""
    wanted = tuple(dict.fromkeys(keys))
    if not wanted:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(wanted))) as pool:
        return dict(zip(wanted, pool.map(_look, wanted), strict=True))


def _look(key: ServerKey) -> ServerFacts:
    url, ca_file = key
    try:
        trust = _trust(url, ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return ServerFacts(url=url, trouble="server_ca_file", detail=_short(error))
    ends = time.monotonic() + LIMIT_S
    with httpx.Client(base_url=url, verify=trust, trust_env=False, follow_redirects=False) as client:
        try:
            status, content = _get(client, MODEL_LIST, ends)
        except httpx.HTTPError as error:
            return ServerFacts(url=url, trouble=_trouble(error), detail=_short(error))
        try:
            health = _get(client, HEALTH, ends)[0]
        except httpx.HTTPError:
            health = None
    if status != 200:
        return ServerFacts(url=url, trouble="server_status", detail=f"GET {MODEL_LIST}: {status}", health_status=health)
    try:
        return ServerFacts(url=url, models=read_model_list(content), health_status=health)
    except ValueError as error:
        return ServerFacts(url=url, trouble="server_answer", detail=str(error), health_status=health)


def _trust(url: str, ca_file: str | None) -> ssl.SSLContext | bool:
    """Raises OSError, ValueError for a CA file that cannot be read."""
    if not url.startswith("https:"):
        return True
    return ssl.create_default_context(cafile=ca_file or system_ca_file())


def _get(client: httpx.Client, path: str, ends: float) -> tuple[int, bytes]:
    """Status and body. Raises httpx.HTTPError, also when the time is over in the middle of the body."""
    content = b""
    with client.stream("GET", path, timeout=max(0.1, ends - time.monotonic())) as answer:
        for piece in answer.iter_raw():
            content += piece
            if len(content) > MOST_BYTES or time.monotonic() > ends:
                raise httpx.ReadTimeout(f"{len(content)} bytes, and no end of it")
        return answer.status_code, content


def _trouble(error: httpx.HTTPError) -> str:
    """The code under which there are words for it."""
    text = str(error).lower()
    if isinstance(error, httpx.TimeoutException):
        return "server_timeout"
    if "certificate" in text:
        return "server_certificate"
    if "name or service" in text or "name resolution" in text or "no address" in text or "nodename" in text:
        return "server_name"
    if "refused" in text:
        return "server_refused"
    return "server_error"


def _short(error: Exception) -> str:
    return str(error)[:160] or type(error).__name__
