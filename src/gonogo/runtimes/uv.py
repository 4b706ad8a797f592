"""Runs uv, which resolves, makes environments and installs: found as a package of ours or on the path, never fetched.

Its configuration files are not read; of its environment variables only those pass that say where packages are and who
is trusted. Bounded: every call has a time limit, its output goes to a file.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence

from gonogo.facts.parse_uv import UvFailure, parse_uv_failure

OVERRIDE = "GONOGO_UV"
LONGEST_SAID_BYTES = 262_144
POLL_S, PATIENCE_S = 0.5, 10.0
PASSED = (
    "HOME", "PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
    "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES", "UV_CONCURRENT_DOWNLOADS", "UV_KEYRING_PROVIDER",
    "NETRC", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip


class EnvironmentFault(Exception):
    """An environment could not be locked, made, carried or read: a reason code with words, and its values."""

    def __init__(self, reason: str, values: Mapping[str, object]) -> None:
        super().__init__(f"{reason} {dict(values)}")
        self.reason, self.values = reason, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """uv on this machine, with the cache that it shall use and the file that takes what it says."""

    binary: str
    cache: Path
    log: Path
    inherits: tuple[int, ...] = ()

    def run(self, words: Sequence[str], limit_s: float, meanwhile: Callable[[str], None] | None = None) -> str:
        """Run one command to its end; what it said. Raises EnvironmentFault when it fails or takes too long.

        `meanwhile` is told, every half second, what it has said so far.
        `inherits` are descriptors that it holds too: a lock outlives us in it. An interruption ends it before us.
        """
        command = (self.binary, *words, "--no-config", "--color", "never", "--no-progress", "--no-python-downloads")
        began_bytes = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.inherits,
            )
        try:
            ended = _wait(process, limit_s, lambda: meanwhile(self._said(began_bytes)) if meanwhile else None)
        except BaseException:
            _end(process)
            raise
        said = self._said(began_bytes)
        if not ended:
            raise EnvironmentFault("EnvironmentTooSlow", {"seconds": int(limit_s), "log": str(self.log)})
        if process.returncode:
            failure = _failure(process.returncode, said)
            raise EnvironmentFault(failure.reason, {**failure.values, "log": str(self.log)})
        return said

    def _environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in PASSED if name in os.environ}
        return {"UV_HTTP_TIMEOUT": "30", **passed, "UV_CACHE_DIR": str(self.cache), "LC_ALL": "C.UTF-8"}

    def _said(self, began_bytes: int) -> str:
        with self.log.open("rb") as file:
            end_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(began_bytes, end_bytes - LONGEST_SAID_BYTES))
            return file.read(LONGEST_SAID_BYTES).decode("utf-8", "replace")


def find_uv() -> str:
    """The path of uv: `GONOGO_UV`, the one of our own environment, or the one on the path. Raises EnvironmentFault."""
    override = os.environ.get(OVERRIDE)
    if override:
        return override
    beside = Path(sys.executable).with_name("uv")
    if beside.is_file():
        return str(beside)
    package = importlib.util.find_spec("uv")
    for place in list(package.submodule_search_locations or ()) if package is not None else []:
        inside = Path(place).parent / "bin" / "uv"
        if inside.is_file():
            return str(inside)
    found = shutil.which("uv")
    if found is None:
        raise EnvironmentFault("UvNotThere", {})
    return found


def _wait(process: subprocess.Popen[bytes], limit_s: float, meanwhile: Callable[[], None]) -> bool:
    """Whether it ended in time; one that did not is ended."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            process.wait(POLL_S)
            return True
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                _end(process)
                return False
            meanwhile()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failure(code: int, said: str) -> UvFailure:
    if code < 0:
        return UvFailure(reason="UvFailed", values={"words": signal.Signals(-code).name})
    return parse_uv_failure(said)
