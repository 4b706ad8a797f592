"""The measuring programs for real: short runs, refusals, interruptions that leave nothing, torch where there is one.

A GPU was never at hand: the program for GPUs runs here with a fake torch, and with a real one on the CPU where
`GONOGO_TORCH_PYTHON` names a Python that has it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest

import gonogo
from gonogo.facts.measured import NO_TORCH
from gonogo.runners import measure_storage
from gonogo.runtimes import measure
from gonogo.runtimes.measure import Request, Tier, find_torch
from tests.shell.command_line import environment
from tests.shell.test_look_accelerators import alive

ACCELERATORS = Path(gonogo.__file__).parent / "runners" / "measure_accelerators.py"
FAKE_TORCH = Path(__file__).parent / "fake_torch"
MIB = 1024**2
QUICK_CHECK = """
import sys
from gonogo.cli.main import run
from gonogo.runtimes import measure
measure.SECONDS, measure.MOST_BYTES = float(sys.argv[1]), 256 * 1024**2
measure._cpu = lambda request, tell: (None, "left out")
sys.exit(run(["check", "--measure"]))
"""
Told = list[tuple[str, Mapping[str, object]]]


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(FAKE_TORCH), os.environ.get("PYTHONPATH", ""))))
    yield monkeypatch


def run(tmp_path: Path, **changes: Any) -> tuple[Any, Told]:
    told: Told = []
    fields: dict[str, Any] = {
        "threads": 2,
        "tiers": (),
        "accelerators": False,
        "python": None,
        "seconds": 0.05,
        "most_bytes": 64 * MIB,
    }
    seen = measure.measure(Request(**{**fields, **changes}), lambda part, values: told.append((part, values)))
    return seen, told


def test_processor_and_memory_are_measured_and_every_step_is_told(tmp_path: Path) -> None:
    seen, told = run(tmp_path)
    assert seen.cpu is not None and seen.cpu.threads == 2
    assert 1e9 < seen.cpu.flops_f32 < 1e14
    assert 1e8 < seen.cpu.copy_bytes_per_s < 1e13 and 1e8 < seen.cpu.add_bytes_per_s < 1e13
    assert seen.accelerators == () and seen.accelerators_problem is None
    assert [values["step"] for part, values in told if part == "cpu"] == ["begin", "matrix", "memory"]


def test_a_tier_is_measured_and_nothing_of_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "tier"
    folder.mkdir()
    seen, told = run(tmp_path, tiers=(Tier(name="hot", path=str(folder / "not/made/yet"), kind=None),))
    (tier,) = seen.storage
    assert tier.problem is None and (tier.tier, tier.path) == ("hot", str(folder))
    assert tier.file_bytes >= 64 * MIB and tier.cache in ("direct", "dropped", "in_memory")
    assert tier.sequential_bytes_per_s > 0 and tier.random_reads_per_s > 0 and 0 < tier.read_latency_s < 1
    assert list(folder.iterdir()) == []
    assert [values["step"] for part, values in told if part == "storage"] == ["begin", "write", "sequential", "random"]


def test_a_full_disk_is_not_filled_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    real = os.statvfs(tmp_path)
    free = 600 * MIB // real.f_frsize
    few = os.statvfs_result((*real[:3], free, free, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    assert measure_storage.main(["--path", str(tmp_path), "--seconds", "0.05"]) == 1
    problem = json.loads(capsys.readouterr().out.splitlines()[-1])["problem"]
    assert problem.startswith("too little space: ") and "640 MiB needed" in problem


def test_where_direct_reads_are_refused_the_cache_is_dropped_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = measure_storage.fcntl.fcntl

    def refuses(handle: int, what: int, value: int = 0) -> int:
        if what == measure_storage.fcntl.F_SETFL and value & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(handle, what, value)

    monkeypatch.setattr(measure_storage.fcntl, "fcntl", refuses)
    assert measure_storage.main(["--path", str(tmp_path), "--seconds", "0.05", "--bytes", str(64 * MIB)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["result"]["cache"] == "dropped"


def test_a_file_system_in_memory_is_called_so(tmp_path: Path, capsys: Any) -> None:
    words = ["--path", str(tmp_path), "--kind", "tmpfs", "--seconds", "0.05", "--bytes", str(64 * MIB)]
    assert measure_storage.main(words) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["result"]["cache"] == "in_memory"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_tier_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    seen, _ = run(tmp_path, tiers=(Tier(name="hot", path=str(tmp_path), kind=None),))
    assert "Permission denied" in seen.storage[0].problem


def test_gpus_are_measured_by_torch_and_so_are_the_links_between_them(tmp_path: Path, fake_torch: Any) -> None:
    seen, told = run(tmp_path, accelerators=True, python=sys.executable)
    assert (seen.torch_version, seen.torch_nccl_version) == ("9.9.9+fake", "2.21.5")
    assert [card.name for card in seen.accelerators] == ["NVIDIA H100 80GB HBM3"] * 2
    assert all(card.flops_fp16 and card.flops_bf16 and card.copy_bytes_per_s for card in seen.accelerators)
    assert [(link.first, link.second, link.direct) for link in seen.links] == [(0, 1, True), (1, 0, True)]
    steps = [values["step"] for part, values in told if part == "accelerators"]
    assert steps == ["begin", "device", "device", "links"]


def test_a_gpu_without_free_memory_is_a_problem_in_torchs_words_and_no_zero(tmp_path: Path, fake_torch: Any) -> None:
    fake_torch.setenv("FAKE_TORCH", "full")
    seen, _ = run(tmp_path, accelerators=True, python=sys.executable)
    well, full = seen.accelerators
    assert well.problem is None and well.flops_fp16
    assert (full.flops_fp16, full.copy_bytes_per_s) == (None, None)
    assert full.problem == "CUDA out of memory. Tried to allocate 128.00 MiB."


@pytest.mark.parametrize(
    ("kind", "words"), [("none", "torch 9.9.9+fake sees no GPU (built for CUDA 12.4)"), ("broken", "libcudart.so.12")]
)
def test_a_torch_that_is_of_no_use_says_why(tmp_path: Path, fake_torch: Any, kind: str, words: str) -> None:
    fake_torch.setenv("FAKE_TORCH", kind)
    seen, _ = run(tmp_path, accelerators=True, python=sys.executable)
    assert seen.accelerators is None and words in seen.accelerators_problem


def test_without_torch_gpus_are_not_measured_and_that_is_no_zero(tmp_path: Path) -> None:
    seen, _ = run(tmp_path, accelerators=True, python=None)
    assert (seen.accelerators, seen.accelerators_problem) == (None, NO_TORCH)


def test_a_python_with_torch_is_found_in_an_active_environment(tmp_path: Path, fake_torch: Any) -> None:
    assert find_torch(sys.executable) == sys.executable
    fake_torch.delenv("PYTHONPATH")
    fake_torch.setenv("PATH", str(tmp_path))
    fake_torch.delenv("VIRTUAL_ENV", raising=False)
    fake_torch.delenv("CONDA_PREFIX", raising=False)
    assert find_torch() is None or find_torch() == sys.executable
    active = tmp_path / "environment/bin"
    active.mkdir(parents=True)
    (active / "python").write_text(f'#!/bin/sh\nPYTHONPATH={FAKE_TORCH} exec {sys.executable} "$@"\n')
    (active / "python").chmod(0o755)
    fake_torch.setenv("VIRTUAL_ENV", str(active.parent))
    assert find_torch() in (sys.executable, str(active / "python"))
    assert find_torch(str(active / "python")) == str(active / "python")
    assert find_torch(str(tmp_path / "none")) is None


def test_a_program_that_falls_silent_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec /bin/sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(measure, "SILENCE_S", 0.3)
    monkeypatch.setattr(measure, "_cpu", lambda request, tell: (None, "left out"))
    began = time.monotonic()
    seen, _ = run(tmp_path, accelerators=True, python=str(hanging))
    assert time.monotonic() - began < 5.0
    assert "it said nothing for" in seen.accelerators_problem
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif("GONOGO_TORCH_PYTHON" not in os.environ, reason="GONOGO_TORCH_PYTHON names no Python with torch")
def test_the_same_measurements_run_with_a_real_torch_on_the_cpu(tmp_path: Path) -> None:
    seen, _ = run(tmp_path, accelerators=True, python=os.environ["GONOGO_TORCH_PYTHON"], device="cpu", seconds=0.2)
    assert seen.torch_version and not seen.torch_version.endswith("fake")
    for card in seen.accelerators:
        assert 1e9 < card.flops_fp16 < 1e14 and 1e9 < card.flops_bf16 < 1e14 and 1e9 < card.copy_bytes_per_s < 1e13
    assert len(seen.links) == 2


@pytest.mark.parametrize(
    ("signal_sent", "seconds", "gone_s"), [(signal.SIGINT, 10.0, 5.0), (signal.SIGKILL, 0.3, 20.0)]
)
def test_an_interrupted_measurement_leaves_nothing_behind(
    tmp_path: Path, signal_sent: signal.Signals, seconds: float, gone_s: float
) -> None:
    """Ctrl-C ends what measures, which would go on for 20 s; a command that is killed leaves it to its own end."""
    state = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", QUICK_CHECK, str(seconds)],
        env={**environment(state), "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "writing a file without a name" in line:
                break
        process.send_signal(signal_sent)
        process.stderr.read()
        code = process.wait(timeout=20)
    assert code == (130 if signal_sent is signal.SIGINT else -9)
    deadline = time.monotonic() + gone_s
    while running(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert running(str(tmp_path)) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def running(words: str) -> list[str]:
    """Measuring programs whose command line has these words."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if re.search(r"gonogo\.runners\.measure_", text) and words in text:
            found.append(text)
    return found
