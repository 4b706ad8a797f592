"""How control sees this host and its own state directory: with caches, so that a look stays cheap."""

from __future__ import annotations

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Callable, Iterable, Mapping

import gonogo
from gonogo.facts.gateway import CertificateFacts, StateFacts
from gonogo.facts.host import HostFacts, Installed, Tools
from gonogo.runtimes.look import (
    AcceleratorsSeen,
    listening_by_pid,
    look_at_accelerators,
    look_at_host,
    look_at_installed,
    look_at_tools,
)
from gonogo.runtimes.paths import StatePaths
from gonogo.security.certificates import read_certificate
from gonogo.security.verify import verify_chain
from gonogo.spec import Gateway

HOST_EVERY_S = 2.0
INSTALLED_EVERY_S = 300.0
CHAIN_EVERY_S = 20.0
CERTIFICATE_EVERY_S = 2.0
FREE_PORTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """What takes a process each to see: programs, packages, accelerators."""

    installed: tuple[Installed, ...]
    accelerators: AcceleratorsSeen
    tools: Tools

    @classmethod
    def look(cls) -> Slow:
        """All of it at the same time, so that it lasts as long as the slowest: 20 s where everything hangs."""
        with ThreadPoolExecutor(3) as pool:
            installed = pool.submit(look_at_installed, lock_text())
            accelerators, tools = pool.submit(look_at_accelerators), pool.submit(look_at_tools)
            return cls(installed=installed.result(), accelerators=accelerators.result(), tools=tools.result())


class HostSight:
    """This host. Numbers are at most 2 s old, installed versions and accelerators 5 minutes and one look; accelerators
    are looked at again when processes of ours came or went: what those held of the cards is free, or held now.

    Only the first look waits for what is slow; later ones go on with what is known while a thread looks again, so a
    driver that hangs costs control nothing.
    """

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths
        self._host: HostFacts | None = None
        self._looked_at = 0.0
        self._ports: frozenset[int] = frozenset()
        self._slow: Slow | None = None
        self._slow_at = 0.0
        self._slow_pids: frozenset[int] = frozenset()
        self._looking: Thread | None = None
        self._clock_offset_s = time.time() - time.monotonic()

    def look(self, wanted_ports: frozenset[int], own_pids: Iterable[int]) -> HostFacts:
        """The host's facts. `listening` leaves out our own processes: it is there to find others."""
        now = time.monotonic()
        if self._host is None or self._ports != wanted_ports or now - self._looked_at > HOST_EVERY_S:
            self._host = look_at_host((str(self._paths.root),), tuple(sorted(wanted_ports)), FREE_PORTS)
            self._looked_at, self._ports = now, wanted_ports
        own = frozenset(own_pids)
        slow = self._slow_facts(now, own)
        others = self._host.listening
        if others is not None:
            others = tuple(holder for holder in others if holder.pid not in own)
        return replace(
            self._host,
            listening=others,
            installed=slow.installed,
            accelerators=slow.accelerators.accelerators,
            driver=slow.accelerators.driver,
            accelerator_links=slow.accelerators.links,
            others=slow.accelerators.others,
            tools=slow.tools,
            clock_jump_s=time.time() - time.monotonic() - self._clock_offset_s,
        )

    def _slow_facts(self, now: float, own: frozenset[int]) -> Slow:
        if self._slow is None:
            self._slow, self._slow_at, self._slow_pids = Slow.look(), now, own
        elif self._looking is None or not self._looking.is_alive():
            if now - self._slow_at > INSTALLED_EVERY_S:
                self._slow_at = now
                self._in_background(Slow.look, own)
            elif own != self._slow_pids and self._slow.accelerators.accelerators:
                seen = self._slow
                self._in_background(lambda: replace(seen, accelerators=look_at_accelerators()), own)
        return self._slow

    def _in_background(self, look: Callable[[], Slow], own: frozenset[int]) -> None:
        def keep() -> None:
            self._slow = look()

        self._slow_pids = own
        self._looking = Thread(target=keep, name="slow facts", daemon=True)
        self._looking.start()

    def listens_on(self, pid: int) -> tuple[str, ...] | None:
        """The addresses that a process of ours accepts TCP connections on; None when it cannot be seen."""
        return listening_by_pid((pid,)).get(pid)


