"""The part `worker`: a Celery worker of this deployment. `python -m gonogo.tasks.worker --state-dir DIR --socket PATH`.

The socket only shows that the process is there; it says nothing. SIGTERM ends it within a second or two: what is under
way at the gateway is given up, and waits again.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Sequence
from urllib.parse import quote

from gonogo.runtimes.paths import StatePaths
from gonogo.runtimes.tell import tell
from gonogo.store.faults import StoreError
from gonogo.tasks.agents.nouns import RANK as OF_AGENT
from gonogo.tasks.agents.runs import WAITING
from gonogo.tasks.broker import broker_url
from gonogo.tasks.database import NAME

CONCURRENCY = 1
"""One process has many requests under way, and one pace."""
LOOK_EVERY_S = 0.5
MOVED_EVERY_S = 2.0
STOP_LIMIT_S = 10.0
WORDS = (
    *("worker", "--pool=prefork", f"--concurrency={CONCURRENCY}", "--loglevel=WARNING"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="gonogo-worker", description=__doc__)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    given = parser.parse_args(arguments)
    os.umask(0o077)
    os.environ["GONOGO_STATE_DIR"] = given.state_dir  # the app is found by Celery in its children too
    threading.Thread(target=_show, args=(given.socket,), name="here", daemon=True).start()
    paths = StatePaths.of(given.state_dir)
    ledger = paths.root / "tasks" / NAME
    threading.Thread(target=_keep_agents, args=(given.state_dir, ledger), name="agents", daemon=True).start()
    _wait_for_work(ledger)
    url = _wait_for_url(paths)
    from gonogo.tasks.celery import app

    threading.Thread(target=_end_when_moved, args=(paths, url), name="moved", daemon=True).start()
    app.worker_main(list(WORDS))
    return 0


def _wait_for_work(ledger: Path) -> None:
    """Until something waits for the first time: Celery takes a second of a core to start, and 90 MB three times."""
    while not _finds(ledger, "SELECT 1 FROM tasks WHERE state = 'queued' AND rank < ? LIMIT 1", OF_AGENT):
        time.sleep(LOOK_EVERY_S)


def _wait_for_url(paths: StatePaths) -> str:
    """Where the bell hangs, once its password can be read."""
    told = ""
    while True:
        try:
            return broker_url(paths)
        except (OSError, ValueError, StoreError) as error:
            if str(error) != told:
                told = str(error)
                tell(f"where the queue's bell hangs cannot be read: {told}")
        time.sleep(LOOK_EVERY_S)


def _end_when_moved(paths: StatePaths, url: str) -> None:
    """End this process once the bell hangs elsewhere, or its password is another: control starts one that knows it."""
    while True:
        time.sleep(MOVED_EVERY_S)
        with suppress(OSError, ValueError, StoreError):
            if broker_url(paths) != url:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(STOP_LIMIT_S)
                os.kill(os.getpid(), signal.SIGKILL)  # it hangs on to a broker that is away


def _keep_agents(state_dir: str, ledger: Path) -> None:
    """Whenever a run of an agent waits and could begin, its worker is there: a process of its own, which ends itself.

    Not one of Celery's: those are killed when they take long, and forget what they held.
    """
    child: subprocess.Popen[bytes] | None = None
    words = [sys.executable, "-m", "gonogo.tasks.agents.main", "--state-dir", state_dir, "--parent", str(os.getpid())]
    while True:
        if (child is None or child.poll() is not None) and _finds(ledger, f"{WAITING} LIMIT 1", OF_AGENT, time.time()):
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        time.sleep(LOOK_EVERY_S)


def _finds(ledger: Path, sql: str, *values: float) -> bool:
    """Whether there is such a row; False where there is no ledger yet, or none that can be read now."""
    with suppress(sqlite3.Error):
        looking = sqlite3.connect(f"file:{quote(str(ledger))}?mode=ro", uri=True)
        with closing(looking):
            return looking.execute(sql, values).fetchone() is not None
    return False


def _show(path: Path) -> None:
    """Accept connections, and close them."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(16)
        while True:
            connection, _ = listening.accept()
            connection.close()


if __name__ == "__main__":
    sys.exit(main())
