"""The peers, each as its own documentation starts it: with TLS and a key where it has them, in `.venv-bench`.

Their environment is set up by `scripts/setup bench` from requirements-bench.lock, and is no part of a deployment.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from contenders.process import MODEL, Contender, NotReady, await_answer, free_port, refuses_without_key, running

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-bench"
SET_UP_WITHIN_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a peer runs: its folder, the port of the fake engine, and certificate and key files (PEM)."""

    folder: Path
    upstream_port: int
    certificate_file: Path
    key_file: Path


def set_up() -> str | None:
    """Make `.venv-bench` whole, with progress on stderr. None when it is, else why it is not."""
    try:
        done = subprocess.run(
            ("sh", "scripts/setup", "bench"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=SET_UP_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"set-up took longer than {SET_UP_WITHIN_S} s"
    return None if done.returncode == 0 else f"not installed: `sh scripts/setup bench` ended with {done.returncode}"


def version(distribution: str) -> str | None:
    """The installed version of a peer, None when it is not installed."""
    names = ENVIRONMENT.glob(f"lib/python*/site-packages/{distribution.replace('-', '_')}-*.dist-info")
    return next((name.name.removesuffix(".dist-info").rpartition("-")[2] for name in names), None)


@contextlib.contextmanager
def litellm(place: Place) -> Iterator[Contender]:
    """LiteLLM's proxy with a master key and without a database. Raises `NotReady`."""
    key = f"sk-{secrets.token_hex(16)}"
    parameters = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{place.upstream_port}/v1", "api_key": "x"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
    # JSON is YAML.
    file = place.folder / "litellm.yaml"
    file.write_text(json.dumps(config))
    contender = Contender(
        name="litellm", port=free_port(), key=key, asks_for_key=True, note="1 worker, master key, no database"
    )
    command = (
        str(ENVIRONMENT / "bin" / "litellm"), "--config", str(file),
        "--host", "127.0.0.1", "--port", str(contender.port),
        "--ssl_certfile_path", str(place.certificate_file), "--ssl_keyfile_path", str(place.key_file),
    )  # fmt: skip
    # Otherwise it asks the network for a list of prices before it starts, and writes a line for every request.
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with _peer(command, contender, place, quiet):
        yield contender


@contextlib.contextmanager
def sglang_router(place: Place) -> Iterator[Contender]:
    """SGLang's router in front of one worker. Raises `NotReady`."""
    contender = Contender(
        name="sglang-router", port=free_port(), key=secrets.token_hex(16), asks_for_key=True, note="API key"
    )
    command = (
        str(ENVIRONMENT / "bin" / "python"), "-m", "sglang_router.launch_router",
        "--worker-urls", f"http://127.0.0.1:{place.upstream_port}", "--policy", "round_robin",
        "--host", "127.0.0.1", "--port", str(contender.port), "--prometheus-port", str(free_port()),
        "--tls-cert-path", str(place.certificate_file), "--tls-key-path", str(place.key_file),
        "--api-key", contender.key, "--log-level", "error",
    )  # fmt: skip
    with _peer(command, contender, place, {}):
        yield contender


@contextlib.contextmanager
def vllm_router(place: Place) -> Iterator[Contender]:
    """vLLM's router in front of one worker. It has neither TLS nor keys of its own. Raises `NotReady`."""
    contender = Contender(
        name="vllm-router", port=free_port(), key="none", asks_for_key=False, note="plain HTTP, no keys", tls=False
    )
    command = (
        str(ENVIRONMENT / "bin" / "python"), "-m", "vllm_router.launch_router",
        "--worker-urls", f"http://127.0.0.1:{place.upstream_port}", "--policy", "round_robin",
        "--host", "127.0.0.1", "--port", str(contender.port), "--prometheus-port", str(free_port()),
        "--log-level", "error",
    )  # fmt: skip
    with _peer(command, contender, place, {}):
        yield contender


PEERS: dict[str, Callable[[Place], contextlib.AbstractContextManager[Contender]]] = {
    "litellm": litellm,
    "sglang-router": sglang_router,
    "vllm-router": vllm_router,
}


@contextlib.contextmanager
def _peer(command: tuple[str, ...], contender: Contender, place: Place, environment: dict[str, str]) -> Iterator[None]:
    if not Path(command[0]).exists():
        raise NotReady("not installed: sh scripts/setup bench")
    log = place.folder / f"{contender.name}.log"
    with running(command, log, environment) as process:
        await_answer(process, contender, log, within_s=90)
        if contender.asks_for_key and not refuses_without_key(contender):
            raise NotReady("answers without a key, although it was given one to ask for")
        yield
