"""Hosts: GPUs that are held, of another maker or slow; little shared memory, old tools, a slow disk, a free clock.

There is no GPU where this was written: what `nvidia-smi`, `rocm-smi` and torch say there is recorded or pretended, and
each drill says so. The rest of each is real.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Mapping

import pytest

from gonogo.security.certificates import ensure_certificates
from tests.drills.harness import FAULTS, Faults, assert_only, gonogo, python_path, spec_file

TESTS = Path(__file__).parents[1]
CASES = TESTS / "cases" / "facts"
DAY_S = 86400.0


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """A program in front of the others on the search path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def recorded_gpus(folder: Path, case: str) -> dict[str, str]:
    """nvidia-smi as a machine with these GPUs has it."""
    answers = f'"-q -x") cat {CASES}/accelerators/{case}.txt;; "topo -m") cat {CASES}/topology/two-5090.txt;;'
    return program(folder, "nvidia-smi", f'case "$*" in {answers} *) cat {CASES}/capabilities/two.txt;; esac')


def profile(folder: Path, wishes: Mapping[str, Any]) -> str:
    """A profile with these wishes and no others."""
    place = folder / "profile.yaml"
    place.write_text(json.dumps({"name": "drill", "description": {"en": "d", "zh": "d"}, **wishes}))
    return str(place)


def measuring_briefly(folder: Path, *packages: Path) -> dict[str, str]:
    """Each measurement is a real one, of a fifth of a second; with these folders of packages beside."""
    faults = Faults(folder / "faults.json")
    faults.touch(measure_s=0.2)
    return {"PYTHONPATH": python_path(*packages, FAULTS), "GONOGO_DRILL": str(faults.place)}


def test_accelerators_well(tmp_path: Path) -> None:
    """Advice: somebody holds 68 GiB of the only card. A driver that fails is unknown, and for a profile it blocks."""
    place = spec_file(tmp_path)
    result = gonogo(tmp_path / "state", "check", place, **recorded_gpus(tmp_path / "bin", "h100-held"))
    assert result.code == 0
    found = assert_only(result.json["answers"], "accelerators_well", "AcceleratorHeld", "accelerator/0/processes")
    assert found["values"]["holders"] == "VLLM::EngineCore (pid 415592) 69564 MiB"
    asked = recorded_gpus(tmp_path / "bin", "h100-reset-asked")
    result = gonogo(tmp_path / "state", "check", place, **asked)
    found = assert_only(result.json["answers"], "accelerators_well", "AcceleratorFault", "accelerator/0/driver")
    assert found["values"]["action"] == "Reset"
    broken = recorded_gpus(tmp_path / "bin", "driver-mismatch")
    result = gonogo(tmp_path / "state", "check", place, **broken)
    assert result.code == 0
    found = assert_only(result.json["answers"], "accelerators_well", "DriverTrouble", "accelerators/driver")
    assert found["verdict"] == "unknown" and "version mismatch" in found["values"]["words"]
    assert result.json["host"]["accelerators"] is None, "and never no GPU"
    wanted = profile(tmp_path, {"accelerators": {"count": 1}})
    result = gonogo(tmp_path / "state", "check", place, "--profile", wanted, **broken)
    assert result.code == 3
    assert_only(result.json["answers"], "accelerators_well", "DriverTrouble", "accelerators/driver")


def test_shared_memory(tmp_path: Path) -> None:
    """64 MiB of it in a mount namespace of its own, and what it does to a process that passes 100 MiB there."""
    script = 'mount -t tmpfs -o size=64m drill /dev/shm && exec "$@"'
    covered = ("unshare", *(() if os.getuid() == 0 else ("--map-root-user",)), "--mount", "sh", "-c", script, "sh")
    gpus = recorded_gpus(tmp_path / "bin", "two-h100")
    result = gonogo(tmp_path / "state", "check", spec_file(tmp_path), before=covered, **gpus)
    if "mount:" in result.err or "unshare:" in result.err:
        pytest.skip(f"nothing can be mounted here: {result.err.strip()}")
    found = assert_only(result.json["answers"], "shared_memory", "SharedMemorySmall")
    assert found["values"]["total_mib"] == 64
    uses = (
        "from multiprocessing.shared_memory import SharedMemory as S\n"
        "one = S(create=True, size=100 << 20)\n"
        "try: one.buf[:] = bytes(100 << 20)\n"
        "finally: one.close(); one.unlink()\n"
    )
    died = subprocess.run([*covered, sys.executable, "-c", uses], capture_output=True, timeout=60, check=False)
    assert died.returncode == -7, f"a bus error, and no word of why: {died.stderr.decode()[-300:]}"


