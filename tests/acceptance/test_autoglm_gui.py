"""AutoGLM-GUI, as its users install it, started by the line that `gonogo clients` prints: only with GONOGO_LONG=1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from gonogo.runtimes.uv import find_uv
from gonogo.spec.recipe_parts import Program
from gonogo.words.client_lines import Access
from tests.acceptance.phone_parts import PhoneModel, behind_the_gateway, line_of
from tests.free_ports import free_port

pytestmark = pytest.mark.skipif(
    os.environ.get("GONOGO_LONG") != "1", reason="installs AutoGLM-GUI from the package index (200 MB): GONOGO_LONG=1"
)
VERSION = "1.5.21"
NO_INDEX = ("error sending request", "dns error", "Could not connect", "Failed to fetch")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `autoglm-gui`."""
    folder = tmp_path_factory.mktemp("gui") / "venv"
    uv = str(find_uv())
    subprocess.run([uv, "venv", "--quiet", "--offline", str(folder)], check=True)
    words = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), f"autoglm-gui=={VERSION}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode and any(words in done.stderr for words in NO_INDEX):
        pytest.skip(f"the package index is not reachable: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_the_printed_line_starts_it_and_it_finds_the_model_through_the_gateway(programs: Path, tmp_path: Path) -> None:
    async def story(model: PhoneModel, access: Access) -> None:
        port = free_port()
        line = f"{line_of(access, Program.AUTOGLM_GUI)} --no-browser --no-log-file --port {port}"
        surroundings = {"PATH": f"{programs}:{os.defpath}", "HOME": str(tmp_path)}
        started = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            line,
            env=surroundings,
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as gui:
                config = await answered(gui)
                assert (config["base_url"], config["model_name"]) == (access.endpoint, "svc")
                assert config["api_key"] == access.key, "the variable is read beside the options"
                asked = {name: config[name] for name in ("base_url", "model_name", "api_key")}
                told = (await gui.post("/api/config/model-connection-check", json=asked)).json()
                assert told["success"] is True, told
                wrong = {**asked, "base_url": access.endpoint.removesuffix("/v1")}
                told = (await gui.post("/api/config/model-connection-check", json=wrong)).json()
                assert told["success"] is False and "There is no POST /chat/completions" in json.dumps(told), told
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            await started.wait()

    behind_the_gateway(tmp_path, story)


async def answered(gui: httpx.AsyncClient) -> Any:
    """Its configuration, as soon as it answers."""
    for _ in range(300):
        with contextlib.suppress(httpx.TransportError):
            return (await gui.get("/api/config")).json()
        await asyncio.sleep(0.1)
    raise AssertionError("AutoGLM-GUI did not answer within 30 s")
