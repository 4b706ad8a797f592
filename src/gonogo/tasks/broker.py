"""How Celery is set up here: a doorbell on Valkey that may lose every ring, since the ledger rings again.

Which of Celery's settings lose tasks, and what was measured of it: docs/decisions/0010. None of them matters here: a
message carries nothing, is acknowledged at once, and one too many finds nothing to do.
"""

from __future__ import annotations

import os
from typing import Any, Mapping
from urllib.parse import quote

from gonogo.facts.part import VALKEY
from gonogo.runtimes.paths import StatePaths

QUEUE = "gonogo"
QUEUE_DB = 0
"""The database of Valkey that is for queues; policy servers count in another (`gonogo.facts.part`)."""
DRAIN = "gonogo.drain"
"""The name of the one task that a ring is."""
MOST_RINGS = 4
"""Rings that wait at once: a worker that is away must not find thousands."""
RING_KEPT_S = 60
STUCK_S = 120
"""A drain that takes this long hangs: its process is killed, and its tasks wait again."""
QUEUE_URL = "GONOGO_QUEUE_URL"
"""The environment variable that names another Redis or Valkey than the deployment's own."""


def broker_url(paths: StatePaths) -> str:
    """Where the bell hangs."""
    given = os.environ.get(QUEUE_URL)
    return given or f"redis+socket://{quote(str(paths.part_socket(VALKEY, 0)))}?virtual_host={QUEUE_DB}"


def settings(paths: StatePaths) -> Mapping[str, Any]:
    """Celery's configuration."""
    return {
        "broker_url": broker_url(paths),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 2.0,
        "broker_transport_options": {
            "socket_timeout": 5.0,
            "socket_connect_timeout": 2.0,
            "visibility_timeout": 60,
        },
        "result_backend": "gonogo.tasks.results:LedgerResults",
        "task_default_queue": QUEUE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_publish_retry": False,
        "task_time_limit": STUCK_S,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "enable_utc": True,
    }