def lock_text() -> str | None:
    """The lock that this environment was made from; None where gonogo was installed otherwise."""
    try:
        return (Path(gonogo.__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")
    except OSError:
        return None


class CertificateSight:
    """The certificate that the gateway presents, or was given to present; read again each 2 s."""

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths
        self._seen: tuple[tuple[Gateway, ...], float, CertificateFacts] | None = None

    def look(self, gateways: tuple[Gateway, ...]) -> CertificateFacts | None:
        """None: our own authority has made none yet (asked again each time: it is about to be made)."""
        now = time.time()
        if self._seen is not None and self._seen[0] == gateways and 0 <= now - self._seen[1] < CERTIFICATE_EVERY_S:
            return self._seen[2]
        found = read_certificate(self._paths.tls, names_for(gateways), now, given_pair(gateways))
        self._seen = None if found is None else (gateways, now, found)
        return found


def names_for(gateways: Iterable[Gateway]) -> list[str]:
    """Every name and address under which clients dial these gateways."""
    return sorted({name for gateway in gateways for name in (*gateway.hostnames, gateway.address)})


def given_pair(gateways: Iterable[Gateway]) -> tuple[Path, Path] | None:
    """The user's own certificate and key; None: ours are made. The first service that brings some decides."""
    for gateway in gateways:
        if gateway.certificate_file and gateway.key_file:
            return Path(gateway.certificate_file), Path(gateway.key_file)
    return None


class StateSight:
    """The state directory: private? writable? is the event chain whole? The chain is verified each 20 s."""

    def __init__(self, paths: StatePaths) -> None:
        self._paths = paths
        self._facts: StateFacts | None = None
        self._at = 0.0

    def look(self) -> StateFacts:
        now = time.monotonic()
        if self._facts is None or now - self._at > CHAIN_EVERY_S:
            self._facts, self._at = state_facts(self._paths), now
        return self._facts

    def forget(self) -> None:
        """Look anew at the next question."""
        self._facts = None


def given_certificates(paths: StatePaths, gateways: Iterable[Gateway]) -> Mapping[str, CertificateFacts]:
    """The certificates that users gave, by the certificate's path: as the files are now, judged for these names."""
    found: dict[str, CertificateFacts] = {}
    for gateway in gateways:
        if gateway.certificate_file is None or gateway.key_file is None:
            continue
        files = (Path(gateway.certificate_file), Path(gateway.key_file))
        facts = read_certificate(paths.tls, (*gateway.hostnames, gateway.address), time.time(), files)
        if facts is not None:
            found[gateway.certificate_file] = facts
    return found


def state_facts(paths: StatePaths) -> StateFacts:
    """One look at the state directory (which need not exist yet)."""
    root = paths.root
    writable, error = _writable(root)
    exposed = tuple(_exposed(root)) if root.exists() else ()
    length = broken_at = None
    if paths.database.exists():
        chain = verify_chain(str(paths.database))
        length, broken_at = chain.length, chain.broken_at
    return StateFacts(
        path=str(root),
        owner_only=not exposed,
        exposed_paths=exposed,
        writable=writable,
        write_error=error,
        chain_length=length,
        chain_broken_at=broken_at,
    )


def _writable(root: Path) -> tuple[bool, str | None]:
    """Whether files can be made there, or the directory itself can (nothing is left behind)."""
    place = root
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return False, f"{place} is not a directory"
    if not os.access(place, os.W_OK | os.X_OK):
        return False, f"no permission to write in {place}"
    if place == root:
        trial = root / ".write-trial"
        try:
            trial.write_bytes(b"x" * 4096)
        except OSError as problem:
            return False, f"{problem.strerror} ({trial})"
        finally:
            trial.unlink(missing_ok=True)
    return True, None


def _exposed(root: Path) -> Iterable[str]:
    """What in the state directory others could read: the directory must be closed, then nothing below it can be."""
    mode = os.stat(root).st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"{root} ({stat.filemode(mode)})"
    for name in ("gonogo.db", "tls/ca.key", "tls/server.pem", "gateway/snapshot.bin"):
        path = root / name
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"{path} ({stat.filemode(path.stat().st_mode)})"
