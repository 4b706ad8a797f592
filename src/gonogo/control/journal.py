"""The journal: one event before and one after each action, in the store's hash chain.

`GONOGO_FAILPOINTS=1` together with a file `failpoint` in the state directory ("before 7") kills the control process
before or after its seventh journal line: that is how the crash tests reach every position.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable

from gonogo.actions.model import Action
from gonogo.control.deployment import Deployment
from gonogo.store.change import Change


class Journal:
    """Writes what is about to be done, what was done, and what failed, fenced by the lease's epoch."""

    def __init__(self, deployment: Deployment, failpoint: Path | None) -> None:
        self._change = deployment.change
        self._failpoint = failpoint
        self._lines = 0

    def started(self, action: Action) -> None:
        self._line(lambda change: change.journal_started(action))

    def finished(self, action: Action) -> None:
        self._line(lambda change: change.journal_finished(action))

    def failed(self, action: Action, error: BaseException) -> None:
        self._line(lambda change: change.journal_failed(action, error))

    def _line(self, write: Callable[[Change], None]) -> None:
        self._lines += 1
        self._crash_if_asked("before")
        with self._change() as change:
            write(change)
        self._crash_if_asked("after")

    def _crash_if_asked(self, moment: str) -> None:
        if self._failpoint is None:
            return
        try:
            asked = self._failpoint.read_text().split()
        except OSError:
            return
        if asked == [moment, str(self._lines)]:
            self._failpoint.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
