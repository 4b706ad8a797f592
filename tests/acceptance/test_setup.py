"""Set-up from nothing, for real: what it refuses, and one environment made, interrupted, killed and doubled."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("Makefile", "README.md", "pyproject.toml", "requirements.lock", "requirements-dev.lock", "scripts", "src")
TOOLS = ("dirname", "cat", "sh")
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh copy of the project in a directory with spaces and letters that are not ASCII."""
    target = tmp_path / "my cløne 克隆"
    target.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


class Machine:
    """A PATH that holds only what a test puts there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        for tool in TOOLS:
            (directory / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        self.say("uname", 'case "$1" in -s) echo Linux;; -r) echo 6.1.0;; -m) echo x86_64;; esac')
        self.say("getconf", "echo glibc 2.36")

    def say(self, tool: str, script: str) -> None:
        path = self.directory / tool
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def setup(self, clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("/bin/sh", "scripts/setup"), cwd=clone, env={"PATH": str(self.directory), **environment},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "bin")


@pytest.mark.parametrize(
    ("kernel", "release", "processor", "named", "mends"),
    [
        ("Darwin", "23.1.0", "arm64", "macOS", "Linux machine"),
        ("MINGW64_NT-10.0", "3.4", "x86_64", "Windows", "wsl --install"),
        ("Linux", "4.4.0-19041-Microsoft", "x86_64", "WSL1", "wsl --set-version"),
        ("FreeBSD", "14.0", "amd64", "FreeBSD", "Linux"),
        ("Linux", "6.1.0", "i686", "i686", "x86-64 and aarch64"),
        ("Linux", "6.1.0", "armv7l", "armv7l", "x86-64 and aarch64"),
    ],
)
def test_another_platform_is_refused_by_name(
    clone: Path, machine: Machine, kernel: str, release: str, processor: str, named: str, mends: str
) -> None:
    machine.say("uname", f'case "$1" in -s) echo {kernel};; -r) echo {release};; -m) echo {processor};; esac')

    seen = machine.setup(clone)

    assert seen.returncode == 2
    assert named in seen.stderr
    assert mends in seen.stderr
    assert seen.stderr.count("\n") == 1
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("getconf", "named"),
    [("exit 1", "musl"), ("echo glibc 2.28", "glibc 2.28 is too old"), ("echo glibc 1.99", "glibc 1.99 is too old")],
)
def test_a_c_library_that_cannot_run_the_parts_is_refused(
    clone: Path, machine: Machine, getconf: str, named: str
) -> None:
    machine.say("getconf", getconf)

    seen = machine.setup(clone)

    assert seen.returncode == 2
    assert named in seen.stderr
    assert "2.31" in seen.stderr


@pytest.mark.parametrize(
    ("pythons", "named", "mends"),
    [
        ({}, "no Python was found", "sudo apt-get install python3 python3-venv"),
        ({"python3": "exit 127"}, "no Python was found", "sudo apt-get install python3 python3-venv"),
        ({"python3": "echo 3.8 too-old"}, "python3 is Python 3.8", "PYTHON="),
        ({"python3": "echo 3.10 no-venv"}, "without venv", "sudo apt-get install python3.10-venv"),
        ({"python3.13": "echo 3.13 no-venv", "python3": "echo 3.12 no-venv"}, "3.12", "python3.12-venv"),
        ({"python3": "echo 3.11 32-bit"}, "32-bit", "PYTHON="),
        ({"python3": "echo 3.15 too-new"}, "3.15", "PYTHON="),
        ({"python3": "echo 3.10 not-cpython"}, "not CPython", "PYTHON="),
    ],
)
def test_a_missing_python_or_venv_is_one_line_with_the_command_that_mends_it(
    clone: Path, machine: Machine, pythons: dict[str, str], named: str, mends: str
) -> None:
    machine.say("apt-get", "exit 1")
    for name, script in pythons.items():
        machine.say(name, script)

    seen = machine.setup(clone)

    assert seen.returncode == 2
    assert named in seen.stderr
    assert mends in seen.stderr
    assert seen.stderr.count("\n") == 1


def test_the_newest_python_that_has_venv_is_taken(clone: Path, machine: Machine) -> None:
    machine.say("python3.13", "echo 3.13 no-venv")
    machine.say("python3.12", 'case "$*" in *install.py*) echo "took 3.12: $*";; *) echo 3.12 ok;; esac')
    machine.say("python3.11", "echo 3.11 ok")

    assert machine.setup(clone).stdout == "took 3.12: -I scripts/install.py run\n"


def test_python_named_by_the_user_is_the_one_that_is_judged(clone: Path, machine: Machine) -> None:
    machine.say("python3.12", "echo 3.12 ok")
    machine.say("mine", "echo 3.9 too-old")

    seen = machine.setup(clone, PYTHON="mine")
    missing = machine.setup(clone, PYTHON="nowhere")

    assert (seen.returncode, missing.returncode) == (2, 2)
    assert "mine is Python 3.9" in seen.stderr
    assert "PYTHON=nowhere does not run" in missing.stderr


def test_an_index_that_cannot_be_reached_is_one_line_and_leaves_nothing_that_counts(clone: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}

    seen = subprocess.run(
        ("sh", "scripts/setup"), cwd=clone, env={**environment, "PYTHON": BASE_PYTHON},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert seen.returncode == 4
    assert "the package index cannot be reached" in seen.stderr
    assert "setup.log" in seen.stderr
    assert "Traceback" not in seen.stderr
    assert not whole(clone)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(clone: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)), capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let tests mount a file system")
    try:
        there = shutil.copytree(clone, small / "clone")
        seen = subprocess.run(
            ("sh", "scripts/setup"), cwd=there, env={**os.environ, "PYTHON": BASE_PYTHON},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert seen.returncode == 4
        assert "0.0 GiB free, set-up needs 0.9 GiB" in seen.stderr
        assert not (there / ".venv").exists()
    finally:
        subprocess.run(("umount", str(small)), check=True)


@pytest.fixture
def start(clone: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts set-ups of the clone, each in a process group of its own; whatever is left of them ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def one(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ("sh", "scripts/setup", kind), cwd=clone, env={**os.environ, "PYTHON": BASE_PYTHON},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield one
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_an_environment_is_whole_or_not_there_whatever_happens_while_it_is_made(
    clone: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    """Ctrl-C, then kill -9 that orphans pip, then two at once: one sequence, because each set-up takes a while."""
    first = start("run")
    wait_for_pip(clone)
    os.killpg(first.pid, signal.SIGINT)
    said = first.communicate(timeout=30)[0]
    assert first.returncode == 130
    assert "interrupted" in said
    assert not whole(clone)

    second = start("run")
    pip = wait_for_pip(clone)
    second.kill()
    second.wait()
    assert not whole(clone)

    third, fourth = start("run"), start("run")
    time.sleep(1)
    assert third.poll() is None and fourth.poll() is None, "a set-up went on beside an orphaned pip"
    assert Path(f"/proc/{pip}").exists()
    os.kill(pip, signal.SIGKILL)
    words = [each.communicate(timeout=240)[0] for each in (third, fourth)]
    assert (third.returncode, fourth.returncode) == (0, 0), words
    assert sum("set up in" in each for each in words) == 1, "both made it"
    assert any("waiting for another set-up" in each for each in words)
    assert any(re.search(r"\d+ of \d+", each) for each in words), "no progress was shown"
    assert whole(clone)
    assert installed(clone) == locked(clone)
    for locale in ("C", "C.UTF-8"):
        environment = {**os.environ, "LC_ALL": locale}
        entry = subprocess.run(
            (str(clone / ".venv/bin/gonogo"), "--help"), env=environment, capture_output=True, check=False
        )
        assert entry.returncode == 0, entry.stderr

    began = time.monotonic()
    again = subprocess.run(("sh", "scripts/setup"), cwd=clone, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert time.monotonic() - began < 1

    lock = clone / "requirements.lock"
    lock.write_text(lock.read_text() + "# another\n")
    assert not whole(clone), "a changed lock went unnoticed"
    lock.write_text(lock.read_text().removesuffix("# another\n"))
    assert whole(clone)
    moved = clone.rename(clone.with_name("moved"))
    assert not whole(moved), "an environment knows its own path: a moved one does not work"


def test_make_without_a_word_lists_the_words() -> None:
    seen = subprocess.run(("make", "-C", str(ROOT), "--no-print-directory"), capture_output=True, text=True, check=True)

    for word in ("up", "test", "lint", "bench", "docs", "down"):
        assert f"make {word} " in seen.stdout


def whole(clone: Path) -> bool:
    """What the next `make up` would think."""
    look = (BASE_PYTHON, "-I", "scripts/install.py", "run", "--only-look")
    return subprocess.run(look, cwd=clone, check=False).returncode == 0


def wait_for_pip(clone: Path) -> int:
    """The pid of the pip that works in the clone's environment, once it has fetched something."""
    log = clone / ".gonogo" / "setup.log"
    python = str(clone / ".venv/bin/python")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            if words[:1] == [python] and "pip" in words and "Collecting" in log.read_text(errors="replace"):
                return int(entry.parent.name)
        time.sleep(0.05)
    raise AssertionError(f"pip did not start within 60 s: {log.read_text() if log.exists() else 'no log'}")


def installed(clone: Path) -> dict[str, str]:
    """Name → version of everything in the environment but pip's own and gonogo."""
    look = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    seen = subprocess.run((str(clone / ".venv/bin/python"), "-I", "-c", look), capture_output=True, check=True)
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in json.loads(seen.stdout).items()}
    return {name: version for name, version in found.items() if name not in ("pip", "setuptools", "gonogo")}


def locked(clone: Path) -> dict[str, str]:
    """Name → version of what the lock names for this Python and machine."""
    markers = "from packaging.requirements import Requirement as R; import json, sys"
    look = (
        f"{markers}; print(json.dumps([(r.name, str(r.specifier)[2:]) for r in map(R, sys.stdin.read().splitlines()) "
    )
    look += "if not r.marker or r.marker.evaluate()]))"
    named = re.findall(r"^[A-Za-z0-9][^\\\n]*", (clone / "requirements.lock").read_text(), re.MULTILINE)
    seen = subprocess.run(
        (str(clone / ".venv/bin/python"), "-I", "-c", look),
        input="\n".join(line.strip() for line in named), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in json.loads(seen.stdout)}
