"""The gateway benchmark itself, for one short round: real Envoys, real policy servers, with wrk and without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, search_path: str) -> dict[str, Any]:
    """One round without peers; nothing of it may be left, neither processes nor files."""
    done = subprocess.run(
        (sys.executable, "benchmarks/gateway.py", "--json", "--without-peers", "--rounds", "1", "--seconds", "1"),
        cwd=ROOT,
        env={**os.environ, "PATH": search_path, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    left = [one.pid for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or ())]
    assert left == []
    assert list(tmp_path.iterdir()) == []
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def expect_whole(content: dict[str, Any]) -> None:
    direct, ours, *peers = content["rows"]
    assert (direct["name"], ours["name"]) == ("direct", "ours")
    for each in (direct, ours):
        assert each["error"] is None
        assert each["p50_ms"] <= each["p99_ms"]
        assert each["requests_per_s"] > 0
        assert each["failed"] == 0, "each of them answers every request with 200"
    assert ours["p50_ms"] > direct["p50_ms"], "a gateway costs something"
    assert [(peer["name"], peer["error"]) for peer in peers] == [
        ("litellm", "left out by --without-peers"),
        ("sglang-router", "left out by --without-peers"),
        ("vllm-router", "left out by --without-peers"),
    ]
    # How fast is for a machine that does nothing else: here only that it was judged.
    assert [aim["measured"] is not None for aim in content["aims"]] == [True, True, True]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (apt-get install wrk)")
def test_the_benchmark_measures_direct_and_ours_with_wrk(tmp_path: Path) -> None:
    content = run(tmp_path, os.environ["PATH"])
    assert content["setting"]["load_generator"].startswith("wrk ")
    expect_whole(content)


def test_without_wrk_it_measures_with_a_client_of_its_own_and_says_so(tmp_path: Path) -> None:
    content = run(tmp_path, str(tmp_path / "nothing-here"))
    assert "wrk is not installed" in content["setting"]["load_generator"]
    expect_whole(content)
