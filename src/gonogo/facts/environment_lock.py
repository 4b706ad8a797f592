"""The lock of one environment: every package with its hash, for one engine, Python and kind of machine. No host names.

It is a requirements file that pip and uv read, behind one line of JSON; its address is the SHA-256 of its text, so the
same packages have the same address wherever they are locked.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Mapping

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from gonogo.facts.environment import HostLimits, Package
from gonogo.facts.parse_programs import normalised

FIRST_LINE = "# gonogo-lock 1"
LARGEST_BYTES, MOST_PACKAGES = 4_000_000, 5_000
_PACKAGE = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)(?P<rest>(?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


class LockUnreadable(ValueError):
    """The text is no lock of ours. `words` says what is wrong with it: a kind, no sentence."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPackage:
    """One package: the hashes of the files that may be installed, and what the download weighs where that is known."""

    name: str
    version: str
    hashes: tuple[str, ...]
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What is installed, and for whom. `glibc` is the oldest C library that its wheels were chosen for.

    `overridden` are requirements that go against what the packages themselves ask for; `left_out` packages that they
    ask for and that are not installed.
    """

    engine: str
    package: str
    version: str
    python: str
    machine: str
    glibc: str
    packages: tuple[LockedPackage, ...]
    overridden: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ask: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Its address: 64 hexadecimal digits."""
        return hashlib.sha256(render_lock(self).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The name of the environment that is made from it."""
        return f"{self.engine}-{self.version}-{self.digest[:12]}"

    @property
    def download_bytes(self) -> int | None:
        """What all downloads weigh; None where that of one is not known."""
        sizes = [one.size_bytes for one in self.packages]
        return sum(size for size in sizes if size is not None) if None not in sizes else None

    def as_packages(self) -> tuple[Package, ...]:
        return tuple(Package(name=one.name, version=one.version, versions=f"=={one.version}") for one in self.packages)

    def misfits(self, host: HostLimits) -> tuple[str, str, str] | None:
        """What of this host the lock is not for: (what, wanted, here). None: it fits as far as it says."""
        if host.machine is not None and host.machine != self.machine:
            return "machine", self.machine, host.machine
        if host.glibc is not None and _numbers(host.glibc) < _numbers(self.glibc):
            return "glibc", f">={self.glibc}", host.glibc
        if self.python not in {one.minor for one in host.pythons}:
            return "python", self.python, ", ".join(sorted({one.minor for one in host.pythons}, key=_numbers)) or "-"
        return None


def render_lock(lock: Lock) -> str:
    """The text of a lock: the same lock gives the same text, byte for byte."""
    head = {
        "engine": lock.engine,
        "package": lock.package,
        "version": lock.version,
        "python": lock.python,
        "machine": lock.machine,
        "glibc": lock.glibc,
        "overridden": list(lock.overridden),
        "left_out": list(lock.left_out),
        "sizes": {one.name: one.size_bytes for one in lock.packages if one.size_bytes is not None},
    }
    lines = [FIRST_LINE, f"# {json.dumps(head, sort_keys=True)}"]
    for one in sorted(lock.packages, key=lambda package: package.name):
        hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(one.hashes))
        lines.append(f"{one.name}=={one.version} \\\n{hashes}")
    return "\n".join(lines) + "\n"


def parse_environment_lock(text: str, ask: str = "") -> Lock:
    """A lock from its text. Raises LockUnreadable: not ours, cut off, a package without a hash, or twice."""
    lines = text.split("\n", 2)
    if len(lines) < 3 or lines[0] != FIRST_LINE:
        raise LockUnreadable("first-line")
    try:
        head = json.loads(lines[1].removeprefix("# "))
        sizes: Mapping[str, int] = head["sizes"]
        packages = tuple(_packages(lines[2], sizes))
        lock = Lock(
            engine=_word(head["engine"]),
            package=_word(head["package"]),
            version=_word(head["version"]),
            python=_word(head["python"]),
            machine=_word(head["machine"]),
            glibc=_word(head["glibc"]),
            overridden=tuple(map(str, head["overridden"])),
            left_out=tuple(map(str, head["left_out"])),
            packages=packages,
            ask=ask,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise error if isinstance(error, LockUnreadable) else LockUnreadable("head") from None
    if lock.package not in {one.name for one in packages}:
        raise LockUnreadable("engine-not-in-it")
    if render_lock(lock) != text:
        raise LockUnreadable("changed-by-hand")
    return lock


def parse_compiled(text: str) -> tuple[LockedPackage, ...]:
    """The packages of a requirements file with hashes, as uv writes it. Raises LockUnreadable."""
    return tuple(_packages(text, {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenWheel:
    """One file that was chosen for this machine: its name, and what it weighs where the index says so."""

    file: str
    size_bytes: int | None

    @property
    def glibc(self) -> str | None:
        """The oldest C library that its name says it runs with; None: any."""
        tags = re.findall(r"manylinux_(\d+)_(\d+)_", self.file) + [("2", old) for old in _old_tags(self.file)]
        return "{}.{}".format(*min(tags, key=lambda pair: (int(pair[0]), int(pair[1])))) if tags else None

    def rank(self, tags: Mapping[Tag, int]) -> int | None:
        """How well it fits, 0 is best; None: it does not fit, or its name is no wheel's."""
        try:
            found = [tags[tag] for tag in parse_wheel_filename(self.file)[3] if tag in tags]
        except InvalidWheelFilename:
            return None
        return min(found, default=None)


def wheel_tags(python: str, machine: str, glibc: str) -> Mapping[Tag, int]:
    """The tags of wheels that a CPython runs on a Linux with this C library, best first."""
    major, minor = (int(part) for part in python.split(".")[:2])
    newest = _numbers(glibc)[1]
    named = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    platforms = []
    for libc in range(newest, 4, -1):
        platforms.append(f"manylinux_2_{libc}_{machine}")
        platforms += [f"{named[libc]}_{machine}"] if libc in named else []
    platforms.append(f"linux_{machine}")
    found = [*cpython_tags((major, minor), platforms=platforms), *compatible_tags((major, minor), platforms=platforms)]
    return {tag: place for place, tag in reversed(list(enumerate(found)))}


def parse_wheels(text: str) -> Mapping[str, ChosenWheel]:
    """From a `pylock.toml`: the files by their hash. What it does not say is not there."""
    pattern = r"/([^/\"]+\.whl)\"([^{}]*), hashes = \{ sha256 = \"([0-9a-f]{64})\" \}"
    found = {}
    for named, between, digest in re.findall(pattern, text):
        file = named.replace("%2B", "+").replace("%2b", "+")
        size = re.search(r"size = (\d{1,12})", between)
        found[digest] = ChosenWheel(file=file, size_bytes=int(size.group(1)) if size else None)
    return found


def _old_tags(file: str) -> list[str]:
    old = {"manylinux1_": "5", "manylinux2010_": "12", "manylinux2014_": "17"}
    return [minor for tag, minor in old.items() if tag in file]


def _packages(text: str, sizes: Mapping[str, int]) -> list[LockedPackage]:
    found = []
    for one in list(_PACKAGE.finditer(text))[:MOST_PACKAGES]:
        name = normalised(one["name"])
        hashes = tuple(_HASH.findall(one["rest"]))
        if not hashes:
            raise LockUnreadable(f"no-hash:{name}")
        found.append(LockedPackage(name=name, version=one["version"], hashes=hashes, size_bytes=sizes.get(name)))
    if len({one.name for one in found}) != len(found) or not found:
        raise LockUnreadable("packages")
    return found


def _word(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,80}", value):
        raise LockUnreadable("head")
    return value


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
