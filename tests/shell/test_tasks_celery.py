"""The guide's Celery task: recorded before anybody is told of it, and answered by the ledger."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gonogo.tasks import ledger
from gonogo.tasks.places import open_queue
from tests.shell.policy_parts import until
from tests.shell.tasks_parts import QueueParts, Said, content_of, echo

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "examples" / "guide" / "celery"


def python(parts: QueueParts, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "GONOGO_STATE_DIR": str(parts.paths.root), **environment}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=120, env=given)


def test_the_guides_sample_made_whole_gives_the_answer_and_the_key_counts_it(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state") as parts:
        parts.start("valkey", "tasks", "worker")
        ran = python(parts, str(GUIDE / "ask.py"), "你好", GONOGO_API_KEY=parts.key.text)
        assert (ran.returncode, ran.stdout) == (0, "echo 你好\n"), ran.stderr
        assert parts.gateway.asked == [(parts.key.key_id, "你好")]
        ran = python(parts, str(GUIDE / "ask.py"), "again")
        assert ran.stdout == "echo again\n", ran.stderr
        (owner, _) = parts.gateway.asked[-1]
        rows = parts.deployment.store.keys()
        named = {row.key_id: row.name for row in rows}
        assert named[owner] == "tasks of this machine"


def test_a_task_that_is_left_while_the_bell_is_away_is_done_when_it_is_back(tmp_path: Path) -> None:
    code = "from gonogo.tasks.celery import process_glm_request as ask; print(ask.delay({'prompt': 'later'}).id)"
    with QueueParts(tmp_path / "state") as parts:
        parts.start("tasks")
        ran = python(parts, "-c", code)
        assert ran.returncode == 0, ran.stderr
        parts.start("valkey", "worker")
        queue = open_queue(parts.paths)

        def state() -> str:
            with queue.database.reading() as c:
                task = ledger.task(c, ran.stdout.strip())
            return "" if task is None else task.state.value

        until(lambda: state() == "done", 60)


@pytest.mark.parametrize(
    ("key", "words", "told"),
    [
        ("gng_none", "ask.delay('x')", "NoSuchKey"),
        ("", "ask.delay({'messages': [], 'stream': True})", "must be false"),
        ("", "ask.delay('bad').get(timeout=60)", "http_400"),
    ],
)
def test_what_cannot_be_is_raised_where_it_was_asked(tmp_path: Path, key: str, words: str, told: str) -> None:
    def answer(body: object) -> Said:
        return Said(status=400) if content_of(body) == "bad" else echo(body)

    with QueueParts(tmp_path / "state", answer) as parts:
        parts.start("valkey", "tasks", "worker")
        code = f"from gonogo.tasks.celery import process_glm_request as ask; {words}"
        ran = python(parts, "-c", code, **({"GONOGO_API_KEY": key} if key else {}))
        assert ran.returncode == 1 and told in ran.stderr, ran.stderr


def test_celery_finds_the_app_by_the_name_that_the_guide_gives_it(tmp_path: Path) -> None:
    with QueueParts(tmp_path / "state", gateway=False) as parts:
        ran = python(parts, "-m", "celery", "-A", "gonogo.tasks", "report")
        assert ran.returncode == 0, ran.stderr
        code = (
            "from gonogo.tasks.celery import app; print(app.main, *sorted(n for n in app.tasks if 'celery.' not in n))"
        )
        assert python(parts, "-c", code).stdout.split() == [
            "glm_tasks",
            "glm_tasks.process_glm_request",
            "gonogo.drain",
        ]
