"""A thousand lines by the stock SDK through a whole deployment, ten of them broken, while the worker is killed.

The servers behind it are scripted: each answer says which line it is of, and a thousand of them take seconds.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.acceptance.deployment import Deployment, wait_for
from tests.shell.outside_engine import MOST_TOKENS, OutsideEngine, word
from tests.shell.tasks_parts import jsonl

openai = pytest.importorskip("openai")
httpx2 = pytest.importorskip("httpx2")

MODEL = "counts"
LINES, BROKEN, FIRST_BROKEN = 1000, 10, 301
OVER = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def deployment(empty: Deployment) -> Iterator[Deployment]:
    with OutsideEngine(MODEL) as one, OutsideEngine(MODEL) as two:
        spec = {"service": MODEL, "model": MODEL, "replicas": {"external": [one.url, two.url]}}
        file = Path(empty.state_dir.parent / "counts.yaml")
        file.write_text(json.dumps(spec))
        empty.up(str(file))
        yield empty


def question(number: int) -> Any:
    """It is answered with as many words as its number says, up to 99."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Count, {number}."}],
        "max_tokens": 1 + number % MOST_TOKENS,
    }
    return {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_a_thousand_lines_are_answered_once_each_through_the_death_of_the_worker(deployment: Deployment) -> None:
    trust = ssl.create_default_context(cafile=str(deployment.state_dir / "tls" / "ca.crt"))
    sdk = openai.OpenAI(
        base_url=f"https://127.0.0.1:{deployment.port}/v1",
        api_key=deployment.key,
        http_client=httpx2.Client(verify=trust, trust_env=False),
    )
    good = [question(number) for number in range(LINES - BROKEN)]
    text = jsonl(*good[: FIRST_BROKEN - 1], *[b"{broken"] * BROKEN, *good[FIRST_BROKEN - 1 :])
    file = sdk.files.create(file=("questions.jsonl", text), purpose="batch")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="1h")
    for share in (0.1, 0.5):
        wait_for(lambda share=share: sdk.batches.retrieve(batch.id).request_counts.completed > share * LINES, 120, "on")
        for pid in deployment.pids("worker"):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: sdk.batches.retrieve(batch.id).status in OVER, 240, "the batch is over")
    batch = sdk.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", LINES, LINES - BROKEN, BROKEN)
    answers = [json.loads(one) for one in sdk.files.content(batch.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in answers] == [one["custom_id"] for one in good], "each once, in order"
    for number, one in enumerate(answers):
        told = one["response"]["body"]["choices"][0]["message"]["content"].split()
        assert told == [word(n) for n in range(1, 2 + number % MOST_TOKENS)], "the answer is this line's own"
    errors = [json.loads(one) for one in sdk.files.content(batch.error_file_id).text.splitlines()]
    assert [one["line"] for one in errors] == list(range(FIRST_BROKEN, FIRST_BROKEN + BROKEN))
