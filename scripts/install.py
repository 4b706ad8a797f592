"""Makes `.venv` from a hash-pinned lock, and says what it is doing. Standard library only: it runs on a bare machine.

What it promises: an environment is whole or it is made again (a stamp is written last, of exactly what was installed);
two at once wait for one another (the lock is inherited by pip, so an orphaned pip holds it too); nothing outside the
clone is touched, pip's cache aside. What it is not: the choice of an interpreter and of platforms (`scripts/setup`).
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".gonogo"
LOG = WORK / "setup.log"
NEEDED_BYTES = 1_000_000_000
LONGEST_WAIT_S = 1800
GIB = 1024**3
WORLD, INTERRUPTED = 4, 130
# Settings that would send packages elsewhere, compile them, or hide pip's words from the log.
HOSTILE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_BINARY", "PIP_QUIET", "PIP_DRY_RUN")
SETTINGS = {"PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@dataclass(frozen=True)
class Kind:
    """One environment: where it lies, the lock that is installed, and the locks that are satisfied by it then."""

    venv: Path
    lock: str
    satisfies: tuple[str, ...]
    editable: bool


KINDS = {
    "run": Kind(ROOT / ".venv", "requirements.lock", ("requirements.lock",), True),
    "dev": Kind(ROOT / ".venv", "requirements-dev.lock", ("requirements.lock", "requirements-dev.lock"), True),
    "bench": Kind(ROOT / ".venv-bench", "requirements-bench.lock", ("requirements-bench.lock",), False),
}


class Failed(Exception):
    """Set-up could not be done: one line with what was seen and the command that mends it."""


class Progress:
    """One line that changes on a terminal; elsewhere a new line every five seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live = sys.stderr.isatty()
        self._said_at = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str, *, now: bool = False) -> None:
        line = f"  {text:<56} {self.elapsed_s:4.0f} s"
        if self._live:
            sys.stderr.write(f"\r\x1b[K{line}")
        elif now or time.monotonic() - self._said_at >= 5:
            sys.stderr.write(line + "\n")
            self._said_at = time.monotonic()
        sys.stderr.flush()

    def clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")


