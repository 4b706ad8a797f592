"""Celery alone, with its safest settings, as one task whose effect is a line in a file: what ours is held against.

`celery -A plain_celery worker`, with PLAIN_BROKER (a socket's path) and PLAIN_EFFECTS (the file) in the environment.
"""

from __future__ import annotations

import os

from celery import Celery

app = Celery("plain", broker=f"redis+socket://{os.environ['PLAIN_BROKER']}?virtual_host=2")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_transport_options={
        "visibility_timeout": 8,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    broker_connection_retry_on_startup=True,
)


@app.task(name="effect")  # type: ignore[untyped-decorator]
def effect(number: int) -> None:
    """One short line is written whole."""
    descriptor = os.open(os.environ["PLAIN_EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