def test_accelerators_as_asked(tmp_path: Path) -> None:
    """A profile asks for two NVIDIA cards; the machine has two of AMD's, by what rocm-smi prints."""
    folder = tmp_path / "bin"
    program(folder, "nvidia-smi", "echo 'No devices were found'; exit 6")
    environment = program(folder, "rocm-smi", f"cat {CASES}/amd/rocm-smi-mi300x.txt")
    wanted = profile(tmp_path, {"accelerators": {"count": 2}})
    words = ("check", spec_file(tmp_path), "--profile", wanted)
    result = gonogo(tmp_path / "state", *words, **environment)
    assert result.code == 3
    found = assert_only(
        result.json["answers"], "accelerators_as_asked", "AcceleratorsOfAnotherMaker", "accelerators/count"
    )
    assert found["values"]["others"] == "2 × AMD Instinct MI300X OAM (rocm-smi)"
    right = gonogo(tmp_path / "state", *words, **recorded_gpus(folder, "two-h100"))
    assert right.code == 0, "with the cards that were asked for it passes"


def test_storage_as_asked(tmp_path: Path) -> None:
    """The disk is measured for real; ten terabytes per second are more than it does, a megabyte per second is not."""
    tier = tmp_path / "tier"
    tier.mkdir()
    tiers = {name: {"path": str(tier), "sequential_mb_s": wish} for name, wish in (("hot", 9_999_999), ("warm", 1))}
    words = ("check", spec_file(tmp_path), "--profile", profile(tmp_path, {"storage": tiers}), "--measure")
    result = gonogo(tmp_path / "state", *words, **measuring_briefly(tmp_path))
    assert result.code == 3
    found = assert_only(result.json["answers"], "storage_as_asked", "TierTooSlow", "storage/hot")
    assert 1 < found["values"]["mb_s"] < 9_999_999
    warm = next(one for one in result.json["answers"] if one["subject"] == "storage/warm")
    assert warm["reason"] == "TierFastEnough"
    assert list(tier.iterdir()) == []


def test_versions_as_asked(tmp_path: Path) -> None:
    """Docker 20.10 before the installed one, as a machine has it that nobody updates: its `--gpus` knows no CDI."""
    old = '{"Client":{"Version":"20.10.7","ApiVersion":"1.41"},"Server":{"Version":"20.10.7","ApiVersion":"1.41"}}'
    environment = program(tmp_path / "bin", "docker", f"echo '{old}'")
    wanted = profile(tmp_path, {"software": {"docker": {"min": "24"}}})
    words = ("check", spec_file(tmp_path), "--profile", wanted)
    result = gonogo(tmp_path / "state", *words, **environment)
    assert result.code == 3
    found = assert_only(result.json["answers"], "versions_as_asked", "VersionNotAsAsked", "software/docker")
    assert found["values"]["seen"] == "20.10.7"
    program(tmp_path / "bin", "docker", f"echo '{old.replace('20.10.7', '28.2.2')}'")
    assert gonogo(tmp_path / "state", *words, **environment).code == 0


def test_measured_as_its_class(tmp_path: Path) -> None:
    """Advice. The program measures what a pretended torch computes, on cards that call themselves H100."""
    torch = measuring_briefly(tmp_path, TESTS / "shell" / "fake_torch")
    environment = {**recorded_gpus(tmp_path / "bin", "two-h100"), **torch}
    words = ("check", spec_file(tmp_path), "--measure", "--python", sys.executable)
    result = gonogo(tmp_path / "state", *words, **environment)
    assert result.code == 0
    found = assert_only(
        result.json["answers"], "measured_as_its_class", "MeasuredBelowItsClass", "accelerator/0/measured"
    )
    assert found["values"]["reached"] < found["values"]["percent"]
    assert found["values"]["tflops"] < 1 < found["values"]["class_tflops"]


def test_clock_kept(tmp_path: Path) -> None:
    """Advice, for a gateway that others reach. What a clock ten days ahead does: its certificate is not valid yet."""
    faults = Faults(tmp_path / "faults.json")
    environment = {"PYTHONPATH": f"{FAULTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment["GONOGO_DRILL"] = str(faults.place)
    place = spec_file(tmp_path, gateway={"port": 9, "address": "0.0.0.0"})
    with faults.broken(clock_kept=False):
        result = gonogo(tmp_path / "state", "check", place, **environment)
        assert_only(result.json["answers"], "clock_kept", "ClockNotKept")
    with faults.broken(clock_kept=True):
        answers = gonogo(tmp_path / "state", "check", place, **environment).json["answers"]
        assert next(one["reason"] for one in answers if one["check"] == "clock_kept") == "ClockKept"
    folder = tmp_path / "tls"
    folder.mkdir(mode=0o700)
    assert "not yet valid" in _dialled(folder, time.time() + 10 * DAY_S)
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    assert _dialled(folder, time.time()) == "TLSv1.3"


def _dialled(folder: Path, now: float) -> str:
    """What a client with the right time gets from a server whose certificate was made at `now`."""
    files = ensure_certificates(folder, ["127.0.0.1"], now)
    pair = folder / "pair.pem"
    pair.write_text(files.key_pem + files.chain_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair)
    client = ssl.create_default_context(cafile=str(files.ca_file))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve_once, args=(listener, server))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), timeout=5) as plain:
                return str(client.wrap_socket(plain, server_hostname="127.0.0.1").version())
        except ssl.SSLCertVerificationError as error:
            return str(error)
        finally:
            thread.join(timeout=5)


def _serve_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    plain, _ = listener.accept()
    with plain:
        try:
            context.wrap_socket(plain, server_side=True).close()
        except (ssl.SSLError, OSError):
            return