def main() -> int:
    """Exit code 0: whole. 4: the world did not comply. 130: interrupted. With `--only-look`, 1: not whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--only-look", action="store_true", help="exit 0 when the environment is whole, 1 otherwise")
    parser.add_argument("--replace-python", action="store_true", help="make it again if it has another Python version")
    arguments = parser.parse_args()
    kind = KINDS[arguments.kind]
    if is_whole(kind, any_python=not arguments.replace_python):
        return 0
    if arguments.only_look:
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        install(kind, any_python=not arguments.replace_python)
    except Failed as failure:
        print(f"gonogo set-up: {failure}", file=sys.stderr)
        return WORLD
    except KeyboardInterrupt:
        print(f"\ngonogo set-up: interrupted. {kind.venv.name} is unfinished and counts as not there: "
              "the next `make up` makes it again", file=sys.stderr)  # fmt: skip
        return INTERRUPTED
    except OSError as error:
        print(f"gonogo set-up: {_words_for(error)}", file=sys.stderr)
        return WORLD
    return 0


def is_whole(kind: Kind, *, any_python: bool) -> bool:
    """Whether the environment holds exactly what the locks name, at this path, for a Python that is still there."""
    stamp = _stamp(kind)
    if stamp is None or stamp.get("root") != str(ROOT) or not os.access(kind.venv / "bin" / "python", os.X_OK):
        return False
    if not any_python and stamp.get("python") != _this_python():
        return False
    locks = stamp.get("locks")
    return isinstance(locks, dict) and locks.get(kind.lock) == _digest(kind.lock) and stamp.get("project") == _project()


def install(kind: Kind, *, any_python: bool) -> None:
    """Make the environment whole. Raises Failed, OSError, KeyboardInterrupt; then it is not whole, and says so."""
    WORK.mkdir(exist_ok=True)
    progress = Progress()
    lock = _only_one(progress)
    if is_whole(kind, any_python=any_python):  # whoever we waited for made it
        progress.clear()
        return
    free_bytes = shutil.disk_usage(ROOT).free
    if free_bytes < NEEDED_BYTES and not kind.venv.exists():
        raise Failed(f"{ROOT} has {free_bytes / GIB:.1f} GiB free, set-up needs {NEEDED_BYTES / GIB:.1f} GiB. "
                     "Free some, or clone to another disk")  # fmt: skip
    LOG.write_text("")
    _make_venv(kind, lock, progress)
    packages = _install_lock(kind, lock, progress)
    if kind.editable:
        progress.say("gonogo itself", now=True)
        _pip(kind, ("--no-deps", "--no-build-isolation", "--editable", "."), lock)
        _name_sources_relatively(kind)
    _write_stamp(kind)
    progress.clear()
    print(f"set up in {progress.elapsed_s:.0f} s: {packages} packages, Python {sys.version.split()[0]}, "
          f"in {kind.venv.name}", file=sys.stderr)  # fmt: skip


def _make_venv(kind: Kind, lock: int, progress: Progress) -> None:
    """A new environment, unless a whole one of this Python is there and only its lock changed."""
    stamp = _stamp(kind)
    _stamp_file(kind).unlink(missing_ok=True)
    if stamp is not None and stamp.get("root") == str(ROOT) and stamp.get("python") == _this_python():
        return
    if kind.venv.is_symlink():
        raise Failed(f"{kind.venv} is a symbolic link. To mend it: rm {kind.venv.name}")
    progress.say(f"making {kind.venv.name} with Python {sys.version.split()[0]}", now=True)
    if kind.venv.exists():
        shutil.rmtree(kind.venv)
    with LOG.open("ab") as log:
        made = subprocess.run(
            (sys.executable, "-I", "-m", "venv", str(kind.venv)),
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,), check=False,
        )  # fmt: skip
    if made.returncode:
        raise _failure(f"Python {_this_python()} could not make a virtual environment")


def _install_lock(kind: Kind, lock: int, progress: Progress) -> int:
    """Install every package of the lock; how many there are."""
    named = len(re.findall(r"^[A-Za-z0-9][A-Za-z0-9._-]*==", (ROOT / kind.lock).read_text(), re.MULTILINE))
    began_bytes = LOG.stat().st_size
    process = _start_pip(kind, ("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", kind.lock), lock)
    wanted = named
    try:
        while process.poll() is None:
            said = LOG.read_text(errors="replace")[began_bytes:]
            wanted = named - len(re.findall(r"^Ignoring ", said, re.MULTILINE))
            progress.say(_step(kind, said, wanted))
            time.sleep(0.2)
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        progress.clear()
        raise _failure("pip could not install the packages")
    return wanted


def _step(kind: Kind, said: str, wanted: int) -> str:
    """What pip is doing, from its own words; while it unpacks it says nothing, so the unpacked ones are counted."""
    if "Installing collected packages" in said:
        done = sum(1 for _ in kind.venv.glob("lib/python*/site-packages/*.dist-info"))
        return f"unpacking packages: {min(done, wanted)} of {wanted}"
    if said.rstrip().rpartition("\n")[2].startswith("WARNING: Retrying"):
        return "the package index does not answer: trying again"
    seen = re.findall(r"^(?:Collecting ([^\s=]+)|Processing \S*/([^/\s-]+)|Requirement already satisfied: ([^\s=]+))",
                      said, re.MULTILINE)  # fmt: skip
    name = next(filter(None, seen[-1])) if seen else ""
    return f"fetching packages: {len(seen)} of {wanted} {name}"


def _start_pip(kind: Kind, words: tuple[str, ...], lock: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in HOSTILE} | SETTINGS
    with LOG.open("ab") as log:
        return subprocess.Popen(
            (str(kind.venv / "bin" / "python"), "-I", "-m", "pip", "install", *words),
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,),
        )  # fmt: skip


def _pip(kind: Kind, words: tuple[str, ...], lock: int) -> None:
    process = _start_pip(kind, words, lock)
    try:
        process.wait()
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        raise _failure("pip could not install gonogo itself")


def _name_sources_relatively(kind: Kind) -> None:
    """Python before 3.13 reads .pth files in the locale's encoding: under LC_ALL=C a clone in /home/zoë fails."""
    for file in kind.venv.glob("lib/python*/site-packages/*gonogo*.pth"):
        if file.read_text(encoding="utf-8").strip() == str(ROOT / "src"):
            file.write_text(os.path.relpath(ROOT / "src", file.parent) + "\n", encoding="utf-8")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# What pip says when something is wrong, and the one line that a user needs instead. The first that matches wins.
