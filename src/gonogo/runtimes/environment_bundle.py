"""Carries an environment to a machine without an index: its lock and every wheel of it, in one tar file.

Wheels are fetched with pip, which keeps their files; uv keeps them unpacked. Nothing in a bundle is trusted when it is
read: names are checked, sizes bounded, and uv compares every wheel with the hash that the lock has.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator, Union

from gonogo.facts.environment import PythonAtHand
from gonogo.facts.environment_lock import LARGEST_BYTES, Lock, render_lock
from gonogo.facts.parse_programs import last_words
from gonogo.facts.parse_uv import without_secrets
from gonogo.runtimes.environments import fault_of
from gonogo.runtimes.package_sources import PackageSources
from gonogo.runtimes.uv import EnvironmentFault

LOCK_NAME, WHEELS = "environment.lock", "wheels"
LONGEST_FETCH_S = 5400.0
LARGEST_WHEEL_BYTES, MOST_WHEELS = 8_000_000_000, 5_000
PIECE_BYTES = 1 << 20
Meanwhile = Union[Callable[[], None], None]
_WHEEL = re.compile(r"wheels/[A-Za-z0-9][\w.+!-]{0,250}\.whl")


def write_bundle(
    lock: Lock, python: PythonAtHand, sources: PackageSources, output: Path, meanwhile: Meanwhile = None
) -> int:
    """Fetch every wheel of a lock and put them into `output` with it; how many. Raises EnvironmentFault.

    The file is there whole or not at all.
    """
    with tempfile.TemporaryDirectory(
        prefix="gonogo-bundle-", dir=output.parent if output.parent.is_dir() else None
    ) as place:
        wheels = Path(place) / WHEELS
        requirements = Path(place) / LOCK_NAME
        requirements.write_text(render_lock(lock), encoding="utf-8")
        _fetch(requirements, wheels, python, sources, meanwhile)
        found = sorted(wheels.glob("*.whl"))
        _compare(lock, found)
        unfinished = Path(place) / "bundle.tar"
        try:
            with tarfile.open(unfinished, "w") as tar:
                tar.add(requirements, LOCK_NAME, filter=_plain)
                for wheel in found:
                    tar.add(wheel, f"{WHEELS}/{wheel.name}", filter=_plain)
            os.replace(unfinished, output)
        except OSError as error:
            raise fault_of(error, output) from None
    return len(found)


def open_bundle(bundle: Path, folder: Path) -> tuple[Path, Path]:
    """Unpack a bundle into a folder: its lock, and the folder of its wheels. Raises EnvironmentFault."""
    wheels = folder / WHEELS
    wheels.mkdir()
    try:
        with tarfile.open(bundle, "r:") as tar:
            for member in _members(tar):
                source = tar.extractfile(member)
                if source is None:
                    raise EnvironmentFault("BundleUnreadable", {"path": str(bundle), "words": member.name[:100]})
                with (folder / member.name).open("wb") as target:
                    while piece := source.read(PIECE_BYTES):
                        target.write(piece)
    except (tarfile.TarError, EOFError) as error:
        raise EnvironmentFault("BundleUnreadable", {"path": str(bundle), "words": str(error)}) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) or bundle.is_dir():
            raise EnvironmentFault("BundleUnreadable", {"path": str(bundle), "words": error.strerror}) from None
        raise fault_of(error, folder) from None
    if not (folder / LOCK_NAME).is_file():
        raise EnvironmentFault("BundleUnreadable", {"path": str(bundle), "words": LOCK_NAME})
    return folder / LOCK_NAME, wheels


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The lock and wheels directly in their folder; any other name, or anything but a plain file, is refused."""
    for count, member in enumerate(tar):
        named = member.name == LOCK_NAME and member.size <= LARGEST_BYTES
        named = named or bool(_WHEEL.fullmatch(member.name) and member.size <= LARGEST_WHEEL_BYTES)
        if count >= MOST_WHEELS or not member.isfile() or not named:
            raise EnvironmentFault("BundleUnreadable", {"path": str(tar.name), "words": member.name[:100]})
        yield member


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of this machine goes along: no user, no time."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o644
    return member


def _fetch(
    requirements: Path,
    wheels: Path,
    python: PythonAtHand,
    sources: PackageSources,
    meanwhile: Callable[[], None] | None,
) -> None:
    command = (
        sys.executable, "-I", "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:",
        "--requirement", str(requirements), "--dest", str(wheels), "--python-version", python.minor,
        "--progress-bar", "off", "--no-input", "--disable-pip-version-check", *sources.pip_words(),
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") or name == "PIP_CERT"}
    output = io.BytesIO()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd="/", env=kept, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        deadline = time.monotonic() + LONGEST_FETCH_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
                if meanwhile is not None:
                    meanwhile()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        output.write(said.read(1 << 20))
    if process.returncode:
        text = output.getvalue().decode("utf-8", "replace")
        raise _fault(text)


def _fault(text: str) -> EnvironmentFault:
    words = {"words": without_secrets(last_words(text)), "log": "-"}
    if "DO NOT MATCH THE HASHES" in text:
        return EnvironmentFault("WheelHashWrong", words)
    if "No space left on device" in text:
        return EnvironmentFault("DiskFull", words)
    if "No module named pip" in text:
        return EnvironmentFault("PipNotThere", words)
    if re.search(r"No matching distribution found for (\S+)", text):
        return EnvironmentFault("VersionNotThere", words)
    if re.search(r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|NameResolution|Connection refused", text):
        return EnvironmentFault("IndexUnreachable", words)
    return EnvironmentFault("UvFailed", words)


def _compare(lock: Lock, wheels: list[Path]) -> None:
    """Every package of the lock is there once, with a hash that the lock has. Raises EnvironmentFault."""
    wanted = {digest: one.name for one in lock.packages for digest in one.hashes}
    found = {wanted.get(_digest(wheel), "") for wheel in wheels}
    missing = sorted({one.name for one in lock.packages} - found)
    if missing or "" in found:
        raise EnvironmentFault("WheelHashWrong", {"package": ", ".join(missing[:5]), "words": "-", "log": "-"})


def _digest(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            hashed.update(piece)
    return hashed.hexdigest()
