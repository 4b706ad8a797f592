"""The part `tasks`: the queue's HTTP interface and its reconciler.

    python -m gonogo.tasks.main --state-dir DIR --socket PATH

SIGTERM ends it once the requests under way are answered, within 5 s. Nothing that it holds is lost with it.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

import uvicorn

from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.tell import tell
from gonogo.tasks.asked_queue import AskedQueue
from gonogo.tasks.bounds import Bounds
from gonogo.tasks.broker import broker_url
from gonogo.tasks.database import GroupWriter
from gonogo.tasks.doorbell import Bell
from gonogo.tasks.http.desk import Desk
from gonogo.tasks.http.server import application
from gonogo.tasks.leases import Machine
from gonogo.tasks.places import open_queue
from gonogo.tasks.reconcile import Reconciler

if TYPE_CHECKING:
    from celery import Celery


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="gonogo-tasks", description=__doc__)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    given = parser.parse_args(arguments)
    os.umask(0o077)
    os.environ["GONOGO_STATE_DIR"] = given.state_dir
    queue, stopping = open_queue(StatePaths.of(given.state_dir)), threading.Event()
    asked = AskedQueue(queue.paths.database)
    bell = Bell(_app, lambda: broker_url(queue.paths, asked.now()))
    reconciler = Reconciler(queue=queue, bell=bell, machine=Machine.this(), tell=tell, stopping=stopping)
    desk = Desk(
        queue=queue,
        writer=GroupWriter(queue.database),
        bell=bell,
        bounds=Bounds(asked.now),
        wall=time.time,
        tell=tell,
    )
    reconciler.start()
    config = uvicorn.Config(
        application(desk), log_level="warning", access_log=False, timeout_graceful_shutdown=5, lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[_bound(given.socket)])
    stopping.set()
    desk.writer.close()
    bell.close()
    return 0


def _app() -> Celery:
    from gonogo.tasks.celery import app

    return app


def _bound(path: Path) -> socket.socket:
    """The socket, for this user alone."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    os.chmod(path, 0o600)
    bound.listen(1024)
    return bound


if __name__ == "__main__":
    sys.exit(main())
