"""How Celery is set up here: a doorbell on Valkey that may lose every ring, since the ledger rings again.

Which of Celery's settings lose tasks, and what was measured of it: docs/decisions/0010. None of them matters here: a
message carries nothing, is acknowledged at once, and one too many finds nothing to do.
"""

from __future__ import annotations

from typing import Any, Mapping
from urllib.parse import quote

from gonogo.facts.part import VALKEY
from gonogo.runtimes.look_queue import password_of
from gonogo.runtimes.look_servers import system_ca_file
from gonogo.runtimes.paths import StatePaths
from gonogo.spec.queue import Queue
from gonogo.tasks.asked_queue import asked_queue

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


def broker_url(paths: StatePaths, queue: Queue | None = None) -> str:
    """Where the bell hangs, as Celery writes it; `queue` None: as the specs say now.

    Raises OSError, ValueError for a password that cannot be read, `StoreUnreadable`.
    """
    queue = queue or asked_queue(paths.database)
    server = queue.server
    if server is None:
        return f"redis+socket://{quote(str(paths.part_socket(VALKEY, 0)))}?virtual_host={QUEUE_DB}"
    password = password_of(queue)
    login = f"{quote(server.user or '', safe='')}:{quote(password or '', safe='')}@" if server.user or password else ""
    if server.path is not None:
        return f"redis+socket://{login}{quote(server.path)}?virtual_host={server.db}"
    host = f"[{server.host}]" if ":" in server.host else server.host
    plain = f"{login}{host}:{server.port}/{server.db}"
    if not server.encrypted:
        return f"redis://{plain}"
    ca_file = quote(queue.ca_file or system_ca_file(), safe="")
    return f"rediss://{plain}?ssl_cert_reqs=required&ssl_ca_certs={ca_file}"


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