FAILURES = (
    (r"No space left on device|Errno 28", "the disk is full. See: df -h . \"${TMPDIR:-/tmp}\" ~/.cache"),
    (r"DO NOT MATCH THE HASHES", "the index served a package that is not the one that was locked (a broken mirror, "
     "or a stale cache: pip cache purge)"),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "the package index's certificate is not trusted here. Name your "
     "company's CA: export PIP_CERT=/path/to/ca.pem"),
    (r"ProxyError|Cannot connect to proxy", "the proxy does not answer. See: env | grep -i proxy"),
    (r"NewConnectionError|Temporary failure in name resolution|ConnectTimeoutError|Name or service not known|"
     r"ReadTimeoutError|Network is unreachable|Connection refused|Failed to establish a new connection",
     "the package index cannot be reached. See: pip config list (a mirror: export PIP_INDEX_URL=…); then run it again"),
    (r"Could not find a version that satisfies the requirement (?P<name>\S+) \(from versions: none\)",
     "the package index cannot be reached, or has no {name} for this Python and processor. See: pip config list "
     "(a mirror: export PIP_INDEX_URL=…); another Python: PYTHON=python3.12 make up"),
    (r"No matching distribution found for (?P<name>\S+)", "the package index has no {name}: a mirror that is behind? "
     "Name another: export PIP_INDEX_URL=…"),
    (r"Permission denied|Errno 13", "permission denied. See: ls -ld . .venv"),
)  # fmt: skip


def _failure(what: str) -> Failed:
    """The failure in the user's words, with pip's last lines and where all of them are."""
    said = LOG.read_text(errors="replace") if LOG.exists() else ""
    lines = [line[:200] for line in said.splitlines() if line.strip() and not line.startswith("Ignoring ")][-40:]
    last = "".join(f"\n    {line}" for line in lines[-3:])
    for pattern, words in FAILURES:
        found = re.search(pattern, "\n".join(lines))
        if found:
            line = words.replace("{name}", found.groupdict().get("name") or "")
            return Failed(f"{what}: {line}{last}\n    log: {LOG}")
    return Failed(f"{what}. Its last lines:{last}\n    log: {LOG}")


def _words_for(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or ROOT}). See: df -h ."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename} cannot be written ({error.strerror}). See: ls -ld {ROOT}"
    return f"{error.strerror or error} ({error.filename or ROOT})"


def _only_one(progress: Progress) -> int:
    """The descriptor of a lock that pip inherits: as long as either lives, no second set-up touches the clone."""
    lock = os.open(WORK / "setup.lock", os.O_RDWR | os.O_CREAT, 0o644)
    while progress.elapsed_s < LONGEST_WAIT_S:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("waiting for another set-up of this clone")
            time.sleep(0.2)
            continue
        return lock
    raise Failed(f"another set-up of {ROOT} has run for {LONGEST_WAIT_S} s. See: ps -ef | grep install.py")


def _stamp_file(kind: Kind) -> Path:
    return kind.venv / "gonogo-whole.json"


def _stamp(kind: Kind) -> dict[str, object] | None:
    try:
        stamp = json.loads(_stamp_file(kind).read_text())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def _write_stamp(kind: Kind) -> None:
    locks = {name: _digest(name) for name in kind.satisfies}
    stamp = {"root": str(ROOT), "python": _this_python(), "project": _project(), "locks": locks}
    unfinished = _stamp_file(kind).with_suffix(".new")
    with unfinished.open("w") as file:
        json.dump(stamp, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(_stamp_file(kind))


def _project() -> str:
    """Digest of what the installation of gonogo itself depends on: pyproject.toml before its tools, and the version."""
    text = (ROOT / "pyproject.toml").read_text().split("\n[tool.")[0] + (ROOT / "src/gonogo/__init__.py").read_text()
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def _this_python() -> str:
    return "{}.{}".format(*sys.version_info[:2])


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
