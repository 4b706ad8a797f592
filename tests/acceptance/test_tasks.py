"""The queue of a real deployment: the stock SDK runs a batch on real llama.cpp, through the death of workers."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.acceptance.deployment import Deployment, wait_for
from tests.free_ports import free_port
from tests.shell.tasks_parts import jsonl

openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2")

LINES, BROKEN = 60, 6


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(state_dir=tmp_path_factory.mktemp("state"), port=free_port())
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def sdk(deployment: Deployment) -> Any:
    trust = ssl.create_default_context(cafile=str(deployment.state_dir / "tls" / "ca.crt"))
    return openai.OpenAI(
        base_url=f"https://127.0.0.1:{deployment.port}/v1",
        api_key=deployment.key,
        http_client=httpx2.Client(verify=trust, trust_env=False),
    )


def question(number: int, model: str) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}], "max_tokens": 4}
    return {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_a_batch_with_broken_lines_is_done_through_the_death_of_workers(deployment: Deployment, sdk: Any) -> None:
    model = sdk.models.list().data[0].id
    good = [question(number, model) for number in range(LINES - BROKEN)]
    text = jsonl(*good[:20], *[b"{broken"] * BROKEN, *good[20:])
    file = sdk.files.create(file=("questions.jsonl", text), purpose="batch")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="1h")
    wait_for(lambda: sdk.batches.retrieve(batch.id).request_counts.completed > 3, 120, "the batch has begun")
    for pid in deployment.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    over = ("completed", "failed", "expired", "cancelled")
    wait_for(lambda: sdk.batches.retrieve(batch.id).status in over, 240, "the batch is over")
    batch = sdk.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", LINES, LINES - BROKEN, BROKEN)
    answers = [json.loads(one) for one in sdk.files.content(batch.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in answers] == [one["custom_id"] for one in good]
    assert all(one["response"]["body"]["usage"]["completion_tokens"] > 0 for one in answers)
    errors = [json.loads(one) for one in sdk.files.content(batch.error_file_id).text.splitlines()]
    assert [one["line"] for one in errors] == list(range(21, 21 + BROKEN))


def test_the_guides_task_is_answered_through_the_ledger(deployment: Deployment) -> None:
    guide = Path(__file__).parents[2] / "examples" / "guide" / "celery" / "ask.py"
    environment = {"GONOGO_STATE_DIR": str(deployment.state_dir), "GONOGO_API_KEY": deployment.key}
    ran = subprocess.run(
        [sys.executable, str(guide), "Say the word hello."],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
    listed = deployment.run("tasks", "list", "--json").json
    assert listed["summary"]["counts"]["done"] >= 1
